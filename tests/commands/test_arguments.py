"""Paths on the command line: taken as a shell hands them over, and printed so that a shell takes them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import run
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.commands.arguments import (
    check_ignored,
    check_places,
    hydra_arguments_of,
    quote_if_needed,
    with_fixed_run,
)
from reslab.commands.resume import resumed_command_line
from reslab.configuration import chosen, composed, own_folders, searchpath_override
from reslab.errors import UserError
from reslab.inference.options import EVALUATE_SCHEMA, PREDICT_SCHEMA
from reslab.run import Run, resume_argument
from reslab.training.options import TRAINING_SCHEMA

PATHS = [
    "/tmp/My Pictures (1) [new]/a&b;c#d", "it's", 'say "hi"', "a!b^c", "a~b", " a", "a ", "[1]", "(x)", "{a: 1}", "a=b",
    "2024", "1e3", "1_000", "007", "true", "a\\b", "a\\", "a\\ b", "C:\\x y", "Äpfel", "日本", "a:b", "@x", "a#", "|",
    "%41", "*.png", "a\tb", "str(3)", "'a' and 'b'", "${x", "a?b", "-x", "a%b$c", ".", "..", "a'b\"c", "\\'",
    "x y/z.csv",
]  # fmt: skip
PATH_OPTIONS = [
    (EVALUATE_SCHEMA, "checkpoint"), (EVALUATE_SCHEMA, "root"), (EVALUATE_SCHEMA, "output"),
    (PREDICT_SCHEMA, "images"), (PREDICT_SCHEMA, "output"), (PREDICT_SCHEMA, "checkpoint"),
    (TRAINING_SCHEMA, "data.root"), (TRAINING_SCHEMA, "resume"), (TRAINING_SCHEMA, "outputs"),
    (TRAINING_SCHEMA, "hydra.run.dir"), (TRAINING_SCHEMA, "hydra.sweep.dir"), (TRAINING_SCHEMA, "logger.csv.save_dir"),
    (TRAINING_SCHEMA, "model.weights"), (BENCHMARK_SCHEMA, "data.root"), (TRAINING_SCHEMA, "++data.root"),
]  # fmt: skip


def as_hydra_reads(argument):
    override = OverridesParser.create().parse_override(argument)
    assert not override.is_sweep_override()
    return override.value()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_taken_as_a_shell_hands_it_over(path):
    quoted = quote_if_needed(f"data.root={path}", TRAINING_SCHEMA.kinds)
    assert as_hydra_reads(quoted) == path
    assert quote_if_needed(quoted, TRAINING_SCHEMA.kinds) == quoted  # further processes receive it


@pytest.mark.parametrize(("schema", "name"), PATH_OPTIONS)
def test_every_option_that_is_a_path_takes_one_with_special_characters(schema, name):
    assert as_hydra_reads(quote_if_needed(f"{name}={PATHS[0]}", schema.kinds)) == PATHS[0]


@pytest.mark.parametrize(
    "argument",
    ["data.root=null", "data.root=data/mnist", "data.root='a b'", 'data.root="a b"', "data.root=a,b", "data.root=",
     "data.root=glob(*)", "data.root=choice(a,b)", "data.root=${oc.env:HOME}/x", "images=[a.png, b.png]",
     "images=[a.png],[b.png]", "seed=1,2", "optimizer.lr=range(1, 9, step=2)", "model.layers=[1, 2]", "model=resnet8",
     "--config-dir=a=b", "-m", "~callbacks.ema", "seed"],
)  # fmt: skip
def test_what_hydra_reads_as_it_is_meant_stays(argument):
    kinds = {**TRAINING_SCHEMA.kinds, **PREDICT_SCHEMA.kinds}
    assert quote_if_needed(argument, kinds) == argument


@pytest.mark.parametrize(
    ("argument", "quoted"),
    [
        ("checkpoint=sweep/0_model=resnet8_seed=1", "checkpoint='sweep/0_model=resnet8_seed=1'"),
        ("checkpoint=0_seed=1,1_seed=2", "checkpoint='0_seed=1','1_seed=2'"),
        ("data.root=Äpfel,größe", "data.root='Äpfel','größe'"),
        ("data.root='a,b',c d,2024", "data.root='a,b',c d,'2024'"),
        ("images=[0_seed=1/a.png,b (1).png]", "images=['0_seed=1/a.png','b (1).png']"),
        ("model.name=Äpfel", "model.name='Äpfel'"),
    ],
)  # fmt: skip
def test_each_value_is_quoted_by_itself(argument, quoted):
    assert quote_if_needed(argument, {**TRAINING_SCHEMA.kinds, **PREDICT_SCHEMA.kinds}) == quoted


@pytest.mark.slow
def test_a_path_with_a_comma_that_exists_is_one_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos odd, 100%=", "a,b", "a", "a,c"):
        Path(name).mkdir()
    for name in ("photos odd, 100%=", "a,c"):
        for typed in ([f"data.root={name}", "data=imagefolder"], [f"data.root={name}", "data=imagefolder", "-m"]):
            assert as_hydra_reads(hydra_arguments_of(typed, TRAINING_SCHEMA)[0]) == name
    Path("b").mkdir()
    assert hydra_arguments_of(["data.root=a,b", "data=imagefolder", "-m"], TRAINING_SCHEMA)[0] == "data.root=a,b"


@pytest.mark.parametrize(
    ("schema", "typed", "line"),
    [
        (TRAINING_SCHEMA, "data.root=my photos, 2024",
         "data.root=my photos, 2024 has several values: a comma in a path needs quotes, "
         """'data.root='"'"'my photos, 2024'"'"''; -m trains a run for each"""),
        (EVALUATE_SCHEMA, "root='a',Ä",
         """root=a,Ä has several values: a comma in a path needs quotes, 'root='"'"'a,Ä'"'"''"""),
    ],
)  # fmt: skip
def test_a_path_with_a_comma_is_told_its_quotes(tmp_path, monkeypatch, schema, typed, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as refused:
        hydra_arguments_of([typed], schema)
    assert str(refused.value) == line


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/it's me")
    for name in ("data.root", "outputs", "hydra.run.dir", "resume", "model.weights"):
        assert as_hydra_reads(quote_if_needed(f"{name}=~/a b", TRAINING_SCHEMA.kinds)) == "/home/it's me/a b"
    config = OmegaConf.create({"images": ["~/a.png", "b.png"], "output": "~/c.csv", "checkpoint": "d"})
    PREDICT_SCHEMA.expand_home(config)
    assert config == {"images": ["/home/it's me/a.png", "b.png"], "output": "/home/it's me/c.csv", "checkpoint": "d"}


@pytest.mark.parametrize("name", ["outputs", "hydra.run.dir", "hydra.sweep.dir"])
def test_a_folder_that_cannot_be_made_is_refused_before_hydra_makes_it(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"^{name}= must be a path"):
        hydra_arguments_of([f"{name}="], TRAINING_SCHEMA)
    for value in ("file", "file/run"):
        line = f"^{name}={tmp_path}/{value} cannot be a folder: {tmp_path}/file is a file$"
        with pytest.raises(UserError, match=line):
            hydra_arguments_of([f"{name}={tmp_path}/{value}"], TRAINING_SCHEMA)
    with pytest.raises(UserError, match="must be one folder"):
        check_places([f"{name}=a,b"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "argument", "line"),
    [
        (TRAINING_SCHEMA, "optimizer=null", "optimizer=null does not exist; all: adam, adamw, "),
        (TRAINING_SCHEMA, "+scheduler=3", "scheduler=3 does not exist; all: constant, cosine, multi_step, one_cycle"),
        (
            TRAINING_SCHEMA,
            "logger=[none,true]",
            "logger=true does not exist; all: csv, mlflow, none, tensorboard, wandb",
        ),
        (TRAINING_SCHEMA, "scheduler=cosine,null", "scheduler=null does not exist; all: constant, cosine, multi_step"),
        (
            TRAINING_SCHEMA,
            "logger=range(1,3)",
            "logger=range(1,3) does not exist; all: csv, mlflow, none, tensorboard, wandb",
        ),
        (TRAINING_SCHEMA, "hydra/sweeper=null", "hydra/sweeper=null does not exist; all: optuna"),
        (EVALUATE_SCHEMA, "trainer=1.5", "trainer=1.5 does not exist; all: cpu, ddp"),
        (BENCHMARK_SCHEMA, "optimizer=null", "optimizer=null does not exist; all: adam, adamw, "),
        (PREDICT_SCHEMA, "model=null", "there is no option model: checkpoint= is the run's folder or a checkpoint"),
        (TRAINING_SCHEMA, "=3", "=3: an option is name=value"),
    ],
)
@pytest.mark.parametrize("others", [[], ["-m"], ["resume=nothing"]])
def test_a_choice_that_is_no_name_is_refused_before_hydra_reads_it(schema, argument, line, others):
    with pytest.raises(UserError) as refused:
        hydra_arguments_of([*others, argument], schema)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize(
    "argument", ["model=resnet8,resnet20", "callbacks=[ema,early_stopping]", "model=glob(resnet1*)", "data='7'",
                 "optimizer={lr: null}", "data.root=null", "~callbacks"],
)  # fmt: skip
def test_what_may_be_a_choice_is_left_to_hydra(argument):
    assert hydra_arguments_of([argument], TRAINING_SCHEMA) == [argument]


@pytest.mark.parametrize("path", [PATHS[0], "it's", "!x", "a$b`c", "日本"])
def test_what_is_printed_for_copying_works_in_a_shell(tmp_path, path):
    made = Run(tmp_path / path.lstrip("/"))
    made.write_settings(yaml.safe_dump(composed("config", ["seed=7"], [])), ["seed=7"])
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    line = f"{sys.executable} -c '{code}' {resume_argument(made.folder)}"
    shell = subprocess.run(["bash", "-c", line], capture_output=True, encoding="utf-8", check=True)
    (argument,) = json.loads(shell.stdout)
    assert argument == f"resume={made.folder}"
    arguments = resumed_command_line([quote_if_needed(argument, TRAINING_SCHEMA.kinds)])
    assert "seed=7" in arguments
    assert [as_hydra_reads(each) for each in arguments if each.startswith("hydra.run.dir")] == [str(made.folder)]


@pytest.mark.parametrize("path", ["a, b", "[new] (1)", "it's", "a=b"])
def test_an_own_folder_of_configuration_may_have_any_name(path):
    assert own_folders([searchpath_override(path)]) == [Path(path).absolute()]
    assert own_folders(["--config-dir", path]) == own_folders([f"--config-dir={path}"]) == [Path(path)]
    assert own_folders(["hydra.searchpath=[file:///a,pkg://b,c/d]"]) == [Path("/a"), Path("c/d")]


@pytest.mark.parametrize("argument", ["--config-dir=gone", "hydra.searchpath=[gone]", "hydra.searchpath=[file://gone]"])
def test_a_folder_of_configuration_that_is_not_there_is_one_line(argument):
    line = "^gone is no folder: --config-dir and hydra.searchpath name those of your configuration$"
    with pytest.raises(UserError, match=line):
        hydra_arguments_of([argument, "seed=1"], TRAINING_SCHEMA)


@pytest.mark.slow
def test_a_run_resumes_in_a_locale_without_its_letters(tmp_path):
    """Every umlaut is then two bytes that are no text. TensorBoard refuses these in the name of its own folder."""
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    new = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "outputs=Äpfel", "hydra.run.dir=run")
    for arguments in (new, ("resume=run", "trainer.max_epochs=2")):
        done = run("train", *arguments, cwd=tmp_path, **locale)
        assert (done.returncode, done.stderr) == (0, "")
    assert Run(tmp_path / "run").result["epochs"] == 2
    assert run("evaluate", "checkpoint=run", cwd=tmp_path, **locale).returncode == 0


def test_a_choice_may_have_any_name_of_a_file():
    choices = ["experiment=my-photos", "model=mine/resnet20.v2+", "logger=[csv, my-logger]"]
    assert chosen([*choices, "seed=1", "data.root=a", "model=../a", "logger=[]"]) == choices


def test_the_newest_run_is_named_when_a_run_begins_from_its_weights(tmp_path, monkeypatch):
    """`latest` would be another run where the new run is repeated."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^model\.weights=latest is the newest run below outputs, and /.*/outputs d"):
        with_fixed_run("model.weights=latest", [])
    for number, name in enumerate(("a", "b")):
        run = Run(Path("outputs") / "resnet8-digits" / name)
        run.checkpoints.mkdir(parents=True)
        run.hydra_folder.mkdir()
        run.last.touch()
        run.config_file.touch()
        os.utime(run.config_file, (number, number))
    newest = "model.weights='outputs/resnet8-digits/b'"
    assert with_fixed_run("model.weights=latest", []) == newest
    assert with_fixed_run("model.weights='outputs/resnet8-digits'", []) == newest
    with pytest.raises(UserError, match=r"is the newest run below runs, and /.*/runs does not exist"):
        with_fixed_run("model.weights=latest", ["outputs='runs'"])
    Path("outputs").rename("runs")
    assert with_fixed_run("model.weights=latest", ["outputs='runs'"]) == newest.replace("outputs", "runs")
    for arguments, asked in ((["outputs=runs"], "null,latest"), (["outputs=runs", "resume=auto"], "latest")):
        now = "model.weights=runs/resnet8-digits/b$"
        with pytest.raises(UserError, match=rf"^model\.weights={asked}: latest would be another run later: .*{now}"):
            with_fixed_run(f"model.weights={asked}", arguments)
    auto = ["resume=auto", "outputs=new"]
    assert with_fixed_run("model.weights=runs", auto) == newest.replace("outputs", "runs")  # no new run comes there
    for place in ("hydra.run.dir=runs/a/b", "hydra.sweep.dir='runs/c'"):
        with pytest.raises(UserError, match="runs would be another run later"):
            with_fixed_run("model.weights=runs", [*auto, place])
    Path("experiment").mkdir()
    Path("experiment/elsewhere.yaml").write_text("# @package _global_\noutputs: runs\n")
    elsewhere = ["experiment=elsewhere", "--config-dir", "."]
    assert with_fixed_run("model.weights=latest", elsewhere) == newest.replace("outputs", "runs")
    for other in ("model.weights=runs/resnet8-digits/a", "model.weights=IMAGENET1K_V2", "model.weights=a,b",
                  "model.weights=", "model.weights=''",
                  "data.root=latest", "model=latest"):  # fmt: skip
        assert with_fixed_run(other, []) == other


@pytest.mark.parametrize("typed", [["input_shape=28,28,1"], ["optimizer.betas=0.9,0.9"]])
def test_equal_values_are_a_mistake_of_a_sweep_only(typed):
    assert hydra_arguments_of(typed, TRAINING_SCHEMA) == typed
    with pytest.raises(UserError, match="stands there twice"):
        hydra_arguments_of([*typed, "-m"], TRAINING_SCHEMA)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["data.root=/photos"], "data=digits reads no files: data=imagefolder data.root=/photos reads your own images"),
        (["data=synthetic", "++data.root=a"], "data=synthetic reads no files: data=imagefolder data.root=a reads"),
        (["model=resnet8", "model.name=resnet50"],
         "model.name=resnet50 only names a network, and would give this one the name of another: model=resnet50 "
         "chooses it"),
        (["data.augment.scale_aspect=[1,2]"], "data.augment.scale_aspect does nothing with data.augment.scale=null"),
        (["data=fashion_mnist", "data.augment.erasing_fill=0"], "data.augment.erasing_fill does nothing with data.aug"),
        (["experiment=fashion_mnist_random_erasing", "data.augment.erasing_fill=0", "data.augment.erasing=0"],
         "data.augment.erasing_fill does nothing with data.augment.erasing=0: set both or neither"),
        (["experiment=fashion_mnist_random_erasing", "data.augment.erasing_fill=0"], None),
        (["data.augment.erasing_fill=0", "data.augment.erasing=0,0.5", "-m"], None),
        (["data=imagefolder", "data.augment.scale_aspect=[1,2]"], None),
        (["data.root=/photos", "data=imagefolder"], None),
        (["data.root=/photos", "experiment=cifar10_fast"], None),
        (["data.root=/photos", "data=digits,cifar10", "-m"], None),
        (["model=resnet8", "model.name=resnet8"], None),
        (["model=resnet8", "model.name=mine"], None),
        (["model=timm", "model.name=resnet50"], None),
    ],
)  # fmt: skip
def test_what_would_be_ignored_is_refused(typed, line):
    if line is None:
        hydra_arguments_of(typed, TRAINING_SCHEMA)
        return
    with pytest.raises(UserError) as refused:
        hydra_arguments_of(typed, TRAINING_SCHEMA)
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize("option", ["data.root=/photos", "model.name=resnet50"])
def test_what_is_ignored_is_not_refused_beside_a_folder_that_may_have_it(option):
    for source in ("from=run", "resume=run"):
        check_ignored([option, source], "config")
    with pytest.raises(UserError):
        check_ignored([option], "config")


@pytest.mark.parametrize(
    ("source", "advice"),
    [("resume=run", "leave it out"), ("resume=auto", "give hydra.run.dir=x"), ("from=run", "give hydra.run.dir=x")],
)
def test_the_folder_of_a_run_is_not_an_option_beside_another_run_either(source, advice):
    with pytest.raises(UserError, match=f"^folder= follows from the place of the run: {advice}$"):
        check_ignored([source, "folder=x"], "config")

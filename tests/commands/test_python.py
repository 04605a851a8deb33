"""Training from Python, and the examples of the public API."""

import doctest
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import FP32, equal, last_weights
from torchvision.io import write_png

import reslab
import reslab.run
from reslab.commands.entry import run_hydra
from reslab.interruption import signals
from reslab.training import fit
from reslab.training.options import TRAINING_SCHEMA

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "logger=none", "test=false", FP32)


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("module", [reslab, reslab.run])
def test_the_examples_of_the_public_functions(module):
    failures, examples = doctest.testmod(module)
    assert failures == 0
    assert examples >= 3


@pytest.mark.slow
def test_a_run_from_python_is_the_run_of_the_command(tmp_path, composed):
    run = reslab.train(*QUICK, "trainer.max_epochs=2", "data.augment.erasing=0.5")
    fit.train(composed(*QUICK, "trainer.max_epochs=2", "data.augment.erasing=0.5", f"folder={tmp_path}/composed"))
    assert equal(last_weights(run.folder), last_weights(tmp_path / "composed"))
    assert run.overrides == [*QUICK, "trainer.max_epochs=2", "data.augment.erasing=0.5"]
    assert run.folder.parent == tmp_path / "outputs" / "resnet8-digits"
    assert "[reslab.training.progress][INFO]     2  " in (run.folder / "train.log").read_text()


@pytest.mark.slow
def test_a_run_is_loaded_as_the_commands_find_it(tmp_path, monkeypatch):
    first, second = reslab.train(*QUICK), reslab.train(*QUICK)
    os.utime(first.config_file, (1, 1))
    for name in ("latest", "outputs", second.folder.parent, second.folder):
        assert reslab.load(name, config_dir=".").folder.resolve() == second.folder.resolve()
        assert reslab.load(name, config_dir=".").config_dir == "."
    assert reslab.load(first.folder).folder == first.folder
    assert reslab.load(first.last).folder == first.folder  # a checkpoint
    monkeypatch.setenv("HOME", str(tmp_path))
    assert reslab.load("~/outputs", config_dir="~/outputs").folder == tmp_path / second.folder
    assert reslab.load("~/outputs", config_dir="~/outputs").config_dir == f"{tmp_path}/outputs"


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("absent", "absent does not exist"),
        ("Latest", "Latest does not exist: did you mean latest?"),
        ("lates", "lates does not exist: did you mean latest?"),
        ("./emty", "./emty does not exist: did you mean ./empty?"),
        (
            "latest",
            "latest is the newest run below outputs, and .*/outputs does not exist: change to the .*",
        ),
        ("", "the path is empty: give a run's folder, or latest"),
        ("empty", r"empty holds no run: \.hydra/overrides\.yaml is missing"),
        ("notes.txt", r"notes\.txt is not a run's checkpoint: \.hydra/overrides\.yaml is missing"),
    ],
)
def test_what_holds_no_run_is_one_line(tmp_path, folder, line):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(reslab.UserError, match=f"^{line.replace('?', chr(92) + '?')}$"):
        reslab.load(folder)


def test_a_folder_that_has_lost_its_settings_is_a_run_while_it_has_a_checkpoint(tmp_path):
    run = reslab.Run(tmp_path / "run")
    run.write_settings("seed: 1\n", ["seed=1"])
    for file in (run.config_file, run.overrides_file):
        file.write_bytes(b"\xff\x00")
        name = file.name.replace(".", r"\.")
        with pytest.raises(reslab.UserError, match=rf"run holds no run: \.hydra/{name} is damaged$"):
            reslab.load(run.folder)
    run.weights.touch()
    assert reslab.load(run.folder).folder == reslab.load(run.weights).folder == run.folder
    shutil.rmtree(run.hydra_folder)  # only weights.safetensors is left
    assert reslab.load(run.folder).checkpoint() == run.weights


@pytest.mark.parametrize("value", [3, None, b"outputs"])
def test_a_folder_that_is_no_path_is_one_line(value):
    with pytest.raises(reslab.UserError, match=r"^the folder of a run is a path \(str or Path\), not of type \w+$"):
        reslab.load(value)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="the system has no /proc")
def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch):
    line = r"/proc/run cannot be made (No such file or directory): hydra.run.dir=<folder> is another place"
    with pytest.raises(reslab.UserError, match=f"^{re.escape(line)}$"):
        reslab.train("hydra.run.dir=/proc/run")
    monkeypatch.setattr(sys, "argv", ["train.py", "hydra.run.dir=/proc/run"])
    with pytest.raises(reslab.UserError, match=f"^{re.escape(line)}$"):
        run_hydra(TRAINING_SCHEMA, lambda config: pytest.fail("it trains"))


@pytest.mark.slow
def test_predictions_take_the_options_of_the_command(tmp_path, monkeypatch):
    run = reslab.train(*QUICK)
    (tmp_path / "images").mkdir()
    write_png(torch.zeros(1, 8, 8, dtype=torch.uint8), str(tmp_path / "images" / "a.png"))
    (tmp_path / "images" / "b.png").write_bytes(b"broken")
    with pytest.raises(reslab.UserError, match="on_error=skip"):
        run.predict(tmp_path / "images")
    monkeypatch.setenv("HOME", str(tmp_path))
    for images in ("~/images/a.png", ["~/images/a*.png"]):
        assert run.predict(images)[0]["image"] == str(tmp_path / "images" / "a.png")
    (row,) = run.predict(tmp_path / "images", 1, on_error="skip", batch_size=1, device="cpu")
    assert row["image"] == str(tmp_path / "images" / "a.png")
    for wrong in (
        {"on_error": "ignore"}, {"batch_size": 0}, {"device": "tpu"}, {"views": "sideways"}, {"coverage": 2.0},
    ):  # fmt: skip
        with pytest.raises(reslab.UserError, match=f"^{next(iter(wrong))}="):
            run.predict(tmp_path / "images", **wrong)
    for asked in ({"calibrated": True}, {"coverage": 0.9}):
        with pytest.raises(reslab.UserError, match="has no calibration"):
            run.predict(tmp_path / "images" / "a.png", **asked)


@pytest.fixture
def own_copy(trained, tmp_path):
    """The run of `trained`, which may be changed."""
    return reslab.Run(shutil.copytree(trained.folder, tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("heading", ["Evaluate and calibrate", "Export"])
def test_the_examples_of_the_document_run(own_copy, heading):
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}$(.*?)^## ", page, re.DOTALL | re.MULTILINE)
    (example,) = re.findall(r"^```python$(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    exec(example, {"run": own_copy})


@pytest.mark.slow
def test_an_evaluation_is_that_of_the_run_and_of_the_command(trained, own_copy, tmp_path):
    assert own_copy.evaluate(device="cpu", predictions="p.csv")["metrics"] == {
        name: trained.result[name] for name in trained.result if name.startswith("test/") and "images" not in name
    }
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 1 + 359
    calibration = own_copy.calibrate(device="cpu")
    assert calibration["images"] == 143
    assert own_copy.evaluate(calibrated=True)["temperature"] == calibration["temperature"]
    with pytest.raises(reslab.UserError, match="nowhere"):
        own_copy.evaluate(data="imagefolder", root="nowhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda run: run.evaluate(data="nowhere"), "data=nowhere does not exist"),
        (lambda run: run.evaluate(data=3), r"^data=3 must be text"),
        (lambda run: run.evaluate(data=["digits"]), r"^data=\['digits'\] must be text"),
        (lambda run: run.evaluate(split=3), "^split=3 must be one of test, val"),
        (lambda run: run.evaluate(views=3), "^views=3 must be"),
        (lambda run: run.evaluate(coverage="a lot"), "^coverage=a lot must be"),
        (lambda run: run.evaluate(device=torch.device("cpu")), "^[^\n]*not a supported[^\n]*$"),
        (lambda run: run.predict(3), r"^images: each of them is a path \(str or Path\), not of type int$"),
        (lambda run: run.explain("a.png", 3), r"^output is a path \(str or Path\), not of type int$"),
        (lambda run: run.export(output=3), "^output=3 must be a path"),
        (lambda run: reslab.load("zoo/digits_resnet8", config_dir=3), "^config_dir is a path"),
        (lambda run: reslab.train(config_dir=3), "^config_dir is a path"),
        (lambda run: reslab.Run(3), "^the folder of a run is a path"),
        (lambda run: run.evaluate(split="train"), "split=train must be one of test, val"),
        (lambda run: run.evaluate(root=3), r"root=3 must be a path"),
        (lambda run: run.evaluate(root="/a/${b}"), "^[^\n]*'b' not found[^\n]*$"),
        (lambda run: run.calibrate(views="up"), "views=up must be"),
        (lambda run: run.export("tflite"), "format=tflite must be one of"),
        (lambda run: run.export(output="a.pt"), r"output=a.pt: the name of a file of format=onnx ends in \.onnx"),
    ],
)
def test_a_wrong_argument_is_one_line(trained, call, line):
    with pytest.raises(reslab.UserError, match=line):
        call(reslab.Run(trained.folder))


@pytest.mark.slow
def test_a_run_that_diverges_raises_an_error_of_the_api():
    with pytest.raises(reslab.RunError, match=r"optimizer\.lr"):
        reslab.train(*QUICK, "optimizer.lr=1e20", "optimizer.weight_decay=0")
    assert {"RunError", "UserError"} <= set(reslab.__all__)


@pytest.mark.slow
def test_two_runs_of_one_second_have_their_own_folders():
    first, second = reslab.train(*QUICK), reslab.train(*QUICK)
    assert first.folder != second.folder
    assert equal(last_weights(first.folder), last_weights(second.folder))


@pytest.mark.slow
def test_a_run_from_python_can_be_resumed():
    run = reslab.train(*QUICK)
    longer = reslab.train(f"resume={run.folder}", "trainer.max_epochs=3")
    assert (longer.folder, longer.result["epochs"]) == (run.folder, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model=resnet19"], "model=resnet19 does not exist: did you mean resnet9 or resnet18 or resnet14?"),
        (["sed=1"], "there is no option sed: did you mean seed?"),
        (["data.augment.crp=1"], "there is no option data.augment.crp: did you mean data.augment.crop"),
        (["trainer.max_epochs=abc"], "trainer.max_epochs=abc must be an integer of at least 1 or -1"),
        (["data.batch_size=5000"], "data.batch_size=5000 is more than the 1295 training images"),
        (["-m", "seed=1,2"], "reslab.train takes options, not flags such as -m"),
        (["experiment=degradation"], "these options are a sweep"),
        (["resume=nowhere"], "resume=nowhere does not exist"),
    ],
)
def test_a_mistake_is_a_user_error(overrides, line):
    with pytest.raises(reslab.UserError, match=line.replace("?", r"\?")):
        reslab.train(*QUICK, *overrides)


@pytest.mark.slow
def test_a_mistake_in_a_folder_of_configuration_is_a_user_error(tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text("_target_: torch.nn.Linear\nname: tiny\nwidth: 3\n")
    (tmp_path / "mine" / "model" / "broken.yaml").write_text("name: broken\n  width: [\n")
    with pytest.raises(reslab.UserError, match=r"^there is no option model\.widht: did you mean .*model\.width"):
        reslab.train("model=tiny", "model.widht=3", config_dir="mine")
    with pytest.raises(reslab.UserError, match=r"broken\.yaml\", line 2"):
        reslab.train("model=broken", config_dir="mine")


@pytest.mark.slow
def test_a_failure_is_raised_as_it_is_and_recorded(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("in a step")

    monkeypatch.setattr(fit.Classifier, "training_step", fail)
    with pytest.raises(ZeroDivisionError, match="in a step"):
        reslab.train(*QUICK, f"hydra.run.dir={tmp_path}/run")
    run = reslab.load(tmp_path / "run")
    assert (run.status, run.result["error"]) == ("failed", "ZeroDivisionError: in a step")


@pytest.mark.slow
@pytest.mark.parametrize(("options", "trust"), [([], []), (["seed=${oc.decode:'3'}"], ["trust=true"])])
def test_an_interrupt_saves_the_run_and_is_pythons_own(tmp_path, monkeypatch, capsys, options, trust):
    handler = signal.getsignal(signal.SIGINT)
    step = fit.Classifier.training_step

    def interrupted(classifier, *arguments):
        if classifier.trainer.global_step == 7:
            signal.raise_signal(signal.SIGINT)
        return step(classifier, *arguments)

    monkeypatch.setattr(fit.Classifier, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reslab.train(*QUICK, *options, f"hydra.run.dir={tmp_path}/run")
    run = reslab.load(tmp_path / "run")
    assert run.status == "interrupted"
    call = ", ".join(map(repr, ["resume=run", *trust]))
    assert capsys.readouterr().err.splitlines()[-1] == f"reslab.train({call})"
    assert torch.load(run.last, weights_only=True)["global_step"] == 8
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.setattr(fit.Classifier, "training_step", step)
    assert reslab.train(f"resume={run.folder}", *trust).status == "finished"
    assert signals.caught is None


@pytest.mark.slow
def test_the_programs_own_logging_stays(capsys):
    before = logging.root.handlers[:], logging.getLogger("reslab").handlers[:]
    reslab.train(*QUICK)
    assert (logging.root.handlers, logging.getLogger("reslab").handlers) == before
    assert capsys.readouterr().out.count("epoch  train loss") == 1


PROGRAM = """
import reslab
run = reslab.train("trainer=ddp_cpu", *{options!r})
print(run.result["epochs"], len(list(run.folder.parent.iterdir())))
"""


@pytest.mark.slow
def test_a_program_may_train_with_several_processes(tmp_path):
    """Lightning starts the second process as the command; started as this program, it would train a run of its own."""
    (tmp_path / "program.py").write_text(PROGRAM.format(options=[each for each in QUICK if each != "trainer=cpu"]))
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.splitlines()[-1:] == ["1 1"], done.stderr


OWN_CLASS = """
from reslab.data.datasets import Digits

class Own(Digits):
    def __init__(self, knob, **options):
        super().__init__(**options)
"""
OWN = {"own.py": OWN_CLASS, "mine/data/own.yaml": "defaults: [digits]\n_target_: own.Own\nname: own\nknob: 3\n"}


@pytest.mark.slow
def test_a_class_of_the_users_own_is_trained_and_used_with_its_folder_of_configuration(tmp_path, monkeypatch):
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program.py", "--help"])  # a program has arguments of its own
    with pytest.raises(reslab.UserError, match=r"^data\.knob=x must be an integer$"):
        reslab.train(*QUICK, "data=own", "data.knob=x", config_dir="mine")
    run = reslab.train(*QUICK, "data=own", "data.knob=5", config_dir="mine")
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    logits = run.classifier()(images)
    assert equal({"logits": reslab.load(run.folder, config_dir="mine").classifier()(images)}, {"logits": logits})
    with pytest.raises(reslab.UserError, match=r"would call own\.Own, which no file in conf/data names"):
        reslab.load(run.folder).classifier()
    again = reslab.train(f"resume={run.folder}", "trainer.max_epochs=2", config_dir="mine")
    assert again.result["epochs"] == 2


@pytest.mark.slow
def test_a_folder_of_configuration_that_does_not_exist_is_refused(tmp_path):
    run = reslab.train(*QUICK)
    for use in (
        lambda: reslab.train(*QUICK, config_dir="nowhere"),
        lambda: reslab.load(run.folder, config_dir="nowhere"),
    ):
        with pytest.raises(reslab.UserError, match=r"^config_dir=nowhere: there is no such folder$"):
            use()


def test_what_is_no_text_is_refused():
    with pytest.raises(reslab.UserError, match=r"^reslab\.train takes one string per option, e\.g\. 'seed=1', not 3$"):
        reslab.train(3)

import re
import warnings
from functools import cache

import pytest
import torch
from conftest import names
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from reslab.benchmarking.cases import read_cases
from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.commands.arguments import hydra_arguments_of
from reslab.commands.entry import check
from reslab.commands.predict import run_predict
from reslab.configuration import nodes, to_dict
from reslab.errors import RunError, UserError, is_mistake, one_line
from reslab.inference.evaluation import evaluate
from reslab.inference.export.options import EXPORT_SCHEMA
from reslab.inference.options import CALIBRATE_SCHEMA, EVALUATE_SCHEMA, EXPLAIN_SCHEMA, PREDICT_SCHEMA
from reslab.options import LIKE_DEFAULT
from reslab.reports.options import LABEL_ERRORS_SCHEMA
from reslab.training import fit
from reslab.training.metrics import Metrics
from reslab.training.options import TEST_METRICS, TRAINING_SCHEMA, VALIDATION_METRICS, divergence_advice

SCHEMAS = {
    schema.config_name: schema
    for schema in (
        TRAINING_SCHEMA,
        BENCHMARK_SCHEMA,
        EVALUATE_SCHEMA,
        CALIBRATE_SCHEMA,
        PREDICT_SCHEMA,
        EXPORT_SCHEMA,
        EXPLAIN_SCHEMA,
        LABEL_ERRORS_SCHEMA,
    )
}

GIVEN = {
    "benchmark": ["folder=a"],
    "evaluate": ["checkpoint=a"],
    "calibrate": ["checkpoint=a"],
    "predict": ["checkpoint=a", "images=b"],
    "export": ["checkpoint=a"],
    "explain": ["checkpoint=a", "images=b"],
    "find_label_errors": ["runs=a"],
}
GROUPS = ("data", "loss", "optimizer", "scheduler", "trainer", "callbacks", "logger", "experiment")
CHOICES = [f"{group}={name}" for group in GROUPS for name in names(group)]
MODELS = ["model=resnet20", "model=resnet50d", "model=resnext29_8x64d", "model=six_block", "model=timm"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "choice"),
    [*(("config", choice) for choice in CHOICES + MODELS), ("benchmark", "trainer=cpu"), ("evaluate", "data=svhn"),
     ("evaluate", "trainer=ddp"), ("calibrate", "views=flip"), ("predict", "top=1"), ("export", "format=onnx"),
     ("explain", "layer=layer3"), ("find_label_errors", "root=b")],
)  # fmt: skip
def test_every_option_of_every_file_has_a_value_of_its_kind(composed, tmp_path, command, choice):
    config = compose(command, overrides=[*GIVEN.get(command, [f"folder={tmp_path}"]), choice])
    SCHEMAS[command].check(config)
    values = dict(nodes(OmegaConf.to_container(config, resolve=True)))
    own = {name: value for name, value in values.items() if name not in SCHEMAS[command].kinds}
    for name, value in own.items():  # a group, Hydra's `_target_`, or an option that takes what its default is like
        assert isinstance(value, dict) or name.endswith("_") or value is None or type(value) in LIKE_DEFAULT


def test_the_metrics_that_can_be_watched_are_those_that_are_logged():
    assert sorted(VALIDATION_METRICS) == sorted(f"val/{name}" for name in Metrics(10).compute())
    assert sorted(TEST_METRICS) == sorted(f"test/{name}" for name in Metrics(10, final=True).compute())


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        ("seed", [0, 2**32 - 1], [-1, 2**32, 1.0, True, "1", None, [1]]),
        ("label_smoothing", [0, 0.1, 0.999], [-0.1, 1, 1.1, "a", None, float("nan"), True]),
        ("mixup", [0, 0.0, 1e-3, 5, 1000], [-1, 1e-4, 1e300, float("inf"), "a"]),
        ("data.val_fraction", [0, 0.999], [1, 1.5, -0.1]),
        ("data.channels", [1, 3, None], [2, True, 3.0, "3"]),
        (
            "data.std",
            [None, [0.5], [0.1, 0.2, 0.3], [1e-6], [255]],
            [[0], [1e-300], [1e300], [], [0.1, 0.2], 0.5, [1, 2, "a"]],
        ),
        ("data.augment.scale", [None, 1, 0.08], [0, 1.1]),
        ("trainer.max_epochs", [1, -1], [0, -5, 2.0, "abc", None, True]),
        ("trainer.limit_train_batches", [None, 1, 1.0, 0.5, 500], [0, 0.0, 1.5, -1, True]),
        ("trainer.limit_val_batches", [0, 0.0, None, 3], [-1, 2.5, False]),
        ("trainer.devices", ["auto", 1, [0, 2]], [0, -1, "all", [], [-1], 1.0]),
        ("model.layers", [[1], [0, 2], [5000]], [[1_000_000, 1, 1], [], 2, [1.0], [-1], ["a"]]),
        ("model.freeze", [True, False, 3], [0, -1, "yes", None]),
        ("model.weights", [None, "a.pth"], ["", " ", 5]),
        ("optimizer.lr", [1e-12, 1e-8, 100, 1e38], [0, 1e-300, 1e39, True]),
        ("optimizer.weight_decay", [0, 0.0, 1e-5, 10], [-1, 1e-300, 1e300]),
        ("trainer.gradient_clip_val", [None, 1e-3, 1, 1e9], [0, 1e-300, 1e300]),
        ("scheduler.gamma", [0.1, 1, 10], [0, 1e-300, 1e300]),
        ("callbacks.texts_and_pictures.num_mistakes", [0, 1000], [-1, 10**9]),
        ("data.image_size", [1, 4096, None], [0, 20_000]),
        ("data.num_classes", [2, 20_000], [1, 2**31 - 1]),
        ("trainer.max_time", [None, "00:00:00:01", "99999:00:00:00"], ["00:00:00:00", "100000:00:00:00", 5]),
        ("logger.tensorboard.name", ["", "a"], [None, 5]),
        ("optimizer.betas", [[0, 0.999]], [[0.9], [0.9, 1], 0.9, [0.9, 0.99, 0.9]]),
    ],
)
def test_kinds(option, good, bad):
    kind = SCHEMAS["config"].kinds[option]
    assert [value for value in good if not kind.allows(value)] == []
    assert [value for value in bad if kind.allows(value)] == []


def test_a_benchmarks_options_are_one_or_a_list():
    kind = SCHEMAS["benchmark"].kinds["benchmark.batch_sizes"]
    assert kind.words == "an integer from 1 to 1000000, or a list of these"
    assert [kind.allows(value) for value in (1, [1, 2], 0, [], [1, 0], None)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        ([], "lower optimizer.lr"),
        (["trainer.precision=16-true"], "trainer.precision=16-mixed has a larger range"),
        (["data.std=[1e-6]"], "raise data.std, by which the pixels are divided"),
        (["scheduler=multi_step", "scheduler.gamma=10"], "lower scheduler.gamma, which raises the learning rate"),
        (["optimizer=adamw", "optimizer.weight_decay=5"], "lower optimizer.weight_decay"),
    ],
)
def test_a_training_that_diverges_gets_the_advice_that_its_configuration_suggests(composed, overrides, advice):
    assert divergence_advice(to_dict(composed(*overrides))) == advice


@pytest.mark.parametrize(
    ("override", "refused"),
    [("~seed", True), ("~data", True), ("~model.layers=1", True), ("~optimizer.lr", True),
     ("~optimizer._target_", True), ("~optimizer.momentum", False), ("~callbacks.ema", False), ("~nothing", False),
     ("seed=1", False)],
)  # fmt: skip
def test_what_is_needed_cannot_be_removed(override, refused):
    if refused:
        with pytest.raises(UserError, match=r"cannot be removed, only set$"):
            TRAINING_SCHEMA.check_removals([override])
    else:
        TRAINING_SCHEMA.check_removals([override])


# whatever is given, a run trains or answers with one line

# fmt: off
WRITTEN = [
    "abc", "''", "null", "true", "false", "0", "1", "-1", "2", "3", "0.5", "1.0", "1.5", "1e-3", "-0.1", "1e40", "nan",
    "inf", "[]", "[1]", "[8,8,8]", "[2,1,1]", "[0.5,0.9]", "[0.5]", "[null]", "[[1]]", "{}", "{a: 1}", "${seed}",
    "${nothing}",
    "'${'", "${oc.env:NOTHING}", "'a b'", "'\"'", "\\'", "[", "{", "}", ",", "a,b", "a=b", "~", "é", "'日本'",
    "'a\n\u2028b'", "???", "*", "$", "#", "@x", "9" * 30, "a" * 300, "1e300", "1e-300", "2147483647", "1000000000",
    "20000", "[1000000,1,1]", "[1e-300]", "[1e300]", "-0.0", "0.999999",
]
CHOSEN = {  # those that are quick and that download nothing
    "model": ["resnet8", "resnet14", "six_block"], "data": ["digits", "synthetic"], "optimizer": names("optimizer"),
    "scheduler": names("scheduler"), "trainer": ["cpu", "debug", "overfit"], "callbacks": names("callbacks"),
    "logger": ["none"], "experiment": [],
}
NO_CHOICES = ["null", "true", "3", "1.5", "[a,b]", "[]", "", "nothing", "_data", "{a: 1}", "{}", "'a b'", "../config"]
STRANGE = [
    "sed", "trainer.max_epoch", "+foo", "~seed", "~optimizer.lr", "~callbacks.last_checkpoint", "+optimizer.eps",
    "+scheduler.x", "+data.augment.x", "++seed", "a.b", "model.layers.0", "data.augment", "callbacks", "+seed.x",
    "optimizer._target_", "model._target_",
]
# fmt: on
PARSER = OverridesParser.create()


@cache  # each of the hundreds of options is asked about the same values
def parsed(value):
    try:
        return PARSER.parse_override(f"a={value}").value()
    except HydraException:
        return ...


def fitting(kind):
    """What of the values, and of the words that the kind itself names, it allows."""
    words = [word for word in re.findall(r"[\w./-]+", kind.words) if not re.fullmatch(r"\d{4,}", word)]
    return [value for value in [*WRITTEN, *words] if kind.allows(parsed(value))] or ["abc"]


FITTING = {  # without the options of loggers, none of which is chosen
    command: {name: fitting(kind) for name, kind in schema.kinds.items() if not name.startswith("logger.")}
    for command, schema in SCHEMAS.items()
}


@st.composite
def command_lines(draw):
    command = draw(st.sampled_from(["config", "config", "config", "evaluate", "predict", "benchmark"]))
    arguments = []
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(FITTING[command])))
        value = draw(st.sampled_from(FITTING[command][name]))
        if draw(st.integers(0, 4)) == 4:
            name = draw(st.sampled_from([name, name, *STRANGE]))
            value = draw(st.sampled_from(WRITTEN) | st.text(st.characters(codec="utf-8"), max_size=6))
        arguments.append(name if name.startswith("~") else f"{name}={value}")
    if draw(st.integers(0, 5)) == 5:
        group = draw(st.sampled_from(sorted(CHOSEN)))
        choice = draw(st.sampled_from([*(4 * CHOSEN[group]), *NO_CHOICES]))
        arguments.insert(0, draw(st.sampled_from([f"{group}={choice}"] * 8 + [f"+{group}={choice}", f"~{group}"])))
    return command, arguments


def is_divergence(error, config):
    """A rate that a float32 holds may still be too high."""
    return isinstance(error, RunError) and "lower optimizer.lr" in str(error) and config.optimizer.lr > 10


def told(error, command, config=None):
    assert is_mistake(error) or is_divergence(error, config)
    line = one_line(error, command)
    assert len(line.splitlines()) == 1
    return line


def answer(command, arguments, tmp_path, trained, image):
    """None where the command did its work, else its line; fails for what is not one line with exit status 2."""
    base = {
        "config": ["model=resnet8", "logger=none", "data.val_fraction=0", "test=false", f"folder={tmp_path}"],
        "benchmark": ["model=resnet8", f"folder={tmp_path}"],
        "evaluate": [f"checkpoint={trained.folder}", "trainer.accelerator=cpu"],
        "predict": [f"checkpoint={trained.folder}", f"images={image}"],
    }[command]
    try:
        given = hydra_arguments_of([*base, *arguments], SCHEMAS[command])
        config = compose(command, overrides=given)
    except Exception as error:
        return told(error, command)
    try:
        check(config, SCHEMAS[command], arguments)
        if command == "benchmark":
            read_cases(config)
        elif command == "predict":
            run_predict(config)
        else:  # one process, whatever the devices; one step
            config.trainer.update({"devices": 1, "num_nodes": 1, "max_steps": 1})
            if command == "config":
                config.compile = False
                assert fit.train(config)["steps"] == 1
            else:
                evaluate(config)
    except Exception as error:
        return told(error, command, config)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.autograd.set_detect_anomaly(False)
    return None


@pytest.fixture
def answers(composed, tmp_path, trained, digit_files, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["command.py"])
    counts = {True: 0, False: 0}

    def count_answer(command, arguments):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counts[answer(command, arguments, tmp_path, trained, digit_files[0]) is None] += 1

    return count_answer, counts


EVERY = {
    "phases": [Phase.generate],
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


def check_examples(answers, count):
    count_answer, counts = answers

    @settings(max_examples=count, **EVERY)
    @given(command_lines())
    def run(line):
        count_answer(*line)

    run()
    return counts


@pytest.mark.slow
def test_any_options_train_or_are_one_line(answers):
    assert sum(check_examples(answers, 8).values()) == 8


@pytest.mark.slow
def test_hundreds_of_any_options_train_or_are_one_line(answers):
    assert all(check_examples(answers, 200).values())  # both happen


# what a user adds

OWN_DATA = """
from reslab.data.datasets import Synthetic

class Stripes(Synthetic):
    def __init__(self, *, period, contrast, label, **options):
        super().__init__(**options)
        self.stripes = period, contrast, label
"""
OWN_DATA_CONFIG = """
defaults: [synthetic]
_target_: stripes.Stripes
name: stripes
period: 4
contrast: 0.5
label: plain
augment:
  wobble: 2
"""


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder of configuration that a user adds with `--config-dir`, with a data set and a model of his own."""
    (tmp_path / "stripes.py").write_text(OWN_DATA)
    for group, name, text in (
        ("data", "stripes", OWN_DATA_CONFIG),
        ("model", "mine", "defaults: [resnet8]\nknob: 3\n"),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(text)
    monkeypatch.setattr("sys.argv", ["train.py", "--config-dir", str(tmp_path)])
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.period=6", None),
        ("data.contrast=1", None),
        ("data.augment.wobble=3", None),
        ("data.period=2.5", "data.period=2.5 must be an integer"),
        ("data.contrast=high", "data.contrast=high must be a number"),
        ("data.label=7", "data.label=7 must be text"),
        ("data.augment.wobble=true", "data.augment.wobble=true must be an integer"),
        ("model.knob=x", "model.knob=x must be an integer"),
        ("data.num_classes=1", "data.num_classes=1 must be an integer from 2 to 1000000"),
        ("+data.augment.woble=1", "there is no option data.augment.woble: did you mean data.augment.wobble"),
    ],
)
def test_an_option_of_a_users_own_class_takes_what_its_default_is_like(composed, own_folder, override, line):
    overrides = ["data=stripes", "model=mine", override]
    config = composed(f"hydra.searchpath=[file://{own_folder}]", *overrides)
    if line is None:
        TRAINING_SCHEMA.check(config, overrides)
    else:
        with pytest.raises(UserError, match=f"^{re.escape(line)}"):
            TRAINING_SCHEMA.check(config, overrides)

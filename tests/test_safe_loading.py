"""Nothing that is read can run code: no call in src/ that could, and no checkpoint that gets a class or a call in."""

import ast
from pathlib import Path

import pytest
import torch
from bad_images import Trap
from conftest import CONF
from hydra import compose
from malicious import MALICIOUS
from omegaconf import OmegaConf

from reslab.checkpoints import find_checkpoint, load_classifier, resumed_checkpoint
from reslab.errors import UserError, one_line
from reslab.evaluation import evaluate
from reslab.prediction import predict

SRC = CONF.parent / "src"
RUNS_CODE = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "np.load", "joblib.load", "torch.jit.load", "torch.hub.load",
}  # fmt: skip


LOADS = ("torch.load", "entry.get_state_dict")


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}


def test_no_call_in_src_runs_what_it_reads():
    seen = [(path.name, name, options) for path in SRC.rglob("*.py") for name, options in calls(path)]
    loads = [(name, options.get("weights_only")) for _, name, options in seen if name.endswith(LOADS)]
    assert loads == [(name, "True") for name, _ in loads]
    assert len(loads) >= 3
    for path, name, options in seen:
        assert name not in RUNS_CODE, path
        assert not {"shell", "allow_pickle"} & options.keys(), path
        assert "ckpt_path" not in options or options["weights_only"] == "True", path


# checkpoints


def run_on(command, checkpoint, images):
    if command == "resume":
        resumed_checkpoint(checkpoint, OmegaConf.create())
    elif command == "evaluate":
        evaluate(compose("evaluate", [f"checkpoint={checkpoint}", "trainer=cpu"]))
    else:
        predict(compose("predict", [f"checkpoint={checkpoint}", f"images={images}", "device=cpu"]))


COMMANDS = ["evaluate", "predict", "resume"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", MALICIOUS)
def test_a_checkpoint_that_holds_more_than_values_is_refused(composed, trained, digit_files, tmp_path, command, kind):
    path, sprung = tmp_path / "malicious.ckpt", tmp_path / "sprung"
    content = torch.load(find_checkpoint(trained.folder), weights_only=True)
    MALICIOUS[kind](path, content, Trap(sprung))
    with pytest.raises(UserError) as caught:
        run_on(command, path, digit_files[0])
    assert one_line(caught.value, command).startswith(f"{path} is not a checkpoint of ResLab")
    assert "\n" not in one_line(caught.value, command)
    assert not sprung.exists()


def at_data(config, call):
    config["data"] = call


def within_data(config, call):
    config["data"]["augment"] = [{"crop": call}]


def at_model(config, call):
    config["model"] = {"name": "x", "weights": None, "freeze": False, **call}


def within_model(config, call):
    config["model"]["block"] = call


def elsewhere(config, call):
    config["optimizer"] = call
    config["data"]["augment"] = "${optimizer}"


@pytest.mark.parametrize("place", [at_data, within_data, at_model, within_model, elsewhere])
@pytest.mark.parametrize("target", ["os.system", "reslab.training.subprocess.getoutput", "${oc.env:PATH}"])
def test_a_checkpoint_whose_configuration_calls_is_refused(composed, trained, digit_files, tmp_path, place, target):
    path, sprung = tmp_path / "malicious.ckpt", tmp_path / "sprung"
    content = torch.load(find_checkpoint(trained.folder), weights_only=True)
    place(content["reslab"]["config"], {"_target_": target, "_args_": [f"touch {sprung}"]})
    torch.save(content, path)
    named = "${optimizer}" if place is elsewhere else target
    for command in ("evaluate", "predict"):
        with pytest.raises(UserError) as caught:
            run_on(command, path, digit_files[0])
        assert (
            str(caught.value) == f"{path} would call {named}, which no file in conf/model or conf/data names: refused"
        )
        assert not sprung.exists()


def test_a_checkpoint_of_plain_values_is_read(trained):
    _, config, _ = load_classifier(find_checkpoint(Path(trained.folder)))
    assert config.data._target_ == "reslab.data.datasets.Digits"

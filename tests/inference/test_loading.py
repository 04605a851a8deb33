"""Loading a trained network; no file that is read can run code."""

import ast
import pickle
from pathlib import Path

import pytest
import torch
from bad_images import Trap
from conftest import SRC
from hydra import compose
from malicious import MALICIOUS
from omegaconf import OmegaConf

from reslab.errors import UserError, one_line
from reslab.inference.evaluation import evaluate
from reslab.inference.loading import find_checkpoint, load_classifier
from reslab.inference.prediction import predict
from reslab.training.checkpoints import resumed_checkpoint

# which checkpoint is loaded


@pytest.mark.parametrize(
    ("present", "asked", "found"),
    [
        (["best.ckpt", "last.ckpt"], ".", "checkpoints/best.ckpt"),
        (["last.ckpt"], ".", "checkpoints/last.ckpt"),
        (["best.ckpt", "last.ckpt"], "checkpoints/last.ckpt", "checkpoints/last.ckpt"),
    ],
)
def test_a_run_or_a_file_names_its_checkpoint(tmp_path, present, asked, found):
    (tmp_path / "checkpoints").mkdir()
    for name in present:
        (tmp_path / "checkpoints" / name).touch()
    assert find_checkpoint(tmp_path / asked) == tmp_path / found
    assert find_checkpoint(str(tmp_path / asked)) == tmp_path / found


@pytest.mark.parametrize("asked", ["", "nothing", "checkpoints/best.ckpt"])
def test_no_checkpoint_is_one_line(tmp_path, asked):
    with pytest.raises(UserError, match="neither a checkpoint nor the folder of a run that has one") as error:
        find_checkpoint(tmp_path / asked)
    assert str(error.value).startswith(f"checkpoint={tmp_path / asked}: ")


# what is loaded


def test_the_loaded_classifier_has_the_outputs_of_the_trained_one(trained):
    classifier, config, spec = load_classifier(find_checkpoint(trained.folder))
    assert not classifier.training
    with torch.inference_mode():
        assert torch.equal(classifier.predict_step(trained.images, 0), trained.probabilities)
    assert spec.classes == [str(digit) for digit in range(10)]
    assert (spec.channels, spec.image_size) == (1, 8)
    names = ("config", "spec", "origin", "requested", "training_files")
    assert classifier.record == {name: trained.classifier.record[name] for name in names}
    assert config == OmegaConf.create(OmegaConf.to_container(trained.config, resolve=True))


def test_the_initial_weights_of_a_run_are_not_needed_again(trained, tmp_path):
    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["reslab"]["config"]["model"]["weights"] = "gone.pth"
    torch.save(checkpoint, tmp_path / "moved.ckpt")
    classifier, config, _ = load_classifier(tmp_path / "moved.ckpt")
    assert config.model.weights is None
    assert torch.equal(classifier.network.fc.weight, trained.classifier.network.fc.weight)


# what is refused


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


def write_torch(path, content):
    torch.save(content, path)


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [write_torch, write_pickle])
@pytest.mark.parametrize("place", ["state_dict", "reslab"])
def test_a_checkpoint_runs_no_code(tmp_path, write, place):
    path, victim = tmp_path / "evil.ckpt", tmp_path / "victim"
    write(path, {"state_dict": {}, "reslab": {}, place: Malicious(victim)})
    with pytest.raises(UserError, match=r"evil.ckpt is not a checkpoint of ResLab \(UnpicklingError\)$") as error:
        load_classifier(path)
    assert not victim.exists()
    assert "\n" not in str(error.value)
    torch.load(path, weights_only=False) if write is write_torch else pickle.loads(path.read_bytes())
    assert victim.exists()  # it would have run


@pytest.mark.parametrize("content", [b"", b"some text\nof two lines", b"PK\x03\x04 half a zip file"])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.ckpt is not a checkpoint of ResLab") as error:
        load_classifier(path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="is not a checkpoint of ResLab"):
        load_classifier(tmp_path / "other.ckpt")


def without(*keys):
    """Return a change of a checkpoint that removes one entry."""

    def remove(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return remove


def fill(name, value):
    """Return a change of a checkpoint that sets the first number of a weight."""
    return lambda content: content["state_dict"][name].view(-1)[0].fill_(value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without("state_dict"), "is not a complete checkpoint of ResLab: it holds no weights (state_dict)"),
        (without("reslab", "spec"), "is not a complete checkpoint of ResLab: its image spec is missing or wrong"),
        (
            without("reslab", "spec", "mean"),
            "is not a complete checkpoint of ResLab: its image spec is missing or wrong",
        ),
        (
            without("state_dict", "network.fc.bias"),
            "does not fit the network that it describes: missing network.fc.bias",
        ),
        (
            lambda content: content["state_dict"].update({"network.fc.bias": torch.zeros(9)}),
            "does not fit the network that it describes: network.fc.bias is (9,), not (10,)",
        ),
        (
            lambda content: content["state_dict"].update({"network.extra": torch.zeros(9)}),
            "does not fit the network that it describes: unexpected network.extra",
        ),
        (
            fill("network.conv1.weight", float("nan")),
            "holds weights that are not finite (network.conv1.weight): use another checkpoint",
        ),
        (
            fill("network.bn1.running_var", float("inf")),
            "holds weights that are not finite (network.bn1.running_var): use another checkpoint",
        ),
    ],
)
def test_an_incomplete_or_broken_checkpoint_is_one_line(trained, tmp_path, change, problem):
    path = tmp_path / "broken.ckpt"
    content = torch.load(find_checkpoint(trained.folder), weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(UserError) as raised:
        load_classifier(path)
    assert str(raised.value) == f"{path} {problem}"


def run_on(command, checkpoint, images):
    if command == "resume":
        resumed_checkpoint(checkpoint, OmegaConf.create())
    elif command == "evaluate":
        evaluate(compose("evaluate", [f"checkpoint={checkpoint}", "trainer=cpu"]))
    else:
        predict(checkpoint, images, device="cpu")


COMMANDS = ["evaluate", "predict", "resume"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", MALICIOUS)
def test_a_checkpoint_with_more_than_plain_values_is_refused(composed, trained, digit_files, tmp_path, command, kind):
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
def test_a_checkpoint_with_an_unknown_class_in_its_configuration_is_refused(
    composed, trained, digit_files, tmp_path, place, target
):
    path, sprung = tmp_path / "malicious.ckpt", tmp_path / "sprung"
    content = torch.load(find_checkpoint(trained.folder), weights_only=True)
    place(content["reslab"]["config"], {"_target_": target, "_args_": [f"touch {sprung}"]})
    torch.save(content, path)
    named = "${optimizer}" if place is elsewhere else target
    for command in ("evaluate", "predict"):
        with pytest.raises(UserError) as caught:
            run_on(command, path, digit_files[0])
        assert str(caught.value) == (
            f"{path} would call {named}, which no file in conf/model or conf/data names: refused; "
            "if the class is your own, give your folder of configuration: --config-dir, in Python config_dir="
        )
        assert not sprung.exists()


def test_a_checkpoint_of_plain_values_is_read(trained):
    _, config, _ = load_classifier(find_checkpoint(Path(trained.folder)))
    assert config.data._target_ == "reslab.data.datasets.Digits"


# the source


RUNS_CODE = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "yaml.full_load", "yaml.unsafe_load", "np.load", "joblib.load", "torch.jit.load", "torch.hub.load",
}  # fmt: skip


LOADS = ("torch.load", "entry.get_state_dict")


def calls(path):
    """Yield the name and the arguments of every call in a file, those without a name under their places."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            named = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            yield ast.unparse(node.func), {place: ast.unparse(value) for place, value in enumerate(node.args)} | named


def test_no_call_in_src_runs_code_that_it_reads():
    seen = [(path.name, name, options) for path in SRC.rglob("*.py") for name, options in calls(path)]
    loads = [(name, options.get("weights_only")) for _, name, options in seen if name.endswith(LOADS)]
    assert loads == [(name, "True") for name, _ in loads]
    assert len(loads) >= 3
    for path, name, options in seen:
        assert name not in RUNS_CODE, path
        assert name != "yaml.load" or options[1] == "SafeLoader", path
        assert not {"shell", "allow_pickle"} & options.keys(), path
        assert "ckpt_path" not in options or options["weights_only"] == "True", path

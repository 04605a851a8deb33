"""Loading a trained network; no file that is read can run code."""

import ast
import errno
import os
import pickle
import re
import shutil
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from bad_images import Trap
from conftest import SRC, equal
from hydra import compose
from malicious import CALLS, MALICIOUS, called, leaves
from omegaconf import OmegaConf

from reslab.errors import UserError, one_line
from reslab.inference.evaluation import evaluate
from reslab.inference.loading import load_classifier, recorded_options
from reslab.inference.prediction import predict
from reslab.inference.test_data import build_test_data
from reslab.newest import require_checkpoint
from reslab.run import Run
from reslab.training import checkpoints
from reslab.training.checkpoints import read_checkpoint, resumed_checkpoint

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
    assert require_checkpoint(tmp_path / asked) == tmp_path / found
    assert require_checkpoint(str(tmp_path / asked)) == tmp_path / found


def test_the_last_weights_in_place_of_the_best_ones_are_said(trained, tmp_path, caplog, recwarn):
    run = Run(shutil.copytree(trained.folder, tmp_path / "run"))
    path, result = run.last, run.result
    assert run.checkpoint() == require_checkpoint(run.folder) == run.best
    run.best.unlink()
    run.finish(result | {"best_step": 60})
    line = f"{path} is of step 80; the result of the run, {run.result_file}, is of step 60"
    assert require_checkpoint(run.folder) == path
    assert require_checkpoint(path) == path  # it was asked for
    assert caplog.messages == [line]
    with pytest.warns(UserWarning, match=f"^{re.escape(line)}$"):
        assert run.checkpoint() == path
    run.finish(result | {"best_step": 80})
    assert require_checkpoint(run.folder) == run.checkpoint() == path
    assert len(caplog.messages) == 1
    assert len(recwarn) == 0


@pytest.fixture
def three_runs(tmp_path):
    """The folder of three runs, the newest of which has no checkpoint."""
    folders = ["outputs/a/1", "outputs/multirun/2/0_seed=1", "outputs/b/3"]
    for number, folder in enumerate(folders):
        (tmp_path / folder / ".hydra").mkdir(parents=True)
        (tmp_path / folder / ".hydra" / "config.yaml").touch()
        os.utime(tmp_path / folder / ".hydra" / "config.yaml", (number, number))
    for folder in folders[:2]:
        (tmp_path / folder / "checkpoints").mkdir()
        (tmp_path / folder / "checkpoints" / "last.ckpt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("latest", "multirun/2/0_seed=1"),
        ("outputs", "multirun/2/0_seed=1"),
        ("outputs/a", "a/1"),
        ("outputs/a/1", "a/1"),
    ],
)
def test_a_folder_of_runs_names_its_newest_run_with_a_checkpoint(three_runs, monkeypatch, caplog, asked, found):
    monkeypatch.chdir(three_runs)
    with caplog.at_level("INFO", logger="reslab"):
        assert require_checkpoint(asked) == Path("outputs") / found / "checkpoints" / "last.ckpt"
    said = f"{asked}: the newest run is outputs/{found}"
    assert caplog.messages == ([] if asked == f"outputs/{found}" else [said])


def test_a_folder_that_is_called_latest_is_that_folder(three_runs, monkeypatch):
    monkeypatch.chdir(three_runs)
    (three_runs / "latest").mkdir()
    with pytest.raises(UserError, match=r"^checkpoint=latest: neither"):
        require_checkpoint("latest")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("empty", ": neither a checkpoint nor the folder of a run that has one"),
        ("nothing", " does not exist"),
        ("empty/checkpoints/best.ckpt", " does not exist"),
        ("runs", ": its runs have no checkpoint yet"),
        ("runs/1", ": the run has no checkpoint yet"),
        ("ended", ": its runs have no checkpoints any more"),
    ],
)
def test_no_checkpoint_is_one_line(tmp_path, asked, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs/1/.hydra").mkdir(parents=True)
    (tmp_path / "ended/1/.hydra").mkdir(parents=True)
    Run(tmp_path / "ended/1").finish({"steps": 80})
    with pytest.raises(UserError) as error:
        require_checkpoint(tmp_path / asked)
    assert str(error.value) == f"checkpoint={tmp_path / asked}{says}"


# what is loaded


@pytest.mark.slow
def test_the_loaded_classifier_has_the_outputs_of_the_trained_one(trained):
    classifier, config, spec = load_classifier(require_checkpoint(trained.folder))
    assert not classifier.training
    with torch.inference_mode():
        assert torch.equal(classifier.evaluation_logits(trained.images).softmax(1), trained.probabilities)
    assert spec.classes == [str(digit) for digit in range(10)]
    assert (spec.channels, spec.image_size) == (1, 8)
    names = ("config", "spec", "origin", "requested", "training_files", "validation_files")
    assert classifier.record == {name: trained.classifier.record[name] for name in names}
    run = OmegaConf.to_container(trained.config, resolve=True)
    assert config == {name: run[name] for name in ("model", "data", "seed", "flip_averaging")} | {
        "trainer": {"precision": "32-true"},
        "folder": ".",
    }


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
    with pytest.raises(UserError, match=r"evil.ckpt is not a checkpoint of ResLab: it holds [\w.]+, which") as error:
        load_classifier(path)
    assert not victim.exists()
    assert "\n" not in str(error.value)
    torch.load(path, weights_only=False) if write is write_torch else pickle.loads(path.read_bytes())
    assert victim.exists()  # it would have run


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read, it is empty or incomplete: use another checkpoint"),
        (b"some text\nof two lines", "is not a checkpoint of ResLab: torch.save did not write it"),
        (b"PK\x03\x04 half a zip file", "cannot be read, it is incomplete or damaged: use another checkpoint"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, reason):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_classifier(path)
    assert str(error.value) == f"{path} {reason}"


@pytest.mark.parametrize("kept", [10, 1000, 0.5])
def test_a_checkpoint_cut_short_is_said_to_be_incomplete(trained, tmp_path, kept):
    path, content = tmp_path / "cut.ckpt", Run(trained.folder).best.read_bytes()
    path.write_bytes(content[: len(content) // 2 if kept == 0.5 else kept])
    with pytest.raises(UserError) as error:
        load_classifier(path)
    assert str(error.value) == f"{path} cannot be read, it is incomplete or damaged: use another checkpoint"


def test_an_error_of_the_disk_is_none_of_the_file(trained, monkeypatch):
    def load(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(checkpoints, "load_tensors", load)
    with pytest.raises(UserError, match=r"best\.ckpt cannot be read: Input/output error$"):
        load_classifier(Run(trained.folder).best)


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"other\.ckpt is not a checkpoint of ResLab: it holds no record of a run$"):
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
    content = torch.load(require_checkpoint(trained.folder), weights_only=True)
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
    content = torch.load(require_checkpoint(trained.folder), weights_only=True)
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


@pytest.mark.slow
@pytest.mark.parametrize("place", [at_data, within_data, at_model, within_model, elsewhere])
@pytest.mark.parametrize("target", ["os.system", "reslab.training.subprocess.getoutput", "${oc.env:PATH}"])
def test_a_checkpoint_with_an_unknown_class_in_its_configuration_is_refused(
    composed, trained, digit_files, tmp_path, place, target
):
    path, sprung = tmp_path / "malicious.ckpt", tmp_path / "sprung"
    content = torch.load(require_checkpoint(trained.folder), weights_only=True)
    place(content["reslab"]["config"], {"_target_": target, "_args_": [f"touch {sprung}"]})
    torch.save(content, path)
    named = "compute data.augment=${optimizer}" if place is elsewhere else f"call {target}"
    group = "model" if place in (at_model, within_model) else "data"
    for command in ("evaluate", "predict"):
        with pytest.raises(UserError) as caught:
            run_on(command, path, digit_files[0])
        assert str(caught.value) == (
            f"{path} would {named}, which no file in conf/{group} names: refused; "
            "if the class is your own, give your folder of configuration: --config-dir, in Python config_dir="
        )
        assert not sprung.exists()


# The values of a record that something is made of or computed with; the others are never read.
USED = (
    "config.model.", "config.data.", "config.seed", "config.flip_averaging", "config.threads",
    "config.trainer.precision", "spec.", "origin.precision", "origin.data_checksum", "origin.files_checksum",
    "origin.threads", "requested.", "training_files", "validation_files",
)  # fmt: skip
# Any text is a value of these.
TEXTS = ("origin.precision", "origin.data_checksum", "origin.files_checksum", "spec.classes.")


@pytest.fixture
def content(composed, trained):
    return torch.load(require_checkpoint(trained.folder), weights_only=True)


def load(monkeypatch, content):
    """Load a classifier and its test images from a checkpoint with this content."""
    monkeypatch.setattr(checkpoints, "load_tensors", lambda path: content)
    trained = load_classifier(Path("x.ckpt"))
    build_test_data(trained, compose("evaluate", ["checkpoint=x.ckpt", "unknown_classes=by_position"]), Path("x.ckpt"))
    return trained


@pytest.mark.slow
@pytest.mark.parametrize("form", CALLS)
def test_no_value_of_a_record_is_called_or_computed(content, monkeypatch, form):
    """Each value that is used is refused in the place of another one; the others do not count."""
    count = 0
    for name, container, key in leaves(content["reslab"]):
        before, container[key] = container[key], deepcopy(CALLS[form])
        computed = not name.startswith(TEXTS) or not isinstance(CALLS[form], str)
        if name.startswith(USED) and computed:
            with pytest.raises(UserError):
                load(monkeypatch, content)
            container[key], count = before, count + 1
    assert count > 50
    assert load(monkeypatch, content).config.seed == 42  # with calls wherever else a value was
    assert called == []


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        ("model", "_target_", "reslab.models.build.create_timm_"),
        ("model", "_partial_", True),
        ("model", "_convert_", "none"),
        ("data", "_args_", ["x"]),
        ("data", "_recursive_", False),
        ("data", "transform", {"_target_": "reslab.data.datasets.Digits"}),  # conf/ has it in another place
    ],
)
def test_hydras_own_keys_are_those_of_conf(content, monkeypatch, group, name, value):
    content["reslab"]["config"][group][name] = value
    with pytest.raises(UserError, match=rf"^x\.ckpt would .*, which no file in conf/{group} names: refused; "):
        load(monkeypatch, content)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("widths", [10**6] * 3, r"model\.widths=\[1000000, 1000000, 1000000\] must be .*"),
        ("shortcut", "Z", r"model\.shortcut=Z must be .*"),
        ("depth", 3, r"model: ResNet\.__init__\(\) got an unexpected .* 'depth'"),
    ],
)
def test_a_network_that_cannot_be_built_is_one_line(content, monkeypatch, name, value, problem):
    content["reslab"]["config"]["model"][name] = value
    with pytest.raises(UserError, match=rf"^x\.ckpt describes a network that cannot be built: {problem}$"):
        load(monkeypatch, content)


def shared_twice(record):
    part = []
    record["a"], record["b"] = part, part


def within_itself(record):
    record["a"] = record["config"]["a"] = []
    record["a"].append(record["a"])


def doubled(record):
    record["a"] = value = []
    for _ in range(60):  # 2**60 values
        following = []
        value += [following, following]
        value = following


@pytest.mark.parametrize("change", [shared_twice, within_itself, doubled])
def test_a_value_in_two_places_is_refused(content, monkeypatch, change):
    change(content["reslab"])
    with pytest.raises(UserError, match="is also in another place"):
        load(monkeypatch, content)


@pytest.mark.parametrize("value", [{1}, torch.zeros(2), b"x", 1j, torch.float32, {("a", "b"): 1}])
def test_a_value_that_is_not_plain_is_refused(content, monkeypatch, value):
    content["reslab"]["config"]["optimizer"]["lr"] = value
    with pytest.raises(UserError, match=r"^x\.ckpt is not a checkpoint of ResLab: reslab\.config\.optimizer\.lr "):
        load(monkeypatch, content)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", []), ("classes", "ten"), ("classes", [1]), ("channels", "1"), ("channels", 0), ("image_size", 1.5),
        ("image_size", 10**9), ("eval_size", 10**9), ("resize", 10**9), ("channels", 10**9),
        ("image_size", True), ("mean", [float("nan")]), ("mean", [0.5, 0.5]), ("mean", [2.0]), ("std", [0.0]),
        ("std", 1.0), ("background", [0, 0]), ("background", [0, 0, 256]), ("more", 1),
        ("eval_size", 0), ("resize", 1.5), ("interpolation", "lanczos"), ("fit", "stretch"),
    ],
)  # fmt: skip
def test_an_image_spec_has_the_types_and_ranges_of_one(content, monkeypatch, name, value):
    content["reslab"]["spec"][name] = value
    with pytest.raises(UserError, match=r"its image spec is missing or wrong$"):
        load(monkeypatch, content)


def test_a_run_that_is_older_than_some_options_has_the_outputs_that_it_had(content, monkeypatch, trained):
    for name in ("background", "eval_size", "resize", "interpolation", "fit"):
        del content["reslab"]["spec"][name]
    classifier, _, spec = load(monkeypatch, content)
    assert not spec.fitting(training=False).by_pillow
    images = trained.images[:2].repeat(1, 1, 2, 1)  # (2, 1, 16, 8), which older versions squash
    x = (images.float() - classifier.preprocess.mean) / classifier.preprocess.std
    x = torch.nn.functional.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    with torch.inference_mode():
        expected = classifier.network(x.contiguous(memory_format=torch.channels_last))
        assert torch.equal(classifier(images), expected)


def test_tuples_of_ones_own_data_set_are_lists(content, monkeypatch):
    content["reslab"]["spec"]["classes"] = tuple(content["reslab"]["spec"]["classes"])
    assert load(monkeypatch, content).spec.classes == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("name", ["model._target_", "data.root", "seed", "trainer.precision"])
def test_an_incomplete_configuration_is_one_line(content, monkeypatch, name):
    group, _, option = name.rpartition(".")
    del (content["reslab"]["config"][group] if group else content["reslab"]["config"])[option]
    line = f"^x.ckpt is not a complete checkpoint of ResLab: its configuration has no {name}$"
    with pytest.raises(UserError, match=line):
        load(monkeypatch, content)


def test_a_checkpoint_downloads_no_weights(content, monkeypatch):
    """The options of timm, whose own weights the checkpoint's replace."""
    content["reslab"]["config"]["model"] = {
        "_target_": "reslab.models.build.create_timm", "name": "x", "timm_name": "resnet18", "pretrained": True,
        "weights": "IMAGENET1K_V1", "freeze": False,
    }  # fmt: skip
    recorded = deepcopy(content["reslab"]["config"])
    config = recorded_options(Path("x.ckpt"), content["reslab"]["config"])
    assert (config.model.pretrained, config.model.weights) == (False, None)
    assert content["reslab"]["config"] == recorded  # which a shared network says of its origin


def test_a_damaged_checkpoint_is_one_line(trained, tmp_path):
    """Flip one bit in each of 60 places: either the content is as before, or the file is refused."""
    path = tmp_path / "damaged.ckpt"
    whole = require_checkpoint(trained.folder).read_bytes()
    expected = read_checkpoint(require_checkpoint(trained.folder))["state_dict"]
    refused = 0
    for place in range(0, len(whole), len(whole) // 60):
        content = bytearray(whole)
        content[place] ^= 16
        path.write_bytes(content)
        try:
            assert equal(read_checkpoint(path)["state_dict"], expected)
        except UserError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_in_place_of_the_best_checkpoint_is_refused_at_once(tmp_path, put):
    """The last checkpoint holds other weights, and to open a pipe would wait for its other end."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    put(tmp_path / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match=r"best\.ckpt cannot be read: (it is not a regular file|there is none)$"):
        read_checkpoint(require_checkpoint(tmp_path))


def test_a_checkpoint_of_plain_values_is_read(trained):
    _, config, _ = load_classifier(require_checkpoint(Path(trained.folder)))
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
    assert len(loads) >= 2
    for path, name, options in seen:
        reads_what_it_wrote = (path, name) == ("formats.py", "torch.jit.load")  # to compare an exported file
        assert name not in RUNS_CODE or reads_what_it_wrote, path
        assert name != "yaml.load" or options[1] in ("SafeLoader", "loader"), path
        assert name != "load_yaml" or options[1].endswith("SafeLoader"), path  # it hands its loader to yaml.load
        assert not {"shell", "allow_pickle"} & options.keys(), path
        assert "ckpt_path" not in options or options["weights_only"] == "True", path

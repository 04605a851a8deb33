import json
import shutil

import pytest
import torch
from hydra import compose
from safetensors.torch import load_file, save_file

import reslab
from reslab.errors import RunError, UserError
from reslab.inference.export import share as module
from reslab.inference.export.options import EXPORT_SCHEMA
from reslab.inference.export.share import portable_overrides, share, without_places
from reslab.inference.loading import load_classifier
from reslab.run import Run
from reslab.training.checkpoints import add_to_record, read_checkpoint

OVERRIDES = ["model=resnet8", "data.root=/home/me/data", "+trainer.max_time=null", "hydra.run.dir=x", "seed=3"]
LOGGER = {"tensorboard": {"save_dir": "/home/me", "group_by": "metric"}}
OWN = {
    "folder": "/home/me",
    "logger": LOGGER,
    "model": {"name": "a", "weights": "/home/me/b.pth"},
    "data": {"root": "/x", "size": 8},
}


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """The trained digits, with the settings that a run of the command has."""
    run = Run(shutil.copytree(trained.folder, tmp_path_factory.mktemp("run") / "run"))
    config = json.loads(json.dumps(trained.classifier.record["config"]))
    run.write_settings(json.dumps(config), OVERRIDES)
    return run


@pytest.fixture
def shared(run, composed, tmp_path):
    def shared(*overrides, checkpoint=run.folder, card=lambda shared: "a card"):
        options = [f"checkpoint={checkpoint}", "format=share", f"output={tmp_path / 'mine'}", *overrides]
        return share(compose("export", overrides=options), card)

    return shared


def test_a_shared_network_answers_as_its_run_bit_for_bit(trained, run, shared, tmp_path):
    made = shared("license=MIT")
    assert made.images == "359 of 359 test images of digits"
    again = reslab.load(tmp_path / "mine")
    assert again.checkpoint() == tmp_path / "mine" / "weights.safetensors"
    with torch.inference_mode():
        logits = again.classifier().evaluation_logits(trained.images)
        assert torch.equal(logits, trained.classifier.cpu().evaluation_logits(trained.images))
    assert again.result == {name: value for name, value in run.result.items() if name != "folder"}
    assert again.overrides == ["model=resnet8", "+trainer.max_time=null", "seed=3"]
    assert again.config["data"]["root"] is None
    assert (tmp_path / "mine" / "README.md").read_text() == "a card"
    content = (tmp_path / "mine" / "weights.safetensors").read_bytes()
    assert not any(place in content for place in (b"/home/me", str(trained.folder.parent).encode()))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_its_file_is_a_checkpoint_by_itself(trained, shared, tmp_path):
    shared("verify=false")
    alone = shutil.copy(tmp_path / "mine" / "weights.safetensors", tmp_path / "any.safetensors")
    before, after = read_checkpoint(Run(trained.folder).best), read_checkpoint(tmp_path / "any.safetensors")
    assert {name: after[name] for name in ("epoch", "global_step")} == {
        name: before[name] for name in ("epoch", "global_step")
    }
    assert after["reslab"]["spec"] == before["reslab"]["spec"]
    assert after["state_dict"].keys() == before["state_dict"].keys()
    assert all(torch.equal(after["state_dict"][name], value) for name, value in before["state_dict"].items())
    assert load_file(alone).keys() == before["state_dict"].keys()  # the names of torchvision, below `network.`


def test_the_same_run_gives_the_same_file(shared, tmp_path):
    contents = set()
    for _ in range(2):
        shared("verify=false")
        contents.add((tmp_path / "mine" / "weights.safetensors").read_bytes())
        shutil.rmtree(tmp_path / "mine")
    assert len(contents) == 1


def test_hashes_of_files_and_a_calibration_are_kept(shared, tmp_path):
    shared("verify=false")
    path = tmp_path / "mine" / "weights.safetensors"
    before = read_checkpoint(path)
    add_to_record(path, {"training_files": torch.tensor([3, 1])})
    after = read_checkpoint(path)
    assert after["reslab"]["training_files"].tolist() == [3, 1]
    assert after["result"] == before["result"]
    assert all(torch.equal(after["state_dict"][name], value) for name, value in before["state_dict"].items())


def test_a_network_with_other_answers_is_not_left(shared, tmp_path, monkeypatch):
    def other(path):
        loaded = load_classifier(path)
        loaded.classifier.network.fc.bias.data[0] += 1e-4
        return loaded

    monkeypatch.setattr(module, "load_classifier", other)
    with pytest.raises(RunError, match="answer otherwise"):
        shared()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_stays(shared, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    with pytest.raises(UserError, match="is a folder with files"):
        shared("verify=false")
    assert (tmp_path / "mine" / "file").read_text() == "precious"


def test_a_run_that_is_not_finished_is_not_shared(run, shared, tmp_path):
    copied = Run(shutil.copytree(run.folder, tmp_path / "copied"))
    copied.fail("broken")
    with pytest.raises(UserError, match="is failed: only a finished run"):
        shared("verify=false", checkpoint=copied.folder)


def test_other_weights_than_those_of_the_result_are_not_shared(run, shared, tmp_path):
    copied = Run(shutil.copytree(run.folder, tmp_path / "copied"))
    content = torch.load(copied.best, weights_only=True)
    torch.save(content | {"global_step": content["global_step"] + 1}, copied.best)
    with pytest.raises(UserError, match="and the result of the run is of step"):
        shared("verify=false", checkpoint=copied.best)


def test_a_checkpoint_without_a_run_is_not_shared(run, shared, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    alone = shutil.copy(run.best, tmp_path / "a" / "b" / "best.ckpt")
    with pytest.raises(UserError, match="is not in the folder of a run"):
        shared("verify=false", checkpoint=alone)


def test_a_network_that_is_shared_again_keeps_its_licence(shared, tmp_path):
    shared("license=MIT")
    again = shared(f"output={tmp_path / 'again'}", "verify=false", checkpoint=tmp_path / "mine")
    assert (again.licence, read_checkpoint(tmp_path / "again" / "weights.safetensors")["license"]) == ("MIT", "MIT")


def test_places_are_left_out_of_settings():
    portable = {"model": {"name": "a", "weights": "b.pth"}, "data": {"root": None, "size": 8}}
    assert without_places(OWN) == portable | {"logger": {"tensorboard": {"group_by": "metric"}}}
    assert OWN["data"]["root"] == "/x"
    own = {"data": {"masks": ["/a/b", "~/c", "d/e"]}, "callbacks": {"own": {"file": "/home/me/f"}}}
    assert without_places(own) == {"data": {"masks": ["b", "c", "d/e"]}, "callbacks": {"own": {"file": "f"}}}
    listed = portable_overrides(["+data.masks=/home/me/masks", "+data.files=[/a/b,'~/c',d/e]", "+a={b:/c/d}"])
    assert listed == ["+data.masks='masks'", "+data.files=[b,'c',d/e]", "+a={b:d}"]
    for pattern in (r"/p\d+", r"[/_]p\d+", "~.*/"):  # of the groups, and no path
        assert without_places({"data": {"group": pattern}}) == {"data": {"group": pattern}}
        given = [f"data.group='{pattern}'", f"+data.group={pattern}"]
        assert portable_overrides(given) == given
    more = ["logger.wandb.entity=me", "logger=none", "model.weights='/home/me/b.pth'", "model.weights=zoo:a"]
    kept = ["model.weights='b.pth'", "model.weights=zoo:a"]
    assert portable_overrides([*OVERRIDES, *more]) == ["model=resnet8", "+trainer.max_time=null", "seed=3", *kept]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["format=share"], "format=share needs output="),
        (["format=share", "output=."], "format=share needs output="),
        (["format=share", "output=a", "calibrated=true"], "format=share keeps the temperature"),
        (["license=MIT"], "license= is for the card"),
    ],
)
def test_wrong_options(composed, overrides, line):
    with pytest.raises(UserError) as raised:
        EXPORT_SCHEMA.check(compose("export", overrides=["checkpoint=a", *overrides]))
    assert str(raised.value).startswith(line)


# what a stranger may have written

GOOD = {"reslab": {"config": {}, "spec": {}}, "epoch": 0, "global_step": 1}


@pytest.mark.parametrize(
    "said",
    [
        "", "{", "[]", "3", "null", '{"reslab": 3}', '{"reslab": []}', "[" * 100_000, '{"reslab": {"config": 3}}',
        json.dumps(GOOD), json.dumps(GOOD | {"epoch": "x"}), json.dumps(GOOD | {"epoch": -1}),
        json.dumps(GOOD | {"reslab": {"config": {"data": {"root": 3}}, "spec": {}}}),
    ],
)  # fmt: skip
def test_other_metadata_is_one_line(said, tmp_path):
    save_file({"network.fc.weight": torch.zeros(2, 2)}, tmp_path / "a.safetensors", {"reslab": said})
    with pytest.raises(UserError) as raised:
        read_checkpoint(tmp_path / "a.safetensors")
    assert "checkpoint of ResLab" in str(raised.value)
    assert "torch.save" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x08\0\0\0\0\0\0\0notjson!", b"PK\x03\x04"])
def test_another_file_is_one_line(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="is not a checkpoint of ResLab"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_a_class_that_no_file_names_is_not_called(shared, tmp_path):
    shared("verify=false")
    path = tmp_path / "mine" / "weights.safetensors"
    record = read_checkpoint(path)["reslab"]
    record["config"]["model"]["_target_"] = "os.system"
    add_to_record(path, {"config": record["config"]})
    with pytest.raises(UserError, match=r"would call os\.system"):
        load_classifier(path)


def test_weights_of_another_shape_and_hostile_names_are_one_line(shared, tmp_path):
    shared("verify=false")
    path = tmp_path / "mine" / "weights.safetensors"
    content = read_checkpoint(path)
    bad = dict(content["state_dict"]) | {"reslab": torch.zeros(1), "x\n\x1b[31m": torch.zeros(1)}
    module.save_safetensors(path, content | {"state_dict": bad})
    with pytest.raises(UserError, match="unexpected reslab"):
        load_classifier(path)

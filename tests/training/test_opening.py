import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from noise_images import fill

from reslab.configuration import CONF
from reslab.data.spec import ImageSpec
from reslab.data.splits import Split
from reslab.run import Run
from reslab.training import fit
from reslab.training.build import build_data
from reslab.training.opening import freeze_line, millions, network_line, shared_line, weights_lines


def weights_line(config, data, checksum):
    """The line on images, where there is one, and no other."""
    return next(weights_lines(config, data, checksum), None)


@pytest.mark.slow
def test_a_run_says_what_it_trains_as_soon_as_it_is_known(composed, caplog):
    caplog.set_level(logging.INFO, "reslab")
    fit.train(composed("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "logger=none", "threads=1"))
    assert [each.getMessage() for each in caplog.records if each.name == "reslab.training.fit"][:2] == [
        "1,295 training, 143 validation, 359 test images, 10 classes",
        "0.08 M parameters, 1x8x8 images; CPU, 1 thread, fp32",
    ]


def test_test_images_that_the_run_has_seen_are_counted_with_the_command_that_lists_them(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(CONF.parent / "src" / "train.py")])
    images, labels = torch.arange(6, dtype=torch.uint8).view(-1, 1, 1, 1), torch.zeros(6, dtype=torch.int64)
    train, test = (Split(images, labels, torch.tensor(each)) for each in ([0, 1, 2], [2, 3, 1]))
    data = SimpleNamespace(name="imagefolder", root="my photos", stored=None, splits={"train": train, "test": test})
    line = shared_line(data)
    assert line.startswith("2 of the 3 test images are also training or validation images; this lists them: ")
    assert line.endswith("src/check_data.py data=imagefolder 'data.root=my photos'")
    data.splits["test"] = Split(images, labels, torch.tensor([3, 4]))
    assert shared_line(data) is None


@pytest.mark.parametrize(
    ("origin", "processes", "line"),
    [
        ({"device": "NVIDIA H100", "threads": 2}, 1, "25.6 M parameters, 3x224x224 images; NVIDIA H100, bf16-mixed"),
        ({"device": "cpu", "threads": 2}, 4, "25.6 M parameters, 3x224x224 images; 4 x CPU, 2 threads, bf16-mixed"),
    ],
)
def test_the_network_and_what_computes_it(origin, processes, line):
    spec = ImageSpec(classes=["a", "b"], channels=3, image_size=224, mean=[0.5] * 3, std=[0.5] * 3)
    known = {"parameters": 25_557_032, "precision": "bf16-mixed"}
    assert network_line(known | origin, spec, processes) == line
    other = network_line(known | origin, replace(spec, eval_size=288), processes)
    assert other == line.replace(" images;", " images (288x288 in evaluation);")


def test_parameters_are_written_as_papers_do():
    assert [millions(number) for number in (910, 272_474, 25_557_032)] == ["910", "0.27 M", "25.6 M"]


@pytest.mark.slow
def test_images_that_the_weights_of_another_run_were_trained_on_are_counted(composed, tmp_path):
    fill(photos := tmp_path / "photos", {"a": 20, "b": 20})
    first, data = of_photos(composed, photos, 1)
    train, _ = data.file_splits
    fit.train(first)

    def line(*overrides, seed=2):
        config, data = of_photos(composed, photos, seed, f"model.weights={first.folder}", *overrides)
        return weights_line(config, data, ""), data

    told, data = line()
    both = {*train.paths} & {*data.file_splits[1].paths}
    assert 0 < len(both) < 10
    begin = f"model.weights={first.folder} was trained on"
    assert told == f"{begin} {len(both)} of the 10 validation images"
    assert line(seed=1)[0] is None  # the same division
    told, data = line("data.test_fraction=0.5", "data.val_fraction=0", seed=1)
    both = {*train.paths} & {*data.splits["test"].paths}
    assert told == f"{begin} {len(both)} of the 20 test images"
    other = shutil.copytree(photos, tmp_path / "other")
    elsewhere, data = of_photos(composed, other, 2, f"model.weights={first.folder}")
    names = {file.relative_to(photos) for file in map(Path, train.paths)}
    both = names & {file.relative_to(other) for file in map(Path, data.file_splits[1].paths)}
    told = f"{begin} {len(both)} of the 10 validation images, if the files of the same names in"
    assert weights_line(elsewhere, data, "") == f"{told} {other} are the same images"
    content = torch.load(Run(first.folder).best, weights_only=True)
    content["reslab"]["config"]["data"]["root"] = None  # a shared network does not say where its data were
    torch.save(content, Run(first.folder).best)
    assert line()[0] == f"{told} {photos} are the same images"


@pytest.mark.parametrize(
    ("options", "alone"),
    [([], None), (["model.freeze=true"], "alone"), (["model.freeze=3"], "alone at first"),
     (["model.freeze=true", "model.weights=IMAGENET1K_V1"], None),
     (["model.freeze=true", "model._target_=mine.Network"], None),
     (["model=timm", "model.freeze=true"], "alone"),
     (["model=timm", "model.freeze=true", "model.pretrained=true"], None)],
)  # fmt: skip
def test_random_weights_that_are_frozen_are_named(composed, options, alone):
    line = freeze_line(composed(*options).model)
    assert line == (alone and f"{options[-1]} without model.weights: the last layer trains {alone}, on random features")


def of_photos(composed, photos, seed, *overrides):
    config = composed(
        "model=resnet8", "data=imagefolder", f"data.root={photos}", "data.image_size=16", "data.batch_size=4",
        "data.num_workers=0", "data.val_fraction=0.3", "trainer=cpu", "trainer.max_steps=1", "logger=none", "threads=1",
        f"folder={photos.parent / str(seed)}", f"seed={seed}", *overrides,
    )  # fmt: skip
    return config, build_data(config, ("fit", "test"))


@pytest.mark.slow
def test_of_images_in_memory_another_division_is_named(composed, tmp_path):
    first = composed("model=resnet8", "trainer=cpu", "trainer.max_steps=1", "logger=none", "threads=1")
    same = fit.train(first)["data_checksum"]
    config, data = composed(f"model.weights={tmp_path}"), build_data(first, ("fit", "test"))
    assert weights_line(config, data, same) is None
    assert weights_line(config, data, "another") == (
        f"model.weights={tmp_path} was trained on images of another division of the data set, so probably on some of "
        "the validation images"
    )
    folds = composed(f"model.weights={tmp_path}", "data.folds=5", "data.fold=0", "data.val_fraction=0")
    assert weights_line(folds, build_data(folds, ("fit", "test")), "another").endswith("on some of the test images")
    assert weights_line(composed("model.weights=IMAGENET1K_V1"), data, "another") is None
    torch.save({}, file := tmp_path / "weights.pth")
    assert weights_line(composed(f"model.weights={file}"), data, "another") is None


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({}, None),
        ({"classes": ["b", "a"]}, " was trained on other classes, or on these in another order: "
         "the classifier of a begins with the weights of b"),
        ({"classes": ["a", "b", "c"]}, None),  # the classifier is left out, which another line says
        ({"mean": [0.1, 0.2, 0.3]}, " was trained on images with another normalization: "
         "'data.mean=[0.1,0.2,0.3]' 'data.std=[0.229,0.224,0.225]' is the same one"),
        ({"mean": [0.1]}, None),  # of other channels
        ({"mean": None}, None),
    ],
)  # fmt: skip
def test_weights_of_other_classes_or_another_normalization_are_named(composed, tmp_path, changed, line):
    fill(photos := tmp_path / "photos", {"a": 20, "b": 20})
    config, data = of_photos(composed, photos, 1)
    record = {"config": {"data": {"name": "cifar10"}}, "spec": asdict(data.spec) | changed}
    torch.save({"state_dict": {}, "reslab": record}, file := tmp_path / "a.ckpt")
    config, data = of_photos(composed, photos, 1, f"model.weights={file}")
    assert weights_line(config, data, "") == (line and f"model.weights={file}{line}")

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from reslab.configuration import CONF
from reslab.data.spec import ImageSpec
from reslab.data.splits import Split
from reslab.training import fit
from reslab.training.opening import millions, network_line, shared_line


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
    assert line.startswith("2 of the 3 test images are also training or validation images: ")
    assert line.endswith("src/check_data.py data=imagefolder 'data.root=my photos' lists them")
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

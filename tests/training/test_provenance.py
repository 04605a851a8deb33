import platform

import lightning
import torch
import torchvision

from reslab.configuration import PACKAGE
from reslab.training import build, provenance


def test_a_result_holds_its_origin(trained):
    assert trained.result["versions"] == {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "lightning": lightning.__version__,
    }
    expected = {"model": "resnet8", "data": "digits", "seed": 42, "device": "cpu", "precision": "32-true"}
    assert {name: trained.result[name] for name in expected} == expected
    data = build.build_data(trained.config, stages=("fit",))
    assert trained.result["data_checksum"] == data.checksum()
    origin = trained.classifier.record["origin"]
    assert origin == {name: trained.result[name] for name in origin}


def test_the_commit_is_that_of_the_checkout():
    commit = provenance.git_commit()
    assert len(bytes.fromhex(commit.removesuffix("-dirty"))) == 20


def test_a_wheel_has_no_commit(monkeypatch):
    monkeypatch.setattr(provenance, "CONF", PACKAGE / "conf")
    assert provenance.git_commit() is None


def test_a_folder_without_git_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    assert provenance.git_commit() is None

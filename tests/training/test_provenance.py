import platform
import subprocess

import lightning
import torch
import torchvision
from omegaconf import OmegaConf

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
    assert len(bytes.fromhex(provenance.git_commit().partition("-dirty-")[0])) == 20


def test_different_code_never_has_the_same_commit(monkeypatch, tmp_path):
    root = tmp_path / "a checkout"
    package, conf = root / "src" / "reslab", root / "conf"
    for folder in (package, conf):
        folder.mkdir(parents=True)
        (folder / "file").write_text("1")
    identity = ("-c", "user.name=n", "-c", "user.email=e")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "m")):
        subprocess.run(["git", "-C", root, *command], check=True)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    monkeypatch.setattr(provenance, "CONF", conf)
    clean = provenance.git_commit()
    assert len(bytes.fromhex(clean)) == 20
    (root / "notes").write_text("no code")
    assert provenance.git_commit() == clean
    seen = [clean]
    for file in (package / "file", conf / "file", conf / "new é.yaml"):
        for text in ("2", "3"):
            file.write_text(text)
            seen.append(provenance.git_commit())
            assert seen[-1].startswith(f"{clean}-dirty-")
            assert provenance.git_commit() == seen[-1]
    assert len({*seen}) == len(seen)


def test_a_wheel_has_no_commit(monkeypatch):
    monkeypatch.setattr(provenance, "CONF", PACKAGE / "conf")
    assert provenance.git_commit() is None


def test_a_folder_without_git_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    assert provenance.git_commit() is None


def test_only_a_length_that_changes_the_numbers_makes_another_run():
    """No schedule depends on trainer.max_time, which a chain of cluster jobs may change or leave out."""
    lengths = {"max_epochs": 4, "max_steps": -1}
    earlier = {"config": {"trainer": lengths | {"max_time": "00:00:10:00"}}}
    begun = [{"step": 0, "trainer.max_epochs": 4, "trainer.max_steps": -1}]
    same = OmegaConf.create({"trainer": lengths | {"max_time": None}})
    assert provenance.requested_lengths(same, earlier, 40) == begun
    longer = OmegaConf.create({"trainer": lengths | {"max_epochs": 5}})
    assert provenance.requested_lengths(longer, earlier, 40) == [
        *begun,
        {**begun[0], "step": 40, "trainer.max_epochs": 5},
    ]

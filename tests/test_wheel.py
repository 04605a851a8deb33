"""The wheel: what `pip install` gives away from the checkout."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import CONF, FP32

from reslab.configuration import ZOO

pytestmark = pytest.mark.slow  # pip installs setuptools into an environment of its own to build it


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's content."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("src", "conf", "docs/zoo"):
        shutil.copytree(CONF.parent / name, folder / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CONF.parent / name, folder)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder]
    subprocess.run(pip, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def run(installed, folder, program, *arguments):
    """A program away from the checkout: the wheel comes before the environment's own packages."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


COMMAND = "from reslab.commands.main import main; main()"


def test_the_wheel_has_every_file_of_the_package_and_of_conf(installed):
    inside = {path.relative_to(installed) for path in installed.rglob("*") if path.suffix in (".py", ".yaml", ".typed")}
    src = CONF.parent / "src"
    package = {path.relative_to(src) for path in src.glob("*/**/*") if path.suffix in (".py", ".typed")}
    conf = {"reslab" / path.relative_to(CONF.parent) for path in CONF.rglob("*.yaml")}
    zoo = {"reslab/zoo" / path.relative_to(ZOO) for path in ZOO.rglob("*") if path.is_file()}
    assert {path for path in inside if path.parts[:2] != ("reslab", "zoo")} == package | conf
    assert {path.relative_to(installed) for path in (installed / "reslab/zoo").rglob("*") if path.is_file()} == zoo


def test_an_empty_folder_is_enough_to_train_and_to_predict(installed, tmp_path):
    quick = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "logger=none", FP32, "hydra.run.dir=run")
    done = run(installed, tmp_path, COMMAND, "train", *quick)
    assert done.returncode == 0, done.stderr
    program = "import reslab; run = reslab.load('run'); print(reslab.__file__, run.status, run.result['git_commit'])"
    place, status, commit = run(installed, tmp_path, program).stdout.split()
    assert place == str(installed / "reslab" / "__init__.py")
    assert (status, commit) == ("finished", "None")  # the wheel is of no commit


def test_the_zoo_is_there_away_from_the_checkout(installed, tmp_path):
    program = "import reslab; run = reslab.load('zoo/digits_resnet8'); print(run.folder, run.result['parameters'])"
    folder, parameters = run(installed, tmp_path, program).stdout.split()
    assert (folder, parameters) == (str(installed / "reslab/zoo/digits_resnet8"), "75002")
    tested = run(installed, tmp_path, COMMAND, "evaluate", "zoo/digits_resnet8", FP32, "output=result.json")
    assert tested.returncode == 0, tested.stderr
    assert json.loads((tmp_path / "result.json").read_text())["metrics"]["test/accuracy"] == pytest.approx(358 / 359)


def test_a_sweep_starts_its_jobs_as_commands_of_the_wheel(installed, tmp_path):
    options = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "logger=none", "test=false", "seed=1,2")
    launcher = ("hydra/launcher=parallel", "hydra.sweep.dir=sweep")
    done = run(installed, tmp_path, COMMAND, "train", "-m", *options, *launcher)
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(list(tmp_path.glob("sweep/*_seed=*/result.json"))) == 2

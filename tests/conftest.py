"""What the tests share: composed configurations, a short run, commands, and real data that may be absent."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks of the tests are tiny, and two tests may run at once

import pytest
import torch
from command_server import Server, Started
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torchvision.io import write_png

import reslab.commands.entry  # noqa: F401  # registers the resolvers that conf/config.yaml uses
from reslab.commands import main
from reslab.configuration import CONF
from reslab.training import build, fit

SRC = CONF.parent / "src"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
SHARED_DATA = os.environ.get("RESLAB_SHARED_DATA")

NO_TORCH = Path(__file__).parent / "no_torch"  # a module torch that ends the process
COMMANDS = [f"reslab.commands.{name}" for name in main.COMMANDS]
WITHOUT_TORCH = Server(COMMANDS, PYTHONPATH=str(NO_TORCH))
WITH_TORCH = Server(
    [
        *COMMANDS, "reslab.training.fit", "reslab.training.averaging", "reslab.inference.evaluation",
        "reslab.inference.prediction", "reslab.inference.explanation", "reslab.reports.run_page.writing",
        "reslab.reports.writing", "reslab.sweeps.jobs", "reslab.sweeps.sweepers", "torch.utils.tensorboard",
        "tensorboard.backend.event_processing.event_accumulator", "matplotlib.backends.backend_agg", "captum.attr",
    ]
)  # fmt: skip

needs_fashion_mnist = pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is absent")
needs_shared_data = pytest.mark.skipif(SHARED_DATA is None, reason="RESLAB_SHARED_DATA is not set")


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPUs from the tests, which expect the numbers of a CPU, unless only the tests of tests/gpu are run."""
    needs_gpu = (Path(argument).absolute().is_relative_to(CONF.parent / "tests" / "gpu") for argument in config.args)
    if config.option.markexpr != "gpu" and not all(needs_gpu):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_unconfigure() -> None:
    WITH_TORCH.stop()
    WITHOUT_TORCH.stop()


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def names(group: str) -> list[str]:
    """Return every choice of a group in conf/."""
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """Return the configuration of `python src/train.py <overrides>`, with its run in a temporary folder."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: compose("config", overrides=[f"folder={tmp_path}", FP32, *overrides])


def run(command: str, *arguments: object, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run src/<command>.py in a process of its own, in a new Python where the environment or a launcher needs one."""
    variables = command_environment(**environment)
    script = SRC / f"{command}.py"
    for_python = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
    if for_python in ({}, WITHOUT_TORCH.environment) and not is_distributed(arguments):
        server = WITHOUT_TORCH if for_python else WITH_TORCH
        return server.run(script, arguments, cwd, variables, seconds=300)
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)], cwd=cwd, env=variables, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def start(command: str, *arguments: object, cwd: Path, stdout: Any, stderr: Any) -> "Started | subprocess.Popen[str]":
    """Start src/<command>.py in a process group of its own, as subprocess.Popen does."""
    if is_distributed(arguments):
        return subprocess.Popen(
            [sys.executable, SRC / f"{command}.py", *map(str, arguments)], cwd=cwd, env=command_environment(),
            stdout=stdout, stderr=stderr, text=True, start_new_session=True,
        )  # fmt: skip
    return WITH_TORCH.start(SRC / f"{command}.py", arguments, cwd, command_environment(), stdout, stderr)


def is_distributed(arguments: Sequence[object]) -> bool:
    """Return whether a run has several processes: a forked one of these waits for the others for ever."""
    return any(str(argument).startswith("trainer=ddp") for argument in arguments)


def command_environment(**environment: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("HYDRA_FULL_ERROR", "RESLAB_DATA")}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment


@pytest.fixture
def no_torch() -> dict[str, str]:
    """An environment in which a command ends at once when it imports torch."""
    return WITHOUT_TORCH.environment


FP32 = "trainer.precision=32-true"  # the same on every machine
TRAINED = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=4", "trainer.log_every_n_steps=6")


@pytest.fixture(scope="session")
def slurm() -> None:
    if not shutil.which("sinfo") or subprocess.run(["sinfo"], capture_output=True, check=False).returncode != 0:
        pytest.skip("SLURM does not run here: tests/slurm/start")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A short run on the digits. Tests must not change it."""
    folder = tmp_path_factory.mktemp("trained")
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.MonkeyPatch.context() as patch:
        config = compose("config", overrides=[f"folder={folder}", FP32, *TRAINED])
        built = []
        build_classifier = fit.build_classifier
        patch.setattr(fit, "build_classifier", lambda *args: built.append(build_classifier(*args)) or built[0])
        result = fit.train(config)
    data = build.build_data(config, stages=("test",))
    images, labels = data.splits["test"].images, data.splits["test"].labels
    classifier = built[0].eval()  # with the best weights, which were tested
    with torch.inference_mode():
        probabilities = classifier.evaluation_logits(images).softmax(1)  # (359, 10), for all test images at once
    return SimpleNamespace(
        config=config, folder=folder, result=result, classifier=classifier, images=images, labels=labels,
        probabilities=probabilities,
    )  # fmt: skip


def with_precision(checkpoint: Path, precision: str) -> None:
    """Let a checkpoint say that its run has computed in another precision, on a CPU."""
    content = torch.load(checkpoint, weights_only=True)
    content["reslab"]["config"]["trainer"]["precision"] = precision
    content["reslab"]["origin"]["precision"] = {"16-mixed": "bf16-mixed"}.get(precision, precision)
    torch.save(content, checkpoint)


@pytest.fixture
def overflowing(trained: SimpleNamespace, tmp_path: Path) -> Path:
    """A checkpoint of finite weights whose logits are infinite, so that they have no softmax."""
    content = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"]["network.fc.weight"].fill_(3e38)
    torch.save(content, tmp_path / "overflowing.ckpt")
    return tmp_path / "overflowing.ckpt"


@pytest.fixture(scope="session")
def digit_files(trained: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The test images of `trained` in their order, as <class>/<number>.png in one folder."""
    folder = tmp_path_factory.mktemp("digits")
    files = [folder / str(label) / f"{index:03}.png" for index, label in enumerate(trained.labels.tolist())]
    for file, image in zip(files, trained.images, strict=True):
        file.parent.mkdir(exist_ok=True)
        write_png(image, str(file))
    return files

"""The programs of peers.py: how each is prepared for a job, started, resumed, and where it leaves its weights.

A program is run in a copy of its checkout. What a user has to write for a job is written into the copy, and nothing
else is changed: `files` are new files, `edits` are replacements within a file of the checkout.
"""

import difflib
import re
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from peers_images import CLASSES, Job
from peers_written import (
    FOLDER_DATA,
    NARROW_MODEL,
    TEMPLATE_CIFAR,
    TEMPLATE_DATA,
    TEMPLATE_MODEL,
    TEMPLATE_NARROW,
    TEMPLATE_NET,
    TORCHVISION_NARROW,
)

ROOT = Path(__file__).parents[1]
# PyTorch's variable for files that hold more than tensors
NO_WEIGHTS_ONLY = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
Edit = tuple[str, str, str]  # a file, a regular expression, and what replaces it


class Program(ABC):
    """A program in a copy of its checkout.

    Args:
        sources: the folder that holds the checkouts.
        python: the interpreter that has the program's packages.
        copy: the folder of the copy, which `prepare` creates.
        job: what it trains.
        own: prepare it for an image folder of one's own and a network of half the width, instead of the job.
    """

    name: str
    checkout: str
    folder = "."  # where its commands are given, within the checkout
    seed: tuple[str, ...] = ()  # the options that make a run repeatable
    environment: Mapping[str, str] = MappingProxyType({})  # what it needs to run to its end with the tested versions

    def __init__(self, sources: Path, python: str, copy: Path, job: Job, own: bool = False) -> None:
        self.sources, self.python, self.copy, self.job, self.own = sources, python, copy, job, own
        self.place = copy / self.folder
        self.lines_edited = 0

    def prepare(self) -> None:
        """Copy the checkout, and write and edit the files that a user writes and edits."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.sources / self.checkout, self.copy, ignore=shutil.ignore_patterns(".git", "results"))
        for name, text in self.files().items():
            (self.copy / name).write_text(text)
        self.lines_edited = sum(replaced(self.copy / name, pattern, text) for name, pattern, text in self.edits())

    def files(self) -> dict[str, str]:
        return {}

    def edits(self) -> list[Edit]:
        return []

    @property
    def slug(self) -> str:
        return re.sub(r"\W+", "-", self.name)

    @property
    def lines_written(self) -> int:
        """The lines that are not empty in the files that a user writes, and the lines that are changed."""
        return sum(bool(line.strip()) for text in self.files().values() for line in text.splitlines()) + (
            self.lines_edited
        )

    @abstractmethod
    def options(self) -> list[str]:
        """Return the options of the command for a job, those of the folder for the results excepted."""

    def output(self, folder: Path) -> list[str]:
        """Return the options that set the folder for the results."""
        return []

    def command(self, folder: Path, *more: str) -> list[str]:
        """Return the command of the job. Of two values that Hydra would get for an option, it has the one in `more`."""
        again = {word.partition("=")[0] for word in more if "=" in word}
        options = [word for word in self.options() if word.partition("=")[0] not in again]
        return [self.python, *self.script, *options, *self.output(folder), *more]

    script: tuple[str, ...] = ("train.py",)

    @abstractmethod
    def resume(self, folder: Path) -> list[str]:
        """Return the command that resumes the run in a folder."""

    @abstractmethod
    def weights(self, folder: Path) -> tuple[Path, str]:
        """Return the checkpoint at the end of a run, and the name of the weights in it."""

    mistyped: dict[str, tuple[str, ...]]  # what is mistyped, and the options
    gpu: tuple[str, ...] | None  # the options that ask for a GPU


def replaced(file: Path, pattern: str, text: str) -> int:
    """Replace what a pattern matches, and return the number of lines that are new or changed.

    Raises:
        ValueError: if the pattern matches nothing.
    """
    before = file.read_text()
    after, count = re.subn(pattern, text, before, flags=re.MULTILINE)
    if not count:
        raise ValueError(f"{file}: nothing matches {pattern}")
    file.write_text(after)
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return sum(line.startswith("+ ") for line in lines)


class ResLab(Program):
    name, checkout, script = "ResLab", ".", ("src/train.py",)
    seed = ("threads=1",)  # seed=42 is the default; the number of threads decides how sums are rounded
    mistyped = {"an option": ("trainer.max_ephocs=1",), "a network": ("model=resnet81",)}
    gpu = ("trainer=gpu",)

    def __init__(self, job: Job, own: bool = False) -> None:
        super().__init__(ROOT, sys.executable, ROOT, job, own)

    def prepare(self) -> None:
        """Do nothing: a user changes no file."""

    def options(self) -> list[str]:
        common = [f"data.root={self.job.images}", f"data.batch_size={self.job.batch}", "trainer=cpu",
                  "trainer.precision=32-true", f"trainer.max_epochs={self.job.epochs}", "optimizer.nesterov=false",
                  "scheduler=constant"]  # fmt: skip
        if self.own:
            common.append("model.widths=[32,64,128,256]")
        if self.job.part == "cifar":
            return ["model=resnet18", "data=cifar10", "data.val_fraction=0", *common]
        own = [] if self.job.size == 224 else [f"data.image_size={self.job.size}", "model.stem=imagenet"]
        return ["model=resnet18", "data=imagefolder", "optimizer.weight_decay=1e-4", "test=false", *common, *own]

    def output(self, folder: Path) -> list[str]:
        return [f"hydra.run.dir={folder}"]

    def resume(self, folder: Path) -> list[str]:
        return [self.python, *self.script, f"resume={folder}"]

    def weights(self, folder: Path) -> tuple[Path, str]:
        return folder / "checkpoints" / "last.ckpt", "state_dict"


class Template(Program):
    name, checkout, script = "lightning-hydra-template", "lightning-hydra-template", ("src/train.py",)
    seed = ("seed=1",)
    environment = NO_WEIGHTS_ONLY  # its checkpoints hold classes, and it loads the best one to test it
    mistyped = {"an option": ("trainer.max_ephocs=1",), "a network": ("model=resnet81",)}
    gpu = ("trainer=gpu",)

    def files(self) -> dict[str, str]:
        if self.own:
            return {
                "src/data/own_datamodule.py": FOLDER_DATA,
                "configs/data/own.yaml": TEMPLATE_DATA.format(module="own_datamodule.OwnDataModule"),
                "configs/model/own.yaml": TEMPLATE_MODEL.format(net=TEMPLATE_NARROW),
            }
        return {
            "src/data/own_datamodule.py": TEMPLATE_CIFAR,
            "src/models/components/own_net.py": TEMPLATE_NET,
            "configs/data/own.yaml": TEMPLATE_DATA.format(module="own_datamodule.OwnDataModule"),
            "configs/model/own.yaml": TEMPLATE_MODEL.format(
                net="{_target_: src.models.components.own_net.small_image_resnet18}"
            ),
        }

    def options(self) -> list[str]:
        job = self.job
        return ["data=own", "model=own", f"data.root={job.images}", f"data.batch_size={job.batch}", "trainer=cpu",
                f"trainer.max_epochs={job.epochs}", "logger=tensorboard"]  # fmt: skip

    def output(self, folder: Path) -> list[str]:
        return [f"hydra.run.dir={folder}"]

    def resume(self, folder: Path) -> list[str]:
        checkpoint = folder / "checkpoints" / "last.ckpt"
        return self.command(folder, *self.seed, f"ckpt_path={checkpoint}")

    def weights(self, folder: Path) -> tuple[Path, str]:
        return folder / "checkpoints" / "last.ckpt", "state_dict"


class PytorchCifar(Program):
    name, checkout, script = "pytorch-cifar", "pytorch-cifar", ("main.py",)
    mistyped = {"an option": ("--lrr", "0.1")}
    gpu = None
    batch = 128  # written in its source

    def edits(self) -> list[Edit]:
        """Return the edits: its network, epochs and data set are written in its source."""
        edits = [
            ("main.py", r"^net = \w+\(\)$", "net = ResNet18()"),
            ("main.py", r"start_epoch ?\+ ?\d+", f"start_epoch+{self.job.epochs}"),
        ]
        if self.job.batch != self.batch:
            edits.append(("main.py", rf"batch_size={self.batch}", f"batch_size={self.job.batch}"))
        if self.own:
            edits += [
                ("main.py", r"CIFAR10\(\s*root=[^,]*, train=True, \w+=True", "ImageFolder('./data/train'"),
                ("main.py", r"CIFAR10\(\s*root=[^,]*, train=False, \w+=True", "ImageFolder('./data/val'"),
                ("main.py", r"(Compose\(\[)$", r"\1 transforms.Resize((32, 32)),"),
                ("models/resnet.py", r"(self\.in_planes = )64", r"\g<1>32"),
                ("models/resnet.py", r"(self\.conv1 = nn\.Conv2d\(3, )64", r"\g<1>32"),
                ("models/resnet.py", r"(self\.bn1 = nn\.BatchNorm2d\()64", r"\g<1>32"),
                *(("models/resnet.py", rf"(_layer\(block, ){width},", rf"\g<1>{width // 2},")
                  for width in (64, 128, 256, 512)),
                ("models/resnet.py", r"(nn\.Linear\()512", r"\g<1>256"),
            ]  # fmt: skip
        return edits

    def options(self) -> list[str]:
        return []

    def command(self, folder: Path, *more: str) -> list[str]:
        """Return the command. The program takes its images from ./data and writes into ./checkpoint."""
        self.link(self.place / "data", self.job.images)
        folder.mkdir(parents=True, exist_ok=True)
        self.link(self.place / "checkpoint", folder)
        return super().command(folder, *more)

    def link(self, link: Path, target: Path) -> None:
        link.unlink(missing_ok=True)
        link.symlink_to(target, target_is_directory=True)

    def resume(self, folder: Path) -> list[str]:
        return self.command(folder, "--resume")

    def weights(self, folder: Path) -> tuple[Path, str]:
        return folder / "ckpt.pth", "net"


class Timm(Program):
    name, checkout = "timm train.py", "pytorch-image-models"
    seed = ("--seed", "42")
    mistyped = {"an option": ("--ephocs", "1"), "a network": ("--model", "resnet81")}
    gpu = ("--device", "cuda")
    more: tuple[str, ...] = ()

    def options(self) -> list[str]:
        job = self.job
        size = [] if job.size == 224 else ["--input-size", "3", str(job.size), str(job.size)]
        own = ["--model-kwargs", "channels=(32,64,128,256)", "stem_width=32"] if self.own else []
        return ["--data-dir", str(job.images), "--model", "resnet18", "--num-classes", str(CLASSES), "--device", "cpu",
                "-b", str(job.batch), "-j", "2", "--epochs", str(job.epochs), "--warmup-epochs", "0", "--opt",
                "momentum", "--lr", "0.1", "--weight-decay", "1e-4", "--smoothing", "0", "--color-jitter", "0",
                "--train-interpolation", "bilinear", *self.more, *size, *own]  # fmt: skip

    def output(self, folder: Path) -> list[str]:
        return ["--output", str(folder.parent), "--experiment", folder.name]

    def resume(self, folder: Path) -> list[str]:
        return self.command(folder.with_name(f"{folder.name}-resumed"), "--resume", str(folder / "last.pth.tar"))

    def weights(self, folder: Path) -> tuple[Path, str]:
        resumed = folder.with_name(f"{folder.name}-resumed")
        return (resumed if resumed.exists() else folder) / "last.pth.tar", "state_dict"


class TimmChannelsLast(Timm):
    name, more = "timm train.py --channels-last", ("--channels-last",)


class Torchvision(Program):
    name, checkout, folder = "torchvision references", "vision", "references/classification"
    mistyped = {"an option": ("--ephocs", "1"), "a network": ("--model", "resnet81")}
    gpu = ("--device", "cuda")

    def files(self) -> dict[str, str]:
        return {f"{self.folder}/narrow.py": TORCHVISION_NARROW} if self.own else {}

    def edits(self) -> list[Edit]:
        return [(f"{self.folder}/train.py", r"^import utils$", "import narrow\nimport utils")] if self.own else []

    def options(self) -> list[str]:
        job = self.job
        sizes = ("--train-crop-size", "--val-crop-size", "--val-resize-size")
        size = [] if job.size == 224 else [word for option in sizes for word in (option, str(job.size))]
        return ["--data-path", str(job.images), "--model", NARROW_MODEL if self.own else "resnet18", "--device", "cpu",
                "-b", str(job.batch), "-j", "2", "--epochs", str(job.epochs), *size]  # fmt: skip

    def output(self, folder: Path) -> list[str]:
        return ["--output-dir", str(folder)]

    def resume(self, folder: Path) -> list[str]:
        return self.command(folder, "--resume", str(folder / "checkpoint.pth"))

    def weights(self, folder: Path) -> tuple[Path, str]:
        return folder / "checkpoint.pth", "model"


PEERS: dict[str, tuple[type[Program], ...]] = {
    "cifar": (Template, PytorchCifar),
    "folder": (Timm, TimmChannelsLast, Torchvision),
}


def programs_of(job: Job, peers: Path, python: str, work: Path) -> list[Program]:
    """Return the programs that do a job. `peers` holds the checkouts, and the copies are made in `work`."""
    others: tuple[type[Program], ...] = (
        (Template, PytorchCifar) if job.part == "cifar" else (Timm, TimmChannelsLast, Torchvision)
    )
    return [ResLab(job), *(kind(peers, python, work / kind.__name__, job) for kind in others)]

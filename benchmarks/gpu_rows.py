"""The rows that benchmarks/gpu.py measures, in their parts: what each trains, and about how long that takes."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gpu_data
from gpu_runs import Machine, Settings, in_pieces

PARTS = ("tests", "speed", "recipes", "fidelity", "disk")
WORKERS = max(1, (os.cpu_count() or 1) - 1)  # one processor is left for the training
EPOCH_STEPS, LAUNCHED_STEPS = 200, 10  # of the part speed
Values = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        subject: what is measured; with `program`, the name of the row in its part.
        program: what measures it, or its seed.
        seconds: about how long it takes on an NVIDIA H100; it begins only if a call has as much time left.
        measure: returns the measured values.
    """

    subject: str
    program: str
    seconds: float
    measure: Callable[[Machine], Values]

    @property
    def name(self) -> str:
        return f"{self.subject}, {self.program}"


def rows_of(part: str, seeds: Iterable[int]) -> list[Row]:
    """Return the rows of a part in the order in which they are measured."""
    makers = {"tests": tests, "speed": speed, "disk": disk}
    if part in makers:
        return makers[part]()
    return [row for seed in seeds for row in (recipes(seed) if part == "recipes" else fidelity(seed))]


# tests


def tests() -> list[Row]:
    return [Row("tests/gpu", "pytest", 270, run_tests)]


def run_tests(machine: Machine) -> Values:
    """Run the tests that need a GPU, and return pytest's last line."""
    machine.python("-m", "pytest", "tests/gpu", "-m", "gpu", "-p", "no:cacheprovider")
    return {"summary": (machine.work / "output.txt").read_text().strip().splitlines()[-1].strip("= ")}


# speed

WORKS: dict[str, tuple[str, Settings]] = {  # the name of the plain loop, and the same work for ResLab
    "ResNet-20, batch 128": ("resnet20", {"model": "resnet20", "data.batch_size": 128}),
    "ResNet-50, 7x7 stem, batch 64": (
        "resnet50",
        {"model": "resnet50", "model.stem": "imagenet", "optimizer": "adam", "data.batch_size": 64},
    ),
    "ResNet-18, 3x3 stem, batch 512": (
        "resnet18",
        {"model": "resnet18", "model.stem": "cifar", "data.batch_size": 512},
    ),
}
LOOPS = {"eager": "eager", "one CUDA graph": "graph"}
VARIANTS: dict[str, tuple[float, Settings]] = {  # seconds, and what is set
    "graph=false": (50, {"graph": "false"}),
    "graph=true": (50, {"graph": "true"}),
    "compile=true graph=false": (150, {"graph": "false", "compile": "true"}),
    "compile=true graph=true": (150, {"graph": "true", "compile": "true"}),
}


def speed() -> list[Row]:
    """Return the rows of 32x32 images: the plain loops, then ResLab as it is and as a graph, and last compiled."""
    rows = []
    for compiles in (False, True):
        for subject, (loop, settings) in WORKS.items():
            if not compiles:
                rows += [Row(subject, f"plain loop, {kind}", 30, partial(plain, loop, kind)) for kind in LOOPS]
            rows += [
                Row(subject, program, seconds, partial(train_synthetic, loop, {**settings, **variant}))
                for program, (seconds, variant) in VARIANTS.items()
                if ("compile" in variant) == compiles
            ]
    return rows


def plain(loop: str, kind: str, machine: Machine) -> Values:
    return dict(machine.plain_step(loop, LOOPS[kind]))


def train_synthetic(loop: str, settings: Settings, machine: Machine) -> Values:
    """Train two epochs on random images, and compare a step with one of the plain loop's graph in the same call."""
    steps = 3 if machine.dry else EPOCH_STEPS
    batch = 16 if machine.dry else int(str(settings["data.batch_size"]))
    probe = machine.work / "probe.json"
    run, _ = machine.train(
        "speed",
        {
            "data": "synthetic", "data.num_images": steps * batch, "data.val_fraction": 0, "test": "false",
            "trainer": "gpu", "trainer.precision": "bf16-mixed",
            "trainer.max_steps": 2 * steps + 2 * LAUNCHED_STEPS, "trainer.max_epochs": 100,
            "+callbacks.probe._target_": "gpu_probe.StepProbe", "+callbacks.probe.file": probe,
            "+callbacks.probe.epoch_steps": steps, "+callbacks.probe.launched_steps": LAUNCHED_STEPS, **settings,
        },
        {"data.image_size": 8, "trainer.max_steps": 2 * steps + 1, "optimizer": "sgd"},
    )  # fmt: skip
    values = json.loads(probe.read_text())
    epochs = [row["train/epoch_seconds"] for row in run.metrics]
    values |= {"first_epoch_s": epochs[0], "second_epoch_s": epochs[1], "graph": run.result.get("graph")}
    return values | machine.ratio_to_plain(loop, "graph", values["step_ms"])


# recipes

RECIPES = {  # the function that finds the images, what they need beside the recipe, and seconds
    "cifar10_fast": (gpu_data.cifar10, {"data.augment.scale": "null"}, 90),
    "fashion_mnist_fast": (gpu_data.fashion_mnist, {}, 40),
    "cifar10_resnet50": (gpu_data.cifar10, {}, 200),
    "mnist_resnet50": (gpu_data.mnist, {}, 220),
    "fashion_mnist_95": (gpu_data.fashion_mnist, {}, 170),
}
# CIFAR-10 is a folder of JPEG files here.
CIFAR10_FILES = {
    "data": "imagefolder", "data.image_size": 32, "data.in_memory": "true", "data.mean": "null", "data.std": "null",
    "data.num_workers": WORKERS,
}  # fmt: skip
TINY_RECIPE = {"data": "digits", "trainer.max_epochs": 1}


def recipes(seed: int) -> list[Row]:
    return [
        Row(f"experiment={name}", f"seed {seed}", seconds, partial(train_recipe, name, seed))
        for name, (_, _, seconds) in RECIPES.items()
    ]


def train_recipe(name: str, seed: int, machine: Machine) -> Values:
    find, needed, _ = RECIPES[name]
    settings: dict[str, object] = {"experiment": name, "seed": seed, "trainer.accelerator": "gpu", **needed}
    if machine.dry:
        settings = {key: value for key, value in settings.items() if key not in needed}
    else:
        settings |= {"data.root": find(machine.work / "data")}
        settings |= CIFAR10_FILES if find is gpu_data.cifar10 else {}
    run, command_s = machine.train(name, settings, TINY_RECIPE | ({"data.channels": 3} if "50" in name else {}))
    return outcome(run.result) | {"command_s": command_s}


def outcome(result: Values) -> Values:
    """Return what a recipe reaches."""
    names = {
        "val/accuracy": "validation", "test/accuracy": "test", "train/seconds": "training_s",
        "train/images_per_second": "images_per_second", "epochs": "epochs", "graph": "graph",
    }  # fmt: skip
    return {short: result[name] for name, short in names.items() if name in result}


# fidelity

ERASING = {"experiment": "fashion_mnist_random_erasing"}
FIDELITY: dict[str, tuple[Callable[[Path], Path], Settings]] = {
    "ResNet-20 on Fashion-MNIST, 300 epochs": (gpu_data.fashion_mnist, {**ERASING, "data.augment.erasing": 0}),
    "ResNet-20 on Fashion-MNIST, 300 epochs, random erasing": (gpu_data.fashion_mnist, ERASING),
    "WRN-28-10 on Fashion-MNIST, 300 epochs, random erasing": (
        gpu_data.fashion_mnist,
        {**ERASING, "model": "wrn_28_10", "model.dropout": 0},  # the authors train it without
    ),
    "PreActResNet-18 on MNIST, 60 epochs": (
        gpu_data.mnist,
        {"model": "preact_resnet18", "data": "mnist", "data.val_fraction": 0},
    ),
}


def fidelity(seed: int) -> list[Row]:
    """Return the rows of published results. A run may take several calls: each one needs a minute at least."""
    return [Row(subject, f"seed {seed}", 60, partial(train_long, subject, seed)) for subject in FIDELITY]


def train_long(subject: str, seed: int, machine: Machine) -> Values:
    find, settings = FIDELITY[subject]
    root = {} if machine.dry else {"data.root": find(machine.work / "data")}
    name = f"{list(FIDELITY).index(subject)}-{seed}"
    device = {"seed": seed, "trainer.accelerator": "gpu", "logger": "none"}
    return outcome(in_pieces(machine, name, {**settings, **device, **root}, TINY_RECIPE))


# disk

JPEG_FILES, JPEG_SIZE = 12_000, (500, 375)


def disk() -> list[Row]:
    """Return the rows of 224x224 images: a plain loop on images in memory, and ResLab on JPEG files."""
    subject = "ResNet-50, 224x224, batch 256"
    return [
        Row(subject, "plain loop in memory, eager", 60, partial(plain, "resnet50_224", "eager")),
        Row(subject, "plain loop in memory, one CUDA graph", 60, partial(plain, "resnet50_224", "one CUDA graph")),
        Row(subject, "JPEG files", 180, train_from_disk),
    ]


def train_from_disk(machine: Machine) -> Values:
    """Train three epochs from JPEG files. The first one fills the cache of the disk."""
    files, size, batch = (64, (50, 38), 16) if machine.dry else (JPEG_FILES, JPEG_SIZE, 256)
    run, _ = machine.train(
        "disk",
        {
            "model": "resnet50", "data": "imagefolder", "data.root": gpu_data.jpeg_files(machine.work, files, *size),
            "data.image_size": 224, "data.batch_size": batch, "data.val_fraction": 0, "data.num_workers": WORKERS,
            "trainer": "gpu", "trainer.precision": "bf16-mixed", "trainer.max_epochs": 3, "test": "false",
            "logger": "none",
        },
        {"data.image_size": 16, "data.val_fraction": 0},
    )  # fmt: skip
    speeds = [row["train/images_per_second"] for row in run.metrics]
    step_ms = 1000 * batch / speeds[-1]
    values = {"step_ms": step_ms, "images_per_second": speeds[-1], "workers": WORKERS, "files": files}
    return values | machine.ratio_to_plain("resnet50_224", "eager", step_ms)

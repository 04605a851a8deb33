"""Results on the terminal."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import get_class
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from reslab.commands.output import is_read
from reslab.configuration import name_of, own_flags, task_overrides
from reslab.errors import UserError
from reslab.files import relative
from reslab.inference.options import CALIBRATE
from reslab.machine import command, program
from reslab.run import PAGE, Result
from reslab.sweeps.trust import resuming_command
from reslab.text import for_shell, printable
from reslab.training.options import TEST_METRICS

if TYPE_CHECKING:
    from reslab.inference.export.export import Exported
    from reslab.inference.export.share import Shared

VIEWS = {
    "flip": "of each image and its mirror image",
    "shifts": "over shifts by one pixel",
    "crops": "of five crops",
}


@rank_zero_only
def print_result(result: Result) -> None:
    """Print the metrics of a run."""
    console = Console(markup=False, emoji=False)
    step, steps = result.get("best_step"), result["steps"]
    when = "" if step in (None, steps) else f", best weights: those after step {step:,} of {steps:,}"
    title = printable(f"{result['model']} on {result['data']}{when}")
    table = Table(title=title, title_justify="left", show_header=False)
    for name in ("val/accuracy", *TEST_METRICS):
        if name in result:
            table.add_row(name, f"{result[name]:.4f}{share_of_images(result, name.partition('/')[0])}")
    table.add_row("training", f"{result['train/seconds']:.1f} s, {result['train/images_per_second']:,.0f} images/s")
    console.print(table)


@rank_zero_only
def print_next_steps(result: Result, config: DictConfig) -> None:
    """Print the commands that show, use and continue a run, to be pasted."""
    console = Console(markup=False, emoji=False)
    for what, line in next_steps(result, config).items():
        console.print(f"{what:10}{line}", soft_wrap=True, highlight=False)


def next_steps(result: Result, config: DictConfig) -> dict[str, str]:
    """Return command lines by what they are for."""
    folder = relative(Path(result["folder"]))
    own = own_flags()
    page = folder / PAGE
    steps = {"page": for_shell(str(page))} if page.is_file() else {"report": command("report", str(folder))}
    if list(folder.glob("events.out.tfevents*")):  # another logger may have been chosen
        steps["curves"] = f"{program('tensorboard') or 'tensorboard'} --logdir {for_shell(str(folder))}"
    steps["predict"] = command("predict", *own, str(folder), "photo.jpg")
    steps["evaluate"] = command("evaluate", *own, str(folder))
    if length := longer(result, config):
        steps["continue"] = resuming_command(folder, length)
    return steps


def longer(result: Result, config: DictConfig) -> str | None:
    """Return the option that lets a run train as long again; None if something else than its length has ended it."""
    for unit in ("steps", "epochs"):
        if config.trainer[f"max_{unit}"] == result[unit]:
            return f"trainer.max_{unit}={2 * result[unit]}"
    return None


def print_suggestion(rate: float, folder: Path) -> None:
    """Print the learning rate that a range test suggests, as the command line that takes it."""
    console = Console(markup=False, emoji=False)
    left_out = ("find_lr", "optimizer.lr")
    arguments = [argument for argument in task_overrides() if name_of(argument) not in left_out]
    lines = {
        "curve": str(relative(folder / "find_lr.png")),
        "suggests": f"optimizer.lr={rate:g}",
        "train": command("train", *own_flags(same_command=True), *arguments, f"optimizer.lr={rate:g}"),
    }
    for what, line in lines.items():
        console.print(f"{what:10}{line}", soft_wrap=True, highlight=False)


@rank_zero_only
def print_summary(config: DictConfig) -> None:
    """Print the layers of the network that a configuration describes, as a table and as a drawing of its blocks."""
    from reslab.models.build import build_network
    from reslab.models.summary import brief, drawing, layers, table
    from reslab.models.weights import stem_of_published

    num_classes, channels, image_size = input_shape(config)
    if config.model.weights is not None:  # wrong ones are refused as in training, and they may choose the stem
        asked = config.model.get("stem")
        stem = stem_of_published(config.model.weights, config.model.name, asked)
        if stem is not None and asked == "auto":
            config.model.stem = stem
    for name, nothing in {"weights": None, "pretrained": False}.items():
        if name in config.model:
            OmegaConf.update(config.model, name, nothing)
    network = build_network(config.model, channels, num_classes, image_size)
    root = layers(network, channels, image_size)
    console = Console(markup=False, emoji=False)
    lines = table(root, console.width)
    if (size := config.data.eval_size) not in (None, image_size):
        flops = brief(layers(network, channels, size).flops)
        lines.append(
            f"The table is for images of {image_size} pixels; in evaluation, one of {size} takes {flops}FLOPs."
        )
    for line in [*lines, "", *drawing(root, channels, image_size)]:
        console.print(line, soft_wrap=True, highlight=False)


def input_shape(config: DictConfig) -> tuple[int, int, int]:
    """Return the number of classes, the channels and the size of the images of a configuration's data set.

    The files are read only where nothing else says it. A class of the user's own may read other images than the one
    that it extends.
    """
    from reslab.training.build import build_data

    kind = get_class(config.data._target_)
    is_own = not kind.__module__.startswith("reslab.data.")
    if not is_own and getattr(kind, "stored", None) and config.data.root is None:
        OmegaConf.update(config, "data.root", ".")  # nothing is read there
    try:
        data = build_data(config, stages=())
        if is_own:
            data.stored = None
        return data.input_shape
    except UserError as error:
        synthetic = f"data=synthetic data.image_size={config.data.image_size or 32} data.num_classes=10"
        raise UserError(f"{error}; to see the network without these files: {synthetic}") from error


def share_of_images(result: Result, split: str) -> str:
    """Return how many images were used, if a limit or unreadable files have left out some."""
    used, available = (result.get(f"{split}/{name}") for name in ("images", "images_available"))
    return "" if used == available else f" ({used:,.0f} of {available:,.0f} images)"


@rank_zero_only
def print_evaluation(result: dict[str, Any]) -> None:
    """Print the scores of each class, what was tested, and the metrics."""
    console = Console(markup=False, emoji=False)
    found = "" if result["images"] == result["found"] else f" of {result['found']:,}"
    kind = "validation" if result["split"] == "val" else "test"
    title = f"{printable(result['data'])}: {result['images']:,}{found} {kind} images"
    table = Table(title=title, title_justify="left")
    for name in ("class", "images", "precision", "recall", "F1"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for row in result["classes"]:
        scores = ("\N{EN DASH}" if row[name] is None else f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        table.add_row(printable(row["class"]), f"{row['images']:.0f}", *scores)
    console.print(table)
    for name, value in evaluation_facts(result).items():
        console.print(f"{name:24}{printable(value)}", soft_wrap=True, highlight=False)
    for name, value in result["metrics"].items():
        console.print(f"{name:24}{value:.4f}", highlight=False)


def evaluation_facts(result: dict[str, Any]) -> dict[str, str]:
    """Return what was tested and how, in words."""
    facts = {}
    if members := result.get("members", []):
        facts["mean of"] = f"the probabilities of {len(members)} networks"
    for number, network in enumerate(members or [result], 1):
        of = f" {number}" if members else ""
        facts[f"checkpoint{of}"] = f"{network['checkpoint']} (epoch {network['epoch']}, step {network['step']:,})"
        copies = "".join(f", mean {VIEWS[name]}" for name in network["views"])
        facts[f"computed{of}"] = f"{network['image_size']} pixels, {network['precision']}{copies}"
        if members:
            metric = f"{result['split']}/accuracy"
            facts[f"{metric}{of}"] = f"{network['metrics'][metric]:.4f}"
    if "temperature" in result:
        before = ", ".join(f"{name} {value:.4f}" for name, value in result["uncalibrated"].items())
        facts["temperature"] = f"{result['temperature']:.4f}; without it, {before}"
    if "sets" in result:
        sets = result["sets"]
        facts[f"sets for {sets['asked']:g}"] = (
            f"{sets['coverage']:.4f} contain the true class, {sets['mean_size']:.2f} classes on the average, "
            f"{sets['single']:.1%} of them one, {sets['empty']:.1%} none"
        )
    if result["matched"] == "by_position":
        facts["classes"] = "by their position, not by name"
    without = sum(not row["images"] for row in result["classes"])
    if without:
        facts["classes without images"] = f"{without} of {len(result['classes'])}"
    reasons = {
        "trained_on": "the network was trained on them",
        "unknown_classes": "of classes that the network does not know",
        "unreadable": "they cannot be read",
        "by_a_member": "not every one of the networks was tested on them",
    }
    for name, count in result["left_out"].items():
        if count:
            facts[f"left out: {count:,}"] = reasons[name]
    return facts


@rank_zero_only
def print_calibration(calibration: dict[str, Any]) -> None:
    """Print a temperature, and the loss and the calibration error of the validation images before and after it."""
    console = Console(markup=False, emoji=False)
    value, error = calibration["temperature"], calibration["standard_error"]
    console.print(
        f"temperature {value:.4f} (standard error {error:.4f}), fitted on {calibration['images']:,} validation images",
        soft_wrap=True,
        highlight=False,
    )
    if abs(value - 1) < 2 * error:
        console.print(
            "it differs from 1, which changes nothing, by less than two standard errors: more validation images would "
            "say whether it helps",
            soft_wrap=True,
            highlight=False,
        )
    table = Table()
    for name in ("", "before", "after"):
        table.add_column(name, justify="right" if name else "left")
    for name in ("loss", "calibration_error"):
        table.add_row(f"val/{name}", *(f"{calibration[f'{name}_{when}']:.4f}" for when in ("before", "after")))
    console.print(table)
    checkpoint = str(calibration["checkpoint"])
    console.print(f"stored in {printable(checkpoint)}", soft_wrap=True, highlight=False)
    options = [argument for argument in task_overrides() if name_of(argument) not in CALIBRATE]
    use = command("evaluate", *own_flags(), checkpoint, "calibrated=true", *options)
    console.print(f"use it    {use}", soft_wrap=True, highlight=False)


def print_predictions(batches: Iterable[Sequence[dict[str, Any]]]) -> None:
    """Print the most probable classes of each image, one line per image, until nobody reads them.

    The classes begin in one column, as far as the paths that have been printed so far are known.
    """
    width = 0
    for rows in batches:
        images = [printable(row["image"]) for row in rows]
        width = max([width, *map(cell_len, images)])
        for image, row in zip(images, rows, strict=True):
            classes = ", ".join(f"{each['class']} {each['probability']:.1%}" for each in row["classes"])
            classes += f"; set: {', '.join(row['set']) or 'empty'}" if "set" in row else ""
            print(f"{image}{' ' * (width - cell_len(image))}  {printable(classes)}")
        if not is_read():
            return


def print_export(exported: "Exported") -> None:
    """Print what was written, what the file takes and gives, and how it compares with the run's network."""
    console = Console(markup=False, emoji=False)
    for what, line in export_facts(exported).items():
        console.print(f"{what:12}{printable(line)}", soft_wrap=True, highlight=False)


def print_shared(shared: "Shared") -> None:
    """Print what was written, on what it was compared, and what to do with it."""
    console = Console(markup=False, emoji=False)
    folder = relative(shared.folder)
    facts = {
        "written": f"{folder}: {shared.size / 1e6:,.2f} MB of weights of {relative(shared.run.folder)}",
        "compared": f"on {shared.images}: all logits are those of the run, bit for bit, in float32 on the CPU",
        "card": f"{folder / 'README.md'}: read it, and complete what only you know",
        "predict": command("predict", str(folder), "photo.jpg"),
    }
    for what, line in facts.items():
        console.print(f"{what:12}{printable(line)}", soft_wrap=True, highlight=False)


def export_facts(exported: "Exported") -> dict[str, str]:
    """Return what was written, in words. A quantised network is another one, so that its accuracy and speed count."""
    from torch import get_num_threads

    from reslab.inference.export.comparison import TOLERANCE
    from reslab.text import counted

    height, width, channels = exported.image_shape
    comparison = exported.comparison
    changed = counted(comparison.changed, "changed answer")
    facts = {
        "written": f"{relative(exported.path)} ({exported.size / 1e6:,.2f} MB) of {relative(exported.checkpoint)}",
        "input": f"images: uint8 (N, {height}, {width}, {channels})",
        "outputs": f"probabilities, logits: float32 (N, {exported.classes})",
        "compared": f"on {exported.images}: {exported.runtime}, and the run's network in float32, both on the CPU",
        "difference": f"{comparison.difference:.1e} at most of a probability, {changed}",
    }
    if exported.speeds is None:
        facts["difference"] += f" (allowed: {TOLERANCE:g} and none)"
        return facts
    runtime = f"ONNX Runtime on this CPU, {counted(get_num_threads(), 'thread')}"
    before, after = (number / comparison.images for number in (comparison.right_before, comparison.right))
    facts["accuracy"] = f"{before:.4f} in float32, {after:.4f} in int8"
    for size, float32 in exported.speeds["float32"].items():
        int8 = exported.speeds["int8"][size]
        facts[f"batch {size}"] = f"{float32:.2f} ms in float32, {int8:.2f} ms in int8 ({runtime})"
    return facts

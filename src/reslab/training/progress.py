"""What a run shows while it trains: one line for each epoch, and on a terminal a bar for what runs at the moment."""

import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from reslab.machine import is_first_process
from reslab.training.checkpoints import BestCheckpoint, is_validated_in_training
from reslab.training.history import History
from reslab.training.pace import Pace, brief_duration, ends_by_steps

log = logging.getLogger(__name__)

SECONDS_BETWEEN_FRAMES = 0.1
BAR_WIDTH = 10  # characters that are kept free for the bar itself
Batch = TypeVar("Batch")
MARGIN = 6  # the gaps of the columns, and the `^C` of a terminal, which would begin another line

# lines


class EpochLines(Callback):
    """Log one line for each row of metrics.csv: training, seconds of training, validation, and whether it is the best.

    Args:
        history: has the rows.
        best: knows the best validation so far; None in a run that keeps no best checkpoint.
        validates: whether the run validates.
    """

    def __init__(self, history: History, best: BestCheckpoint | None, *, validates: bool) -> None:
        self.history, self.best, self.validates = history, best, validates
        self.shown = 0  # rows that have their lines
        self.has_header = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.shown = len(self.history.rows)  # those of a run that is resumed had their lines before

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.show_rows()  # of a validation within the epoch: it is known by now whether it was the best

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # An epoch without validation may be the last one, whose weights are validated after the training.
        if not self.validates or "val/loss" in self.history.rows[-1]:
            self.show_rows()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self.has_header:  # without it, a resumed run may not have begun, and its rows had their lines before
            self.show_rows()

    def show_rows(self) -> None:
        """Log the rows that have no lines yet."""
        while self.shown < len(self.history.rows):
            self.shown += 1
            self.show_row(self.history.rows[self.shown - 1])

    def show_row(self, row: Mapping[str, float]) -> None:
        """Log a row, below a header if it is the first one."""
        if not self.has_header:
            self.has_header = True
            log.info("%s", header(row))
        is_best = self.best is not None and "val/loss" in row and self.best.best_step == row["step"]
        log.info("%s", epoch_line(row) + " best" * is_best)


def header(row: Mapping[str, float]) -> str:
    """Return the names of the columns of `epoch_line`."""
    accuracy = "mixed" if "train/mixed_accuracy" in row else "accuracy"
    return f"epoch  train loss  {accuracy:>8}    time  val loss  accuracy"


def epoch_line(row: Mapping[str, float]) -> str:
    """Return a row of metrics.csv as a line of at most 60 characters with " best"; `time` is of training alone."""
    accuracy = row.get("train/mixed_accuracy", row.get("train/accuracy", 0.0))
    seconds = f"{row['train/epoch_seconds']:.{1 if row['train/epoch_seconds'] < 100 else 0}f} s"
    line = f"{row['epoch']:5.0f}  {row['train/loss']:10.4f}  {accuracy:8.4f}  {seconds:>6}"
    if "val/accuracy" in row:
        line += f"  {row['val/loss']:8.4f}  {row['val/accuracy']:8.4f}"
    return line


# the bar


def can_show_bar() -> bool:
    """Return whether this process may draw a bar: the first one of a run, on a terminal that can erase it."""
    return is_first_process() and sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


class ProgressBar(Callback):
    """Draw a bar for the training, validation or test that runs, and erase it at the end.

    Lines of the log appear above it. Nothing is drawn by another thread: worker processes would inherit its locks.

    Args:
        history: has the means over the epoch so far; None where nothing is trained.
        pace: knows how long the rest takes.
    """

    def __init__(self, history: History | None = None, pace: Pace | None = None) -> None:
        self.history, self.pace = history, pace
        self.progress: Progress | None = None

    # what runs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.show_training(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.show_training(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self.history is not None
        assert self.pace is not None
        self.advance(batch_idx + 1, running_values(self.history.running, self.pace.seconds_left))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch = f"{epoch_name(trainer)}  " if is_validated_in_training(trainer) else ""
        self.begin(f"{epoch}validation", sum(map(int, trainer.num_val_batches)))

    def on_validation_batch_end(self, trainer: L.Trainer, *others: Any, batch_idx: int = 0, **named: Any) -> None:
        self.advance(self.done + 1)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_validated_in_training(trainer):
            self.show_training(trainer)
        else:
            self.erase()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.begin("test", sum(map(int, trainer.num_test_batches)))

    def on_test_batch_end(self, trainer: L.Trainer, *others: Any, **named: Any) -> None:
        self.advance(self.done + 1)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.erase()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.erase()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.erase()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.erase()

    def show_training(self, trainer: L.Trainer) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        self.begin(f"{epoch_name(trainer)}  training", int(trainer.num_training_batches), done)

    # drawing

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Draw the bar for something else than before."""
        if self.progress is None:
            self.start()
        assert self.progress is not None
        self.progress.update(self.task, description=what, total=total, values="")
        self.drawn_at = 0.0
        self.advance(done)

    def advance(self, done: int, values: Iterable[str] = ()) -> None:
        """Draw the bar again, unless it was drawn a moment ago."""
        self.done = done
        if self.progress is None or time.monotonic() - self.drawn_at < SECONDS_BETWEEN_FRAMES:
            return
        self.drawn_at = time.monotonic()
        task = self.progress.tasks[0]
        room = self.progress.console.width - len(f"{task.description}{done}/{task.total}") - MARGIN
        shown = fitting(values, room - BAR_WIDTH)
        self.bar.bar_width = max(1, room - len(shown))
        self.progress.update(self.task, completed=done, values=shown)
        self.progress.refresh()

    def start(self) -> None:
        stream = sys.stdout
        self.bar = BarColumn()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            self.bar,
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[values]}", markup=False),
            console=Console(emoji=False, highlight=False),
            auto_refresh=False,
            transient=True,
        )
        self.task = self.progress.add_task("", values="")
        self.progress.start()
        redirect_log(stream, sys.stdout)  # Rich has put a stream in its place that writes above the bar

    def erase(self) -> None:
        if self.progress is not None:
            stream = sys.stdout
            self.progress.stop()
            redirect_log(stream, sys.stdout)
            self.progress = None


def with_bar(
    batches: Iterable[Batch], what: str, total: int, images: Callable[[Batch], int]
) -> Generator[Batch, None, None]:
    """Yield batches, and draw a bar meanwhile if this process may.

    Args:
        batches: what to yield.
        what: the name of what runs.
        total: how many images there are.
        images: returns how many of them a batch has.
    """
    if not can_show_bar():
        yield from batches
        return
    bar, start = ProgressBar(), time.monotonic()
    bar.begin(what, total)
    try:
        for batch in batches:
            yield batch
            done = bar.done + images(batch)
            seconds = time.monotonic() - start
            left = brief_duration((total - done) / done * seconds)
            bar.advance(done, [f"{left} left", f"{done / seconds:,.0f} images/s"])
    finally:
        bar.erase()


def epoch_name(trainer: L.Trainer) -> str:
    last = "" if ends_by_steps(trainer) else f"/{trainer.max_epochs}"
    return f"epoch {trainer.current_epoch + 1}{last}"


def running_values(running: Mapping[str, float], seconds_left: float | None) -> Iterator[str]:
    """Yield what a bar says beside the training, the most important first."""
    if seconds_left is not None:
        yield f"{brief_duration(seconds_left)} left"
    if running:
        yield f"so far loss {running['loss']:.3f}"
        for name in running:
            if name.endswith("accuracy"):
                yield f"{name.replace('_', ' ')} {running[name]:.3f}"
        yield f"{running['images_per_second']:,.0f} images/s"


def fitting(parts: Iterable[str], room: int) -> str:
    """Return the first parts that fit into the room, joined."""
    text = ""
    for part in parts:
        longer = f"{text}, {part}" if text else part
        if len(longer) > room:
            break
        text = longer
    return text


def redirect_log(before: Any, after: Any) -> None:
    """Let the log write to another stream where it wrote to the one before."""
    for logger in (logging.getLogger(), logging.getLogger("reslab")):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.setStream(after)

"""The run that the tests disturb, and what it is when nothing disturbs it."""

from pathlib import Path
from typing import NamedTuple

from faults.harness import Ended, is_one_line, reslab
from outcomes import Outcome, differing, outcome_of

from reslab.run import Run

# Three steps in each of two epochs, of a network that writes few bytes.
TINY = (
    "model=resnet8", "model.widths=[4,4,4]", "data=digits", "trainer=cpu", "trainer.precision=32-true",
    "trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1", "trainer.log_every_n_steps=1",
)  # fmt: skip
VARIANTS = {
    "plain": ("logger=none",),
    "often": ("logger=none", "checkpoint.every_minutes=1e-9"),  # a checkpoint after each step
    "tensorboard": ("logger=tensorboard",),  # whose files a thread writes
}


class Undisturbed(NamedTuple):
    variant: str
    operations: list[str]
    outcome: Outcome


def train(folder: Path, variant: str, *arguments: str, at: int | str | None = None, fault: str = "") -> Ended:
    return reslab(folder, "train", f"hydra.run.dir={folder}", *TINY, *VARIANTS[variant], *arguments, at=at, fault=fault)


def undisturbed_run(folder: Path, variant: str) -> Undisturbed:
    ended = train(folder, variant)
    assert ended.status == 0, ended.output
    return Undisturbed(variant, ended.operations, outcome_of(folder))


def resuming(folder: Path, variant: str, outcome: Outcome) -> list[str]:
    """Resume a run, or start it again if it had not begun, and return what is wrong."""
    ended = reslab(folder, "train", f"resume={folder}")
    if ended.status == 2 and is_one_line(ended.output) and not Run(folder).has_begun:
        ended = train(folder, variant)
    if ended.status != 0:
        return [f"does not resume, status {ended.status}: {ended.output}"]
    return [f"differs: {', '.join(different[:5])}"] if (different := differing(outcome_of(folder), outcome)) else []

"""What a network answered to each image of a test, and the file in a run's folder that holds it."""

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from reslab.data.splits import Split, SplitName
from reslab.errors import UserError
from reslab.files import write_bytes
from reslab.models.weights import describe_load_error
from reslab.training.confusion import Confusion
from reslab.training.metrics import without_accidental_hits

MAX_NUMBERS = 2**28  # of the logits of a test: 1 GiB. Of more, none are kept.


@dataclass(frozen=True)
class Answers:
    """The logits of a network for the images of a test, in the order of the data set.

    Every value follows the rules of the test's metrics (metrics.py): the mean of `right` is "test/accuracy", that of
    `losses` "test/loss".

    Attributes:
        logits: float32 (N, C).
        labels: int64 (N,), the true classes.
        indices: int64 (N,), ascending: the numbers of the images in the list of their split, `Split.images`.
        classes: the names of the C classes.
        files: the file of each image, relative to the folder of the data set if it is in it; None for images that were
            not read from files.
        split: which images of the data set they are.
    """

    logits: Tensor
    labels: Tensor
    indices: Tensor
    classes: Sequence[str]
    files: Sequence[str] | None = None
    split: SplitName = "test"

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, positions: Tensor) -> "Answers":
        """Return the answers at these positions, int64 (M,), in their order."""
        return replace(
            self,
            logits=self.logits[positions],
            labels=self.labels[positions],
            indices=self.indices[positions],
            files=None if self.files is None else [self.files[position] for position in positions.tolist()],
        )

    @cached_property
    def probabilities(self) -> Tensor:
        """Of each class, float32 (N, C)."""
        return self.logits.softmax(1)

    @cached_property
    def predicted(self) -> Tensor:
        """The most probable class of each image, int64 (N,). It is wrong where the logits have no softmax."""
        return without_accidental_hits(self.logits, self.labels).argmax(1)

    @cached_property
    def confidence(self) -> Tensor:
        """The probability of the predicted class, float32 (N,)."""
        return self.probabilities.gather(1, self.predicted[:, None])[:, 0]

    @cached_property
    def losses(self) -> Tensor:
        """The cross-entropy of each image, float32 (N,)."""
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    @cached_property
    def right(self) -> Tensor:
        """Whether each image was classified correctly, bool (N,)."""
        return self.predicted == self.labels

    @cached_property
    def confusion(self) -> Confusion:
        """How often each pair of a true and a predicted class occurred."""
        codes = self.labels * len(self.classes) + self.predicted
        return Confusion.of_codes([codes], len(self.classes))

    @property
    def names(self) -> list[str]:
        """What each image is called: its file, or its number, e.g. "test 17"."""
        return [f"{self.split} {index}" for index in self.indices.tolist()] if self.files is None else list(self.files)


def with_files(answers: Answers, split: Split, root: Path) -> Answers:
    """Add the files of the images, if the split has files.

    Args:
        answers: to images of the split.
        split: the test images.
        root: the folder of the data set.
    """
    if split.files is None:
        return answers
    prefix = f"{root}{os.sep}"
    return replace(answers, files=[split.files[index].removeprefix(prefix) for index in answers.indices.tolist()])


def write_answers(path: Path, answers: Answers, step: int) -> None:
    """Write the answers of the weights of a step of training. Raises OSError."""
    tensors = {name: getattr(answers, name).contiguous() for name in ("logits", "labels", "indices")}
    if answers.files is not None:
        # No name of a file has a zero byte.
        joined = b"".join(os.fsencode(file) + b"\0" for file in answers.files)
        tensors["files"] = torch.frombuffer(bytearray(joined), dtype=torch.uint8)
    write_bytes(path, save(tensors, {"step": str(step), "classes": json.dumps(list(answers.classes))}))


def read_answers(path: Path) -> tuple[Answers, int]:
    """Read what `write_answers` has written.

    Returns:
        The answers, and the step of the weights.

    Raises:
        UserError: there is no such file, or it is not one of ResLab.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")  # to open a pipe would wait for its other end
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
        step, classes = int(metadata["step"]), json.loads(metadata["classes"])
        files = tensors.pop("files", None)
        answers = Answers(**tensors, classes=classes, files=None if files is None else listed_files(files))
        consistent = is_consistent(answers)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: only a test by this version or a newer one writes it") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read: {describe_load_error(error)}") from error
    except (KeyError, TypeError, ValueError, RecursionError):
        consistent = False
    if not consistent:
        raise UserError(f"{path} does not hold the answers of a test")
    return answers, step


def listed_files(joined: Tensor) -> list[str]:
    return [os.fsdecode(name) for name in joined.numpy().tobytes().split(b"\0")[:-1]]


def is_consistent(answers: Answers) -> bool:
    """Return whether values that a file holds have the kinds and the sizes of answers."""
    logits, labels, indices, classes = answers.logits, answers.labels, answers.indices, answers.classes
    names: list[Any] = [*classes, *(answers.files or ())] if isinstance(classes, list) else [None]
    return (
        all(isinstance(name, str) for name in names)
        and logits.dtype == torch.float32
        and labels.dtype == indices.dtype == torch.int64
        and logits.shape == (len(labels), len(classes))
        and indices.shape == labels.shape == (len(answers.files) if answers.files is not None else len(labels),)
        and bool((indices[1:] > indices[:-1]).all())
        and (len(labels) == 0 or (int(labels.min()) >= 0 and int(labels.max()) < len(classes)))
    )

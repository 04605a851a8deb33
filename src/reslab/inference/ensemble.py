"""Several networks as one: the mean of their probabilities (Lakshminarayanan et al. 2017, arXiv:1612.01474)."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from reslab.configuration import as_list
from reslab.data.images import first_few
from reslab.errors import UserError
from reslab.inference.test_data import LISTED_CLASSES, positions_by_name
from reslab.newest import require_checkpoint
from reslab.run import FINISHED, SWEEP_FILE, Run
from reslab.training.answers import Answers

log = logging.getLogger(__name__)


# which networks


def members_of(checkpoint: str | Sequence[str]) -> list[str]:
    """Return the paths that the option `checkpoint` stands for. The folder of a sweep stands for its finished runs.

    Raises:
        UserError: one of several paths stands for no checkpoint, two stand for one, or a sweep has no finished run.
    """
    members = [member for path in as_list(checkpoint) for member in runs_of_sweep(path) or [path]]
    files = [require_checkpoint(member).resolve() for member in members] if len(members) > 1 else []
    if twice := [file for number, file in enumerate(files) if file in files[:number]]:
        raise UserError(f"checkpoint: {twice[0]} is named twice, and would count twice in the mean: leave one out")
    return members


def runs_of_sweep(folder: str | Path) -> list[str]:
    """Return the folders of the finished runs of a sweep; nothing for what is not the folder of a sweep."""
    folder = Path(folder)
    if not (folder / SWEEP_FILE).is_file() or Run(folder).has_checkpoint:
        return []
    runs = sorted(Run.below(folder), key=lambda run: run.folder)
    finished = [run for run in runs if run.status == FINISHED and run.has_checkpoint]
    if not finished:
        raise UserError(f"checkpoint={folder}: the sweep has no finished run with a checkpoint")
    if others := [f"{run.folder.name} ({run.status})" for run in runs if run not in finished]:
        log.warning("left out runs of the sweep that are not finished: %s", first_few(others))
    log.info("%s is a sweep: the probabilities of its %d finished runs are averaged", folder, len(finished))
    return [str(run.folder) for run in finished]


# what they answer together


def mean_logits(members: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean of the members' probabilities, float32 (N, C): its softmax is that mean.

    Args:
        members: the logits of each, float (N, C).
    """
    log_probabilities = torch.stack([logits.double().log_softmax(1) for logits in members])
    return (log_probabilities.logsumexp(0) - math.log(len(members))).float()


def class_order(classes: Sequence[str], of_first: Sequence[str], member: str) -> list[int]:
    """Return, for each class of the first network, which class of another member it is.

    Raises:
        UserError: the members do not know the same classes.
    """
    found, back = positions_by_name(of_first, classes), positions_by_name(classes, of_first)
    if sorted(found) == [[position] for position in range(len(classes))]:
        return [position for (position,) in found]
    other = [name for name, positions in zip((*of_first, *classes), (*found, *back), strict=True) if not positions]
    why = f"only one of them knows {first_few(other, LISTED_CLASSES)}" if other else "several classes have one name"
    raise UserError(
        f"{member} does not know the same classes as the first checkpoint, so that their probabilities have no mean: "
        f"{why}"
    )


def averaged(members: Sequence[Answers], checkpoints: Sequence[str]) -> tuple[Answers, list[Answers]]:
    """Average what several networks answered to the images that all of them were tested on.

    Args:
        members: their answers. The images are known by their files, or in memory by their numbers.
        checkpoints: their files, for messages.

    Returns:
        The answers of the ensemble, and those of each member to the same images, with the classes of the first one.

    Raises:
        UserError: they have no images or not the same classes in common, or the true classes differ.
    """
    keys = [list(member.files) if member.files is not None else member.indices.tolist() for member in members]
    common = set(keys[0]).intersection(*keys[1:])
    if not common:
        raise UserError(
            "no image was tested by all of the networks: each was trained on some, or they test other images; give "
            "images that none was trained on, data=… data.root=…"
        )
    first, aligned = members[0], list[Answers]()
    chosen = [place for place, key in enumerate(keys[0]) if key in common]
    for member, own, checkpoint in zip(members, keys, checkpoints, strict=True):
        order = class_order(member.classes, first.classes, checkpoint)
        place = {key: number for number, key in enumerate(own)}
        rows = torch.tensor([place[keys[0][number]] for number in chosen])
        of_first = torch.tensor(order).argsort()[member.labels[rows]]  # int64 (N,), with the classes of the first
        if not of_first.equal(first.labels[chosen]):
            raise UserError(f"{checkpoint} was tested on other images than the first checkpoint: their classes differ")
        aligned.append(
            replace(
                first, logits=member.logits[rows][:, order], labels=of_first, indices=first.indices[chosen],
                files=None if first.files is None else [first.files[number] for number in chosen],
            )
        )  # fmt: skip
    return replace(aligned[0], logits=mean_logits([member.logits for member in aligned])), aligned

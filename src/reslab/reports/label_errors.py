"""Images whose label may be wrong: confident learning on a cross-validation (Northcutt et al. 2021, arXiv:1911.00068).

Each image is judged by networks that were not trained on it. cleanlab compares what they answer with the labels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.base import ImageDataModule
from reslab.data.images import first_few
from reslab.errors import UserError
from reslab.inference.evaluation import test_network
from reslab.inference.options import EVALUATE_SCHEMA
from reslab.reports.entries import runs_below
from reslab.reports.reading import UnreadableError, checked_config, checked_result, fold_of
from reslab.reports.settings import comparable_settings, data_set, differing_settings
from reslab.run import FINISHED, Result, Run, tested_step
from reslab.training.answers import Answers, read_answers

ADVICE = "train with -m data.folds=5 'data.fold=range(5)'"


@dataclass(frozen=True)
class Fold:
    """The images of one fold, and what networks answered that were not trained on them.

    Attributes:
        number: of the fold, from 0.
        run: one of the runs that left the fold out.
        answers: of that run: the labels, the classes and the files.
        probabilities: float64 (N, C), the mean over all runs that left the fold out.
        data: the data set, with the fold as its test split, where the fold was tested again; otherwise None.
    """

    number: int
    run: Run
    answers: Answers
    probabilities: NDArray[np.float64]
    data: ImageDataModule | None

    @cached_property
    def names(self) -> list[str]:
        """What each image is called: its file, or its number in the fold, e.g. "fold 2: test 17"."""
        names = self.answers.names
        return names if self.answers.files is not None else [f"fold {self.number}: {name}" for name in names]


class Suspect(NamedTuple):
    """An image whose label may be wrong.

    Attributes:
        fold: the position of its fold in the list of folds.
        position: its position in the answers of the fold.
        given: the number of its class.
        suggested: the number of the most probable class.
        given_probability: of its class. Suspects are ranked by it, the least probable label first.
        suggested_probability: of the most probable class.
    """

    fold: int
    position: int
    given: int
    suggested: int
    given_probability: float
    suggested_probability: float


class Suspects(NamedTuple):
    """What `find_suspects` finds.

    Attributes:
        ranked: the suspects, the first one first.
        estimate: how many labels cleanlab estimates to be wrong.
    """

    ranked: list[Suspect]
    estimate: int


class Member(NamedTuple):
    """One run of a cross-validation, with its configuration and its result."""

    run: Run
    config: dict[str, Any]
    result: Result


# the folds


def read_folds(folder: Path, root: str | None, device: str) -> list[Fold]:
    """Read what the runs of a cross-validation answered to the images that they left out.

    Args:
        folder: of the runs.
        root: the folder of their data set, if it has moved.
        device: for folds that must be tested again: see `answers_of`.

    Raises:
        UserError: the runs are not those of one cross-validation, a fold is missing, or an image is in two folds.
    """
    members = read_members(folder)
    numbers = range(members[0].config["data"]["folds"])
    by_fold = {number: [each for each in members if each.config["data"]["fold"] == number] for number in numbers}
    if missing := [str(number) for number, found in by_fold.items() if not found]:
        raise UserError(f"fold {first_few(missing)} of {len(numbers)} has no run in {folder}: {ADVICE}")
    folds = [read_fold(number, found, root, device) for number, found in by_fold.items()]
    require_equal([(fold.run, list(fold.answers.classes)) for fold in folds], "other classes")
    names = Counter(name for fold in folds for name in fold.names)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise UserError(f"{repeated[0]} is in two folds: the images have changed between the runs of {folder}")
    return folds


def read_members(folder: Path) -> list[Member]:
    """Return the runs of a cross-validation.

    Raises:
        UserError: they are not all finished, of the same images and of one configuration, each of another seed or fold.
    """
    members = []
    for run in runs_below(folder):
        try:
            config = checked_config(run)
            result = checked_result(run, [])
        except UnreadableError as error:
            raise UserError(f"{run.folder}: {error}") from error
        if fold_of(config) is None:
            raise UserError(f"{run.folder} is no run of a cross-validation: {ADVICE}")
        if result["status"] != FINISHED:
            raise UserError(f"{run.folder} is {result['status']}, and each fold needs finished runs alone")
        members.append(Member(run, config, result))
    settings = [(each.run, comparable_settings(each.config)) for each in members]
    images = [(run, data_set({**of_run, "data.root": None})) for run, of_run in settings]  # wherever each run had them
    require_equal(images, "another data set")
    require_equal([(each.run, each.result.get("fold_split")) for each in members], "another kind of fold")
    if names := differing_settings([{**of_run, "data.root": None} for _, of_run in settings]):
        raise UserError(
            f"the runs of {folder} are of several configurations, which differ in {first_few(names)}: give the runs of "
            "one, which may have several seeds"
        )
    found: dict[tuple[int, int], Run] = {}
    for each in members:
        earlier = found.setdefault((each.config["seed"], each.config["data"]["fold"]), each.run)
        if earlier is not each.run:
            raise UserError(
                f"{earlier.folder} and {each.run.folder} have the same seed and fold: give the runs of one "
                "cross-validation"
            )
    return members


def require_equal(values: Sequence[tuple[Run, Any]], what: str) -> None:
    """Raise UserError unless all runs have the same value."""
    first, expected = values[0]
    for run, value in values[1:]:
        if value != expected:
            raise UserError(f"{run.folder} has {what} than {first.folder}: give the runs of one cross-validation")


def read_fold(number: int, members: Sequence[Member], root: str | None, device: str) -> Fold:
    """Return the answers of the runs that left out one fold. Raises UserError."""
    if members[0].result.get("fold_split") == "val":  # otherwise the checksum depends on the seed, which divides them
        checksums = [(each.run, each.result.get("data_checksum")) for each in members]
        require_equal(checksums, "other images (data_checksum)")
    read = [answers_of(each, root, device) for each in members]
    first, data = read[0]
    for member, (answers, _) in zip(members[1:], read[1:], strict=True):
        same = answers.classes == first.classes and answers.names == first.names
        if not same or not torch.equal(answers.labels, first.labels):
            raise UserError(f"{member.run.folder} has other images in its fold than {members[0].run.folder}")
    probabilities = np.mean([answers.probabilities.double().numpy() for answers, _ in read], axis=0)
    if not np.isfinite(probabilities).all():
        raise UserError(f"{members[0].run.folder}: a network of this fold answers NaN")
    return Fold(number, members[0].run, first, probabilities, data)


def answers_of(member: Member, root: str | None, device: str) -> tuple[Answers, ImageDataModule | None]:
    """Return what a run answered to the fold that it left out.

    If the fold was its test, these are the answers of the test. If the fold was its validation, because the data set
    has test images of its own, the images of the fold are tested now.

    Returns:
        The answers, and the data set if it was read.

    Raises:
        UserError: there are no answers, or not to all images of the fold.
    """
    run, result = member.run, member.result
    if result.get("fold_split") == "val":
        return tested_again(run, root, device)
    answers, step = read_answers(run.answers_file)
    if step != (tested := tested_step(result)):
        raise UserError(f"{run.answers_file} is of step {step}, and the result of the run of step {tested}")
    unreadable, available = (result.get(f"test/images_{kind}", 0) for kind in ("unreadable", "available"))
    if not len(answers) == result.get("test/images") == available - unreadable:
        raise UserError(f"{run.folder} has tested a part of its fold: leave trainer.limit_test_batches out")
    return answers, None


def tested_again(run: Run, root: str | None, device: str) -> tuple[Answers, ImageDataModule]:
    given = {"checkpoint": run.checkpoint(), "split": "val", "root": root, "device": device}
    config = EVALUATE_SCHEMA.compose(given | {"trainer.enable_progress_bar": False})
    evaluation = test_network(config, run.config_dir)
    if evaluation.answers is None:
        raise UserError(f"{run.folder}: the answers to all images of the fold are too many to keep in memory")
    return evaluation.answers, evaluation.data


# the suspects


def find_suspects(folds: Sequence[Fold]) -> Suspects:
    """Return the images whose most probable class is not their label, the least probable label first.

    Raises:
        UserError: cleanlab is not installed.
    """
    try:
        from cleanlab.count import num_label_issues
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise UserError("finding label errors needs cleanlab: pip install -e '.[label_errors]'") from error
    labels = np.concatenate([fold.answers.labels.numpy() for fold in folds])
    probabilities = np.concatenate([fold.probabilities for fold in folds])
    places = [(number, position) for number, fold in enumerate(folds) for position in range(len(fold.answers))]
    # cleanlab's other filters leave out as many as it estimates to be right. Of 20 wrong labels among 1,797 digits they
    # found 15 or 16; this one has all 20 in its first 20 places (tests/reports/test_label_errors.py).
    ranked = find_label_issues(
        labels, probabilities, filter_by="predicted_neq_given", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    suspects = []
    for index in ranked.tolist():
        (fold, position), row, given = places[index], probabilities[index], int(labels[index])
        suggested = int(row.argmax())
        suspects.append(Suspect(fold, position, given, suggested, float(row[given]), float(row[suggested])))
    return Suspects(suspects, int(num_label_issues(labels, probabilities)))

"""The end of a run: its result, and what keeps the result besides."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import lightning as L

from reslab.errors import one_line
from reslab.run import Result, Run, resume_argument, tested_step
from reslab.training.adapters import Adapter
from reslab.training.answers import Answers, write_answers
from reslab.training.classifier import Classifier
from reslab.training.options import TEST_METRICS
from reslab.training.texts_and_pictures import LogTextsAndPictures

log = logging.getLogger(__name__)

HPARAMS_METRICS = ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "train/loss", "train/seconds")


@contextmanager
def without_loggers(trainer: L.Trainer) -> Iterator[None]:
    """Let no logger take what is measured in the block. It gets it from `finish`, after the result."""
    loggers, trainer.loggers = trainer.loggers, []
    try:
        yield
    finally:
        trainer.loggers = loggers


def finish(
    run: Run,
    classifier: Classifier,
    adapters: Mapping[str, Adapter],
    result: Result,
    *,
    epoch: int,
    last: Mapping[str, float],
    pictures: Sequence[LogTextsAndPictures],
    answers: Answers | None,
    pruned: bool,
) -> Result:
    """Write the result, which ends the run, and then the answers of the test and what each logger takes of the end.

    A server may be gone, or the disk too full for the answers. That is a warning, because the result is there. As long
    as something is missing, the result names it as "unwritten", and a resumed run tests again and writes it.

    Args:
        run: the run.
        classifier: its network.
        adapters: its loggers by their names.
        result: the content of result.json without its status.
        epoch: the number of complete epochs, by which Lightning's loggers call the points at the end.
        last: the metrics of the last weights if they were validated after the training, which no logger knows.
        pictures: the callbacks that have pictures of the test.
        answers: those of the test; None if they are not kept.
        pruned: whether a search has stopped the run.

    Returns:
        The result as it was written.

    Raises:
        OSError: result.json cannot be written.
    """
    give = partial(give_end, classifier, result, epoch, last, pictures)
    parts = {f"logger.{name}": partial(give, adapter) for name, adapter in adapters.items()}
    if answers is not None:
        write = partial(write_answers, run.answers_file, answers, tested_step(result))
        parts = {run.answers_file.name: write} | parts
    if not parts:
        return run.finish(result, pruned=pruned)
    written = run.finish(result | {"unwritten": [*parts]}, pruned=pruned)
    unwritten = []
    for name, write in parts.items():
        try:
            write()
        except Exception as error:  # whatever a library of a logger raises
            unwritten.append(name)
            log.debug("%s failed", name, exc_info=error)
            log.warning(
                "the result was written, but not to %s (%s): %s tests again and writes it",
                name, one_line(error, "config"), resume_argument(run.folder),
            )  # fmt: skip
    if unwritten == written["unwritten"]:
        return written
    return run.finish(result | ({"unwritten": unwritten} if unwritten else {}), pruned=pruned)


def give_end(
    classifier: Classifier,
    result: Result,
    epoch: int,
    last: Mapping[str, float],
    pictures: Sequence[LogTextsAndPictures],
    adapter: Adapter,
) -> None:
    """Give a logger the graph of the network, the last points of curves, the pictures of the test, and the result."""
    steps = result["steps"]
    if pictures:
        adapter.graph(classifier)
    tested = {name: result[name] for name in TEST_METRICS if name in result}
    for points in (last, tested):
        if points:
            adapter.logger.log_metrics({"epoch": epoch, **points}, step=steps)
    if tested:
        for each in pictures:
            each.give_figures(adapter, classifier, steps)
    adapter.logger.finalize("success")
    metrics = {name: result[name] for name in HPARAMS_METRICS if name in result}
    adapter.result(classifier.record["config"], metrics, steps)

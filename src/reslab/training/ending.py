"""The end of a run: its result, and what keeps the result besides."""

import logging
from collections.abc import Mapping
from functools import partial

from reslab.errors import one_line
from reslab.run import Result, Run, resume_argument, tested_step
from reslab.training.adapters import Adapter
from reslab.training.answers import Answers, write_answers
from reslab.training.classifier import Classifier

log = logging.getLogger(__name__)

HPARAMS_METRICS = ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "train/loss", "train/seconds")


def finish(
    run: Run,
    classifier: Classifier,
    adapters: Mapping[str, Adapter],
    result: Result,
    *,
    answers: Answers | None,
    pruned: bool,
) -> Result:
    """Write the result, which ends the run, and then the answers of the test and the final metrics of each logger.

    A server may be gone, or the disk too full for the answers. That is a warning, because the result is there. As long
    as something is missing, the result names it as "unwritten", and a resumed run tests again and writes it.

    Args:
        run: the run.
        classifier: its network.
        adapters: its loggers by their names.
        result: the content of result.json without its status.
        answers: those of the test; None if they are not kept.
        pruned: whether a search has stopped the run.

    Returns:
        The result as it was written.

    Raises:
        OSError: result.json cannot be written.
    """
    metrics = {name: result[name] for name in HPARAMS_METRICS if name in result}
    config, steps = classifier.record["config"], result["steps"]
    parts = {f"logger.{name}": partial(each.result, config, metrics, steps) for name, each in adapters.items()}
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

"""The logger of TensorBoard: the names of its curves, and an error of the thread that writes its files."""

import inspect
import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)
show_thread_error = threading.excepthook

# TensorBoard shows tags in groups by their first part, in alphabetical order, and opens the first two of them.
SCORE = re.compile(r"(train|val)/(loss|\w*accuracy)$")
CHARTS = {
    name: ["Multiline", [rf"(mixed_)?{name}/(train|val)$", rf"(train|val)/(mixed_)?{name}$"]]
    for name in ("accuracy", "loss")
}
LAYOUT = {"training and validation": CHARTS}  # of the tab "Custom Scalars": the tags in each chart


class TensorBoardCurves(TensorBoardLogger):
    """Write curves for TensorBoard, which then opens on accuracy and loss.

    Lightning's logger would also write the number of the epoch as a curve, and an empty hparams.yaml.

    Args:
        group_by: "metric" for the tags `loss/train` and `loss/val`; "split" for `train/loss` and `val/loss`.
        **options: those of TensorBoardLogger, and those of SummaryWriter.

    Raises:
        TypeError: there is no such option.
    """

    def __init__(self, *, group_by: str, **options: Any) -> None:
        super().__init__(**options)
        inspect.signature(SummaryWriter).bind_partial(**self._kwargs)  # before the run has begun
        self.group_by = group_by

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({self.tag(name): value for name, value in metrics.items() if name != "epoch"}, step)

    def tag(self, name: str) -> str:
        return SCORE.sub(r"\2/\1", name) if self.group_by == "metric" else name

    @rank_zero_only
    def save(self) -> None:
        if self._experiment is not None:  # else a run that a mistake ends before it trains would get a file
            self._experiment.flush()


def log_writer_error(arguments: threading.ExceptHookArgs) -> None:
    """Log an error of the thread that writes TensorBoard's files, and show an error of any other thread.

    The thread keeps its error, and the training raises it when it writes or saves next.
    """
    if type(arguments.thread).__name__ == "_AsyncWriterThread":
        log.debug("TensorBoard's files cannot be written", exc_info=arguments.exc_value)
    else:
        show_thread_error(arguments)


threading.excepthook = log_writer_error

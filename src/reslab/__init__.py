"""ResLab: a laboratory for residual networks.

import reslab

run = reslab.train("model=resnet8", "trainer.max_epochs=2")
run.result["test/accuracy"]
run = reslab.load("outputs/resnet20-digits/2026-01-31_12-00-00")
run.predict(["a.png", "b.png"])
network = run.classifier()
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reslab.errors import RunError, UserError
    from reslab.run import Run

__all__ = ["Run", "RunError", "UserError", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import a class when it is used. A command handles Ctrl-C before it imports what takes long."""
    if name == "Run":
        from reslab.run import Run

        return Run
    if name in ("RunError", "UserError"):
        from reslab import errors

        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(folder: str | Path, config_dir: str | Path | None = None) -> "Run":
    """Return the run in a folder.

    Args:
        folder: a run's folder, e.g. outputs/resnet20-digits/2026-01-31_12-00-00; a checkpoint in it; a folder of runs,
            which stands for the newest of them that has a checkpoint; "latest", the newest below outputs; or
            zoo/<name>, a network of docs/zoo.
        config_dir: your own folder of configuration, if the run's network or data set is a class of your own.

    Returns:
        The run, whatever its status is. Its files are read when they are asked for.

    Raises:
        UserError: the folder is not that of a run and holds none with a checkpoint.

    Example:
        >>> import reslab
        >>> reslab.load("outputs/nowhere")
        Traceback (most recent call last):
        reslab.errors.UserError: outputs/nowhere does not exist
    """
    from reslab.newest import require_run
    from reslab.run import Run, checked_config_dir

    return Run(require_run(folder), checked_config_dir(config_dir))


def train(*overrides: str, config_dir: str | Path | None = None) -> "Run":
    """Train a network, test it, and return its run, as `python src/train.py <overrides>` does.

    Args:
        overrides: options as on the command line, one string each: "model=resnet18", "data.batch_size=64",
            "resume=auto".
        config_dir: your own folder of configuration, with files such as model/mine.yaml; `--config-dir` of the command.

    Returns:
        The finished run.

    Raises:
        UserError: an option is wrong.
        RunError: the run has failed, e.g. its loss is no longer finite; the message says what may help.
        KeyboardInterrupt: Ctrl-C, or the interrupt of a notebook, ended the run. `resume=<its folder>` continues it.

    Example:
        >>> import reslab
        >>> run = reslab.train("model=resnet8", "trainer.max_epochs=2", "trainer=cpu")  # doctest: +ELLIPSIS
        resnet8 on digits: loading …
        ...
        >>> run.result["epochs"], run.metrics[0].keys() >= {"train/loss", "val/accuracy"}
        (2, True)
        >>> reslab.load(run.folder).status
        'finished'
    """
    from reslab.commands.python import train

    return train(overrides, config_dir)

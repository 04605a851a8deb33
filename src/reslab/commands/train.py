"""Train a residual network on a data set: `reslab train --help`."""

from typing import TYPE_CHECKING

from reslab.commands.main import run

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_train(config: "DictConfig") -> float | list[float | None] | None:
    """Train one run, print its result, and return what a sweeper of Hydra optimizes."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from reslab.interruption import signals

    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_result
        from reslab.training.fit import train  # torch and lightning, once the configuration is known to be right

    result = train(config)
    if HydraConfig.get().mode == RunMode.RUN:  # a sweep ends with a table of all its jobs instead
        print_result(result)
    if isinstance(config.objective, str):
        return result.get(config.objective)
    return [result.get(name) for name in config.objective]


def main() -> None:
    from reslab.commands.entry import command
    from reslab.training.options import TRAINING_SCHEMA

    command(TRAINING_SCHEMA, run_train)


if __name__ == "__main__":  # the processes of a run and the jobs of a sweep start this file
    run("train")

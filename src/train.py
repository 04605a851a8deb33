"""Train a residual network on a data set: python src/train.py --help."""

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from reslab.command import command


def train(config: DictConfig) -> float | list[float | None] | None:
    from reslab import training  # torch and lightning, once the configuration is known to be good
    from reslab.results import print_result

    result = training.train(config)
    if HydraConfig.get().mode == RunMode.RUN:  # a sweep ends with a table of all its jobs instead
        print_result(result)
    if isinstance(config.objective, str):
        return result.get(config.objective)
    return [result.get(name) for name in config.objective]


if __name__ == "__main__":
    command("config", train)

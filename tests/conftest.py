"""What every test file shares: composed configurations, and the places of real data that may be absent."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import reslab.command  # registers the resolvers that conf/config.yaml uses

CONF = reslab.command.CONF
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
SHARED_DATA = os.environ.get("RESLAB_SHARED_DATA")

needs_fashion_mnist = pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is absent")
needs_shared_data = pytest.mark.skipif(SHARED_DATA is None, reason="RESLAB_SHARED_DATA is not set")


def names(group: str) -> list[str]:
    """Every choice of a group in conf/."""
    return sorted(path.stem for path in (CONF / group).glob("[!_]*.yaml"))


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """The configuration of `python src/train.py <overrides>`, its run folder in a temporary place."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *overrides: compose("config", overrides=[f"folder={tmp_path}", *overrides])


# Tests train tiny networks: one thread is as fast, and two processes at once do not then wait for each other's threads
torch.set_num_threads(1)

import pytest
import torch


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no NVIDIA GPU, or it is hidden: tests/conftest.py")
    torch.cuda.init()  # the statistics of the memory need it

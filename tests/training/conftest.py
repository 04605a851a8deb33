from types import SimpleNamespace
from typing import Any

import pytest
from outcomes import read_events


@pytest.fixture(scope="session")
def events(trained: SimpleNamespace) -> Any:
    """What TensorBoard shows of `trained`."""
    return read_events(trained.folder)

from collections.abc import Iterator

import pytest
from faults.harness import start_server


@pytest.fixture(scope="session", autouse=True)
def server() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        start_server(patch)
        yield

"""A run of which any one file operation fails ends in one line, and resumes to the bytes of an undisturbed one."""

import shutil
from pathlib import Path

import pytest
from faults.harness import Ended, is_one_line, sample
from faults.runs import Undisturbed, resuming, train, undisturbed_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["often", "tensorboard"])
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed_run(tmp_path_factory.mktemp("undisturbed") / "run", request.param)


@pytest.mark.parametrize("fault", ["SIGKILL", "ENOSPC", "EIO"])
def test_a_run_resumes_after_a_fault_in_any_file_operation(
    undisturbed: Undisturbed, fault: str, tmp_path: Path
) -> None:
    variant, operations, outcome = undisturbed
    problems = []
    for at in sample(range(len(operations))):
        folder = tmp_path / str(at)
        found = [*ending(train(folder, variant, at=at, fault=fault), fault), *resuming(folder, variant, outcome)]
        problems += [f"{fault} {at} {operations[at]}: {each}" for each in found]
        if not found:
            shutil.rmtree(folder)
    assert not problems, "\n".join(problems)


def ending(ended: Ended, fault: str) -> list[str]:
    """Return what is wrong with how a run with a fault has ended."""
    if fault == "SIGKILL":
        return [] if ended.status == -9 else [f"status {ended.status}"]
    if ended.status == 0 and "error:" not in ended.output:
        return []
    return [] if ended.status in (1, 2) and is_one_line(ended.output) else [f"status {ended.status}: {ended.output}"]

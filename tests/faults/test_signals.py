"""A run that gets a signal in any of its phases ends in one line, and resumes to the bytes of an undisturbed one."""

import signal
from pathlib import Path

import pytest
from faults.harness import sample
from faults.injection import PHASES
from faults.runs import resuming, train, undisturbed_run
from outcomes import Outcome

from reslab.run import Run

pytestmark = pytest.mark.slow

CASES = [(name, phase) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL") for phase in PHASES]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return undisturbed_run(tmp_path_factory.mktemp("undisturbed") / "run", "plain").outcome


@pytest.mark.parametrize(("name", "phase"), sample(CASES))
def test_a_run_resumes_after_a_signal_in_any_phase(name: str, phase: str, outcome: Outcome, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = train(folder, "plain", at=phase, fault=name)
    assert ended.status in statuses(name, phase, Run(folder))
    assert "Traceback" not in ended.output
    can_resume = folder.exists() and not Run(folder).has_ended
    assert ("interrupted" in ended.output) == (can_resume and name != "SIGKILL")
    assert resuming(folder, "plain", outcome) == []


def statuses(name: str, phase: str, run: Run) -> tuple[int, ...]:
    """Return the exit statuses that are right. A run that has its result may end as if there had been no signal."""
    number = signal.Signals[name]
    if number == signal.SIGKILL:
        return (-number,)
    return (0, 128 + number, -number) if run.has_ended else (128 + number,)

import ctypes
import multiprocessing
import signal

from reslab.data_checks.images import FILES_AT_ONCE, in_processes


class Hangs:
    """The second batch hangs as a decoder may, which keeps Python's lock, so that no thread answers SIGTERM."""

    def __init__(self) -> None:
        self.has_arrived, self.has_begun = multiprocessing.Event(), multiprocessing.Event()

    def __getitem__(self, batch: list[int]) -> int:
        if batch[0]:
            assert self.has_arrived.wait(60)  # the first batch, which a thread of this process sends
            hang = ctypes.PyDLL(None).sleep  # before the test may end it: this takes a moment on a busy machine
            self.has_begun.set()
            hang(100)
        return len(batch)


def test_a_worker_that_hangs_does_not_outlive_the_check(monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # seconds
    before, dataset = set(multiprocessing.active_children()), Hangs()
    results = in_processes(dataset, 2 * FILES_AT_ONCE, num_workers=1)
    assert next(results) == FILES_AT_ONCE
    dataset.has_arrived.set()
    (worker,) = set(multiprocessing.active_children()) - before
    assert dataset.has_begun.wait(60)
    results.close()
    worker.join(20)
    assert worker.exitcode == -signal.SIGKILL

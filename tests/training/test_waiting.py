import logging
from types import SimpleNamespace

import pytest
import torch
from torchvision.io import write_png

from reslab.data.batches import FolderLoader
from reslab.training import fit, waiting
from reslab.training.waiting import LoaderWait, advice

STEP, BATCHES = 8.0, 5  # seconds of a step, batches of an epoch


class Clock:
    """A clock that advances where the test says so."""

    now = 100.0

    def perf_counter(self):
        return self.now


class Loader(FolderLoader):
    """A loader that takes a fixed time for each batch, and a minute for the first one of an epoch."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def batches(self):
        for number in range(BATCHES):
            self.clock.now += self.seconds if number else 60
            yield number


def trainer_of(loader, device):
    strategy, data = SimpleNamespace(root_device=device), SimpleNamespace(num_workers=2)
    return SimpleNamespace(train_dataloader=loader, strategy=strategy, datamodule=data, is_last_batch=False)


def train(clock, loader, epochs=1, first=0, validated_after=()):
    """Go through epochs as Lightning does, from batch `first` of the first epoch on.

    A validation follows each epoch, and the batches `validated_after` of it.
    """
    trainer = trainer_of(loader, torch.device("cpu"))
    wait = LoaderWait(logging.INFO)
    wait.on_train_start(trainer, None)
    for epoch in range(epochs):
        wait.on_train_epoch_start(trainer, None)
        for number, _ in enumerate(loader.batches(), start=0 if epoch else first):
            clock.now += STEP
            trainer.is_last_batch = number == BATCHES - 1
            wait.on_train_batch_end(trainer, None, None, None, number)
            if trainer.is_last_batch or number in validated_after:
                wait.on_validation_start(trainer, None)
                clock.now += 1000
                wait.on_validation_end(trainer, None)
        wait.on_train_epoch_end(trainer, None)


@pytest.fixture
def clock(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)
    monkeypatch.setattr(waiting, "processors", lambda: 16)
    caplog.set_level(logging.INFO, "reslab")
    return clock


def test_a_loader_that_limits_the_speed_is_reported_once(clock, caplog):
    train(clock, Loader(clock, seconds=2), epochs=3)
    assert caplog.messages == [
        "training waited for image files in 20% of the epoch: data.num_workers=16 (2 now) or data.in_memory=true is "
        "faster"
    ]


def test_validations_within_the_epoch_are_no_part_of_it(clock, caplog):
    train(clock, Loader(clock, seconds=2), validated_after=(0, 2))
    assert caplog.messages[0].startswith("training waited for image files in 20% of the epoch")


def test_a_loader_that_seldom_makes_the_training_wait_is_not_reported(clock, caplog):
    train(clock, Loader(clock, seconds=0.8), epochs=3)
    assert caplog.messages == []


def test_an_epoch_that_is_resumed_is_not_measured(clock, caplog):
    loader = Loader(clock, seconds=2)
    train(clock, loader, first=3)
    assert caplog.messages == []
    train(clock, Loader(clock, seconds=2), epochs=2, first=3)
    assert len(caplog.messages) == 1


def test_more_workers_than_processors_are_not_advised(monkeypatch):
    monkeypatch.setattr(waiting, "processors", lambda: 2)
    line = "training waited for image files in 50% of the epoch: data.in_memory=true is faster"
    assert advice(0.5, workers=2) == line


def test_a_gpu_that_computes_while_python_waits_does_not_wait(clock, caplog, monkeypatch):
    """Python waits two seconds for each batch. The GPU has other work meanwhile: it is idle for 10 ms."""

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock.now

        def synchronize(self):
            self.is_known = True

        def elapsed_time(self, end):
            assert end.is_known
            waited = end.at - self.at
            return 1000 * (0.01 if waited == 2 else waited)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    wait = LoaderWait(logging.INFO)
    loader = Loader(clock, seconds=2)
    trainer = trainer_of(loader, torch.device("cuda", 0))
    wait.on_train_start(trainer, None)
    wait.on_train_epoch_start(trainer, None)
    for number, _ in enumerate(loader.batches()):
        clock.now += STEP
        wait.on_train_batch_end(trainer, None, None, None, number)
    assert [wait.seconds(*each) for each in wait.waits] == [0.01] * (BATCHES - 1)
    wait.on_train_epoch_end(trainer, None)
    assert caplog.messages == []


def test_images_in_memory_are_not_waited_for_and_nothing_is_measured(clock, monkeypatch):
    wait = LoaderWait(logging.INFO)
    wait.on_train_start(trainer_of([], torch.device("cpu")), None)
    monkeypatch.setattr(wait, "mark", None)  # calling it fails
    wait.on_train_epoch_start(None, None)
    wait.on_train_batch_end(None, None, None, None, 0)
    wait.on_train_epoch_end(None, None)
    assert not wait.is_measuring


@pytest.mark.slow
def test_a_run_on_image_files_is_measured(composed, tmp_path, monkeypatch, caplog):
    for number in range(12):
        folder = tmp_path / "images" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_png(torch.full((3, 8, 8), 20 * number, dtype=torch.uint8), str(folder / f"{number}.png"))
    monkeypatch.setattr(waiting, "NOTABLE_SHARE", 0.0)  # any wait at all
    caplog.set_level(logging.INFO, "reslab")
    fit.train(
        composed(
            "model=resnet8", "data=imagefolder", f"data.root={tmp_path}/images", "data.image_size=8", "trainer=cpu",
            "data.batch_size=2", "data.num_workers=0", "trainer.max_epochs=2", "data.val_fraction=0", "test=false",
            "logger=none",
        )
    )  # fmt: skip
    (line,) = [each.getMessage() for each in caplog.records if each.name == "reslab.training.waiting"]
    assert line.startswith("training waited for image files in ")

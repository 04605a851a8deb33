import io
import logging
import re
import sys
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

from reslab.run import Run
from reslab.training import build, fit, progress
from reslab.training.history import History
from reslab.training.limits import TrainingLimits
from reslab.training.pace import Pace
from reslab.training.progress import (
    EpochLines,
    ProgressBar,
    can_show_bar,
    epoch_line,
    epoch_name,
    fitting,
    header,
    running_values,
)

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=3", "test=false", "logger=none")
ROW = {
    "epoch": 1, "step": 20, "train/loss": 2.10344, "train/accuracy": 0.2345, "train/epoch_seconds": 1.24,
    "val/loss": 1.8034, "val/accuracy": 0.4336,
}  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self):
        return True


# lines


def test_a_line_stands_below_the_names_of_its_values():
    assert header(ROW) == "epoch  train loss  accuracy    time  val loss  accuracy"
    assert epoch_line(ROW) == "    1      2.1034    0.2345   1.2 s    1.8034    0.4336"
    ends = [[found.end() for found in re.finditer(pattern, line)] for pattern, line in
            ((r"epoch|train loss|accuracy|time|val loss", header(ROW)), (r"\S+( s)?", epoch_line(ROW)))]  # fmt: skip
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "row", [ROW | {"epoch": 60_000, "train/epoch_seconds": 1232.7, "val/loss": 123.0, "val/accuracy": 1.0}, ROW]
)
def test_the_best_line_fits_a_terminal_of_60_columns(row):
    assert len(epoch_line(row) + " best") == 60


def test_without_validation_a_line_has_no_numbers_of_it():
    row = {name: value for name, value in ROW.items() if not name.startswith("val/")}
    assert epoch_line(row | {"train/mixed_accuracy": 0.5}) == "    1      2.1034    0.5000   1.2 s"
    assert "     mixed  " in header(row | {"train/mixed_accuracy": 0.5})


def lines_of(caplog):
    return [each.getMessage() for each in caplog.records if each.name == "reslab.training.progress"]


@pytest.mark.slow
def test_each_epoch_logs_one_line_and_marks_the_best_so_far(composed, tmp_path, caplog):
    caplog.set_level(logging.INFO, "reslab")
    fit.train(composed(*QUICK))
    rows = Run(tmp_path).metrics
    accuracies = [row["val/accuracy"] for row in rows]
    marks = [accuracy >= max(accuracies[: number + 1]) for number, accuracy in enumerate(accuracies)]
    assert lines_of(caplog) == [
        header(rows[0]), *(epoch_line(row) + " best" * best for row, best in zip(rows, marks, strict=True))
    ]  # fmt: skip
    assert marks[0]


@pytest.mark.slow
def test_validations_within_an_epoch_have_lines_with_their_marks(composed, tmp_path, caplog):
    caplog.set_level(logging.INFO, "reslab")
    fit.train(composed(*QUICK, "+trainer.val_check_interval=0.5", "trainer.max_epochs=1"))
    _, *lines = lines_of(caplog)
    assert [line.split()[0] for line in lines] == ["1", "1"]
    assert lines[0].endswith(" best")


@pytest.mark.slow
def test_a_resumed_run_repeats_no_line(composed, tmp_path, caplog):
    fit.train(composed(*QUICK))
    caplog.set_level(logging.INFO, "reslab")
    caplog.clear()
    fit.train(composed(*QUICK, f"resume={tmp_path}", "trainer.max_epochs=4"))
    assert [line.split()[0] for line in lines_of(caplog)] == ["epoch", "4"]


@pytest.mark.slow
def test_the_last_weights_that_are_validated_at_the_end_have_a_line(composed, tmp_path, caplog):
    caplog.set_level(logging.INFO, "reslab")
    fit.train(composed(*QUICK, "trainer.max_steps=30"))
    assert lines_of(caplog)[-1].split()[:1] == ["2"]
    assert f"{Run(tmp_path).metrics[-1]['val/loss']:8.4f}" in lines_of(caplog)[-1]
    caplog.clear()
    fit.train(composed(*QUICK, f"resume={tmp_path}", "trainer.max_steps=30"))
    assert lines_of(caplog) == []  # nothing was left to train


@pytest.mark.slow
@pytest.mark.parametrize("options", [("trainer.max_steps=30",), ("trainer.check_val_every_n_epoch=2",)])
def test_an_epoch_that_is_validated_after_its_end_has_one_line(composed, tmp_path, caplog, options):
    caplog.set_level(logging.INFO, "reslab")
    fit.train(composed(*QUICK, *options))
    rows = Run(tmp_path).metrics
    assert [line.split()[0] for line in lines_of(caplog)[1:]] == [f"{row['epoch']:.0f}" for row in rows]
    assert [epoch_line(row) for row in rows] == [line.removesuffix(" best") for line in lines_of(caplog)[1:]]


# the bar


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (0, ""),
        (9, "20 s left"),
        (45, "20 s left, so far loss 0.500, accuracy 0.250"),
        (99, "20 s left, so far loss 0.500, accuracy 0.250, 1,000 images/s"),
    ],
)
def test_the_bar_says_as_much_as_fits(room, expected):
    values = running_values({"loss": 0.5, "accuracy": 0.25, "images_per_second": 1000.0}, 20.0)
    assert fitting(values, room) == expected


def test_before_the_first_logged_step_the_bar_shows_no_number():
    assert list(running_values({}, None)) == []


@pytest.mark.parametrize(
    ("terminal", "term", "rank", "shows"),
    [(True, "xterm", "0", True), (True, "dumb", "0", False), (True, "xterm", "1", False), (False, "xterm", "0", False)],
)
def test_only_the_first_process_draws_and_only_where_it_can_erase(monkeypatch, terminal, term, rank, shows):
    monkeypatch.setattr(sys, "stdout", Terminal() if terminal else io.StringIO())
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("LOCAL_RANK", rank)
    assert can_show_bar() is shows


def fake_trainer():
    position = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(completed=0)))
    return SimpleNamespace(
        max_epochs=60, max_steps=-1, current_epoch=2, num_training_batches=20, num_test_batches=[3],
        accumulate_grad_batches=1, callbacks=[TrainingLimits(-1, None)], fit_loop=SimpleNamespace(epoch_loop=position),
    )  # fmt: skip


@pytest.mark.parametrize(("max_steps", "name"), [(-1, "epoch 3/60"), (1200, "epoch 3/60"), (1199, "epoch 3")])
def test_the_bar_names_the_last_epoch_unless_the_steps_end_before_it(max_steps, name):
    trainer = fake_trainer()
    trainer.max_steps = max_steps
    assert epoch_name(trainer) == name


def drawn(text):
    """Return what was written to a terminal without its colours and movements of the cursor."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_bar_fits_the_terminal_and_is_gone_at_the_end(tmp_path, monkeypatch, columns):
    """It reads nothing that the processes of a run compute together: it would wait for those that show no bar."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_FRAMES", 0)
    history = History(Run(tmp_path))
    history.running = {"loss": 0.5, "accuracy": 0.25, "images_per_second": 1000.0}
    bar = ProgressBar(history, Pace(logging.INFO))
    bar.on_train_epoch_start(fake_trainer(), None)
    bar.on_train_batch_end(fake_trainer(), None, None, None, 6)
    bar.on_test_start(fake_trainer(), None)
    frames = [frame for frame in re.split(r"[\r\n]+", drawn(terminal.getvalue())) if frame.strip()]
    assert max(len(frame.rstrip()) for frame in frames) <= columns - 3  # Ctrl-C shows ^C behind it
    assert max(len(frame) for frame in frames) >= columns - 6
    assert any(re.search(r"epoch 3/60  training .* 7/20 so far loss 0\.500", frame) for frame in frames)
    assert re.search(r"test .* 0/3", frames[-1])
    bar.on_test_end(fake_trainer(), None)
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased
    assert sys.stdout is terminal


def test_a_line_of_the_log_appears_above_the_bar(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    handler = logging.StreamHandler(terminal)
    logger = logging.getLogger("reslab")
    logger.addHandler(handler)
    try:
        bar = ProgressBar(History(Run(tmp_path)), Pace(logging.INFO))
        bar.on_test_start(fake_trainer(), None)
        logger.warning("an image cannot be read")
        *_, line, last = (part for part in re.split(r"[\r\n]+", drawn(terminal.getvalue())) if part.strip())
        assert line.strip() == "an image cannot be read"
        assert last.startswith("test ")
        bar.on_test_end(fake_trainer(), None)
        assert handler.stream is terminal
    finally:
        logger.removeHandler(handler)


def test_a_bar_of_the_user_takes_the_place_of_ours(composed, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "can_show_bar", lambda: True)
    config = composed(*QUICK, "+callbacks.bar._target_=lightning.pytorch.callbacks.TQDMProgressBar")
    callbacks = build.build_callbacks(config, build.build_data(config, ("fit",)), History(Run(tmp_path)))
    assert [type(each) for each in callbacks if isinstance(each, TQDMProgressBar | ProgressBar)] == [TQDMProgressBar]
    assert sum(isinstance(each, EpochLines) for each in callbacks) == 1
    build.build_trainer(config, callbacks, None)  # Lightning refuses a bar where it is asked for none

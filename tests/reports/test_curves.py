import pytest
from fake_runs import make_run

from reslab.reports.curves import error_curves, has_uneven_curves, moments
from reslab.reports.leaderboard import read_report
from reslab.reports.page import html_page
from reslab.run import Run

# Two validations in each epoch of ten steps, and a third epoch that a limit cuts short after five; the last validation
# came before the end of the second epoch, whose row has none.
ROWS = """epoch,step,train/accuracy,val/accuracy
1,5,0.1,0.2
1,10,0.2,0.4
2,15,0.6,0.5
2,20,0.5,
3,25,0.7,0.75
"""


def write_rows(folder, text):
    (folder / "metrics.csv").write_text(text)
    return folder


def test_rows_that_are_cut_off_have_no_other_numbers(tmp_path):
    """An accuracy of 0.75 would be one of 0.7, and without its last cell a row would be one without a validation."""
    whole = Run(write_rows(tmp_path, ROWS)).metrics
    assert whole[-1] == {"epoch": 3, "step": 25, "train/accuracy": 0.7, "val/accuracy": 0.75}
    for length in range(len(ROWS)):
        write_rows(tmp_path, ROWS[:length])
        if length and ROWS[length - 1] != "\n":
            with pytest.raises(ValueError, match=r"cut off|cells"):
                _ = Run(tmp_path).metrics
        else:
            assert Run(tmp_path).metrics == whole[: len(Run(tmp_path).metrics)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(1, 5), (1, 10), (2, 15), (2, 20), (3, 25)], [0.5, 1, 1.5, 2, 2.5]),
        ([(1, 20), (2, 40), (3, 60)], [1, 2, 3]),
        ([(1, 7)], [1]),  # nothing says how long the epoch would have been
        ([(1, 10), (2, 20), (3, 30), (3, 40)], [1, 2, 2.5, 3]),  # resumed on fewer devices
        ([], []),
    ],
)
def test_a_row_is_at_its_step_within_the_epoch(steps, expected):
    rows = [{"epoch": float(epoch), "step": float(step)} for epoch, step in steps]
    assert moments(rows) == pytest.approx(expected)


def test_rows_without_steps_are_ends_of_epochs():
    assert moments([{"epoch": 1.0}, {"epoch": 2.0}]) == [1, 2]


def test_validation_has_its_own_moments_and_training_the_ends_of_epochs(tmp_path):
    write_rows(make_run(tmp_path / "run", accuracy=0.75), ROWS)
    (configuration,) = read_report([tmp_path]).configurations
    (train,), (val,) = (error_curves(configuration, split) for split in ("train", "val"))
    assert train == {1: pytest.approx(80), 2: pytest.approx(50), 2.5: pytest.approx(30)}
    assert val == {0.5: pytest.approx(80), 1: pytest.approx(60), 1.5: pytest.approx(50), 2.5: pytest.approx(25)}


def test_the_mean_over_seeds_is_that_of_equal_moments(tmp_path, figures):
    """The second seed was validated once in each epoch."""
    write_rows(make_run(tmp_path / "0_", accuracy=0.75), ROWS)
    write_rows(make_run(tmp_path / "1_", accuracy=0.75, seed=2), "epoch,step,val/accuracy\n1,10,0.8\n2,20,0.9\n")
    report = read_report([tmp_path])
    assert has_uneven_curves(report.configurations[0])
    html_page(report)
    validation = figures[1].axes[0]
    *single, mean = (line.get_xydata().tolist() for line in validation.lines)
    assert mean == [[1, pytest.approx(40)]]
    assert sorted(single) == [
        [[0.5, pytest.approx(80)], [1, pytest.approx(60)], [1.5, pytest.approx(50)], [2.5, pytest.approx(25)]],
        [[1, pytest.approx(20)], [2, pytest.approx(10)]],
    ]

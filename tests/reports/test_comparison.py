import pytest
from fake_runs import cells, make_run

from reslab.errors import UserError
from reslab.reports.comparison import print_comparison, read_side, refuse_shared_runs

FIRST, SECOND = (0.90, 0.91, 0.92), (0.95, 0.96, 0.97)


@pytest.fixture
def sides(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for seed in (1, 2, 3):
        make_run(tmp_path / "a" / f"{seed}_", accuracy=FIRST[seed - 1], seed=seed)
        make_run(
            tmp_path / "b" / f"{seed}_", accuracy=SECOND[seed - 1], test=FIRST[seed - 1], seed=seed + 1,
            optimizer__lr=0.2, optimizer__momentum=None,
        )  # fmt: skip
    return tmp_path / "a", tmp_path / "b"


def compare(capsys, first, second):
    print_comparison(read_side("A", first), read_side("B", second))
    return capsys.readouterr().out.splitlines()


def test_the_differences_and_whether_the_seeds_explain_them(sides, capsys):
    first, second = sides
    lines = compare(capsys, [first], [second])
    assert lines[:2] == [
        f"A: 3 runs (seed 1, 2, 3), the best one {first}/3_",
        f"B: 3 runs (seed 2, 3, 4), the best one {second}/3_",
    ]
    rows = [cells(line) for line in lines if line.startswith("│")]
    assert rows == [
        ["optimizer.lr", "0.1", "0.2"],
        ["optimizer.momentum", "0.9", "-"],
        ["val/accuracy", "0.9100 ± 0.0100", "0.9600 ± 0.0100", "+0.0500", "0.0036"],
        ["test/accuracy", "0.9000 ± 0.0100", "0.9100 ± 0.0100", "+0.0100", "0.29"],
        ["train/seconds", "12.5000 ± 0.0000", "12.5000 ± 0.0000", "+0.0000", ""],
    ]
    assert lines[-2:] == [
        "val/accuracy: B - A = +0.0500, 95% confidence interval +0.0273 to +0.0727: more than the variation "
        "between seeds explains (Welch's t-test over 3 and 3 seeds: p = 0.0036, below 0.05)",
        "test/accuracy: B - A = +0.0100, 95% confidence interval -0.0127 to +0.0327: not more than the variation "
        "between seeds explains (Welch's t-test over 3 and 3 seeds: p = 0.29, not below 0.05)",
    ]


def test_one_run_per_side_is_not_enough(sides, capsys):
    first, second = sides
    lines = compare(capsys, [first], [second / "2_"])
    assert lines[-2] == (
        "val/accuracy: B - A = +0.0500: a side of one run does not show the variation between seeds; "
        "repeat it with -m seed=1,2,3"
    )


def test_without_any_variation_no_test_applies(tmp_path, capsys):
    for number in range(4):
        make_run(tmp_path / "ab"[number % 2] / f"{number}_", accuracy=1.0, seed=number, optimizer__lr=1 + number % 2)
    lines = compare(capsys, [tmp_path / "a"], [tmp_path / "b"])
    assert (
        lines[-1]
        == "test/accuracy: B - A = +0.0000: no test applies, because the seeds of each side have equal results"
    )


def test_only_the_seeds_differ(tmp_path, capsys):
    for number in range(4):
        make_run(tmp_path / "ab"[number // 2] / f"{number}_", accuracy=0.5 + number / 10, seed=number)
    lines = compare(capsys, [tmp_path / "a"], [tmp_path / "b"])
    assert lines[2:4] == ["only the seeds differ", lines[3]]
    assert lines[3].startswith("mean ± standard deviation")


def test_only_the_folds_differ(tmp_path, capsys):
    for fold in range(4):
        make_run(tmp_path / "ab"[fold // 2] / f"{fold}_", accuracy=0.5 + fold / 10, data__folds=4, data__fold=fold)
    lines = compare(capsys, [tmp_path / "a"], [tmp_path / "b"])
    assert [line.partition(", the best")[0] for line in lines if line[:3] in ("A: ", "B: ")][::2] == [
        "A: 2 folds, 2 runs (seed 1; fold 0, 1)",
        "B: 2 folds, 2 runs (seed 1; fold 2, 3)",
    ]
    assert "only the folds differ" in lines


def test_copies_are_called_the_same(tmp_path, capsys):
    for side in "ab":
        make_run(tmp_path / side / "0_", accuracy=0.5, seed=3)
    assert compare(capsys, [tmp_path / "a"], [tmp_path / "b"])[2] == "the settings and the seeds are the same"


def test_not_a_number_is_not_tested(sides, capsys):
    first, second = sides
    make_run(second / "4_", accuracy=float("nan"), seed=7, optimizer__lr=0.2, optimizer__momentum=None)
    lines = compare(capsys, [first], [second])
    assert lines[-2] == "val/accuracy: B - A = +nan: no test applies, because a result is not a number"


def test_another_provenance_is_a_difference(tmp_path, capsys):
    for name in "ab":
        result = {"status": "finished", "val/accuracy": 0.5, "device": "cpu", "git_commit": name}
        make_run(tmp_path / name, result=result)
    lines = compare(capsys, [tmp_path / "a"], [tmp_path / "b"])
    rows = [cells(line) for line in lines if line.startswith("│")]
    assert rows == [["git_commit", "a", "b"], ["val/accuracy", "0.5000", "0.5000", "+0.0000", ""]]


def test_runs_that_are_not_counted_are_reported_with_their_side(sides, capsys):
    first, second = sides
    make_run(first / "4_", accuracy=0.5, seed=3)
    make_run(first / "5_", seed=4, result={"status": "pruned"})
    make_run(second / "4_", seed=5, result={"status": "failed", "error": "out of memory"})
    lines = compare(capsys, [first], [second])
    assert [line for line in lines if line[1:2] == ":"] == [
        f"A: 3 runs (seed 1, 2, 3), the best one {first}/2_",
        "A: not counted: 1 run that the search pruned",
        "A: not counted, because a newer run has the same configuration and seed: 3_",
        f"B: 3 runs (seed 2, 3, 4), the best one {second}/3_",
        "B: 4_ failed: out of memory",
    ]


def test_a_metric_that_some_runs_do_not_have_shows_its_own_n(sides, capsys):
    first, second = sides
    make_run(first / "4_", result={"status": "finished", "val/accuracy": 0.91}, seed=4)
    rows = [cells(line) for line in compare(capsys, [first], [second]) if "test/accuracy" in line and line[0] == "│"]
    assert rows == [["test/accuracy", "0.9000 ± 0.0100 (n=3)", "0.9100 ± 0.0100", "+0.0100", "0.29"]]


def test_a_side_must_be_one_configuration(sides, tmp_path):
    first, second = sides
    with pytest.raises(UserError, match=r"^A has 2 configurations, which differ in optimizer.lr, optimizer.momentum: "):
        read_side("A", [first, second])
    with pytest.raises(UserError, match=r"^B: no run of .*/none has finished$"):
        read_side("B", [make_run(tmp_path / "none")])


def test_a_run_on_both_sides_is_refused(tmp_path):
    """The test takes the two sides for independent."""
    for number in range(4):
        make_run(tmp_path / "ab"[number % 2] / f"{number}_", accuracy=0.9, seed=number)
    first, second = (read_side(name, [tmp_path / name.lower()]) for name in "AB")
    refuse_shared_runs(first, second)
    with pytest.raises(UserError, match=r"0_ is on both sides: versus compares different runs"):
        refuse_shared_runs(first, read_side("B", [tmp_path / "b", tmp_path / "a" / "0_"]))


def test_folds_are_not_called_seeds(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for name, seed in (("a", 1), ("b", 2)):
        for fold in range(3):
            options = {"data__fold": fold, "data__folds": 3, "data__val_fraction": 0.1, "seed": seed}
            result = {"fold_split": "test", "test/images": 100, "val/images": 50}
            make_run(tmp_path / name / f"{fold}_", accuracy=FIRST[fold], test=SECOND[fold], result=result, **options)
    lines = compare(capsys, [tmp_path / "a"], [tmp_path / "b"])
    assert "variation between runs explains (Welch's t-test over 3 and 3 runs: p = 1, not below 0.05)" in lines[-1]
    report = read_side("A", [tmp_path / "a"])
    assert report.legend == (
        "mean ± standard deviation over n runs [95% confidence interval for other runs and images]"
    )

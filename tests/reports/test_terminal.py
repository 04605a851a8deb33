import json
from pathlib import Path

from fake_runs import cells, make_run

from reslab.reports.leaderboard import leaderboard, read_report
from reslab.reports.terminal import print_report


def printed(capsys, *folders):
    print_report(read_report(folders))
    return capsys.readouterr().out.splitlines()


def test_the_table_has_one_row_per_configuration(sweep, capsys):
    lines = printed(capsys, sweep)
    assert lines[0] == "resnet20 and resnet8 on digits: 2 configurations (4 runs) by validation accuracy"
    assert cells(lines[3]) == ["run", "model", "n", "val/accuracy", "test/accuracy", "seconds"]
    rows = [cells(line) for line in lines if line.startswith("│")]
    assert rows == [
        ["job 2", "resnet20", "2", "0.9000 ± 0.0000", "0.8450 ± 0.0636", "12.50"],
        ["", "", "", "", "[0.2060, 0.9913]", ""],
        ["job 1", "resnet8", "2", "0.6000 ± 0.1414", "0.5900 ± 0.1414", "12.50"],
        ["", "", "", "[0.0476, 0.9783]", "[0.0464, 0.9770]", ""],
    ]
    assert lines[-2:] == [
        "accuracy: mean ± standard deviation over n seeds [95% confidence interval for other seeds and images]",
        "job 4 failed: a < b",
    ]


def test_runs_of_several_folders_have_different_names(sweep, capsys):
    make_run(sweep.parent / "2026-01-31_12-00-00", accuracy=0.95, optimizer__lr=0.2)
    make_run(sweep.parent / "2026-01-31_12-00-01", accuracy=0.9, model__name="resnet20")
    lines = printed(capsys, sweep, sweep.parent)
    names = [cells(line)[0] for line in lines if line.startswith("│")]
    assert [name for name in names if name] == ["2026-01-31_", "12-00-00", "2026-01-31_", "12-00-01", "sweep/1"]
    assert "not counted, because a newer run has the same configuration and seed: sweep/2" in lines
    assert lines[-1] == "sweep/4 failed: a < b"


def test_a_single_row_differs_in_no_setting(tmp_path, capsys):
    lengths = [{"step": 0, "trainer.max_epochs": 2}, {"step": 40, "trainer.max_epochs": 1}]
    make_run(tmp_path / "0_", accuracy=0.5, result={"requested": lengths})
    make_run(tmp_path / "1_", result={"status": "interrupted", "error": "SIGTERM"}, optimizer__lr=0.2)
    lines = printed(capsys, tmp_path)
    assert cells(lines[2]) == ["run", "val/accuracy", "test/accuracy", "seconds"]
    assert lines[-1] == "1_ interrupted: SIGTERM"
    assert not any("differ" in line for line in lines)


def test_jobs_that_failed_for_the_same_reason_share_a_line(sweep, capsys):
    for number in (5, 10):
        make_run(sweep / f"{number}_x", seed=number, result={"status": "failed", "error": "a < b"})
    make_run(sweep / "6_x", result={"status": "interrupted", "error": "SIGINT"})
    assert printed(capsys, sweep)[-2:] == ["job 4, job 5, job 10 failed: a < b", "job 6 interrupted: SIGINT"]


def test_a_line_says_which_rows_combine_results_of_different_provenance(tmp_path, capsys):
    for number, (seed, lr) in enumerate([(1, 0.1), (2, 0.1), (1, 0.2), (2, 0.2), (1, 0.3), (2, 0.3)]):
        origin = {"git_commit": f"commit{seed if lr < 0.3 else 0}", "versions": {"torch": "2.11", "python": "3.12"}}
        result = {"status": "finished", "val/accuracy": seed / 10 + lr, **origin}
        make_run(tmp_path / f"{number}_x", result=result, seed=seed, optimizer__lr=lr)
    (tmp_path / "5_x" / "result.json").write_text(
        json.dumps(result | {"versions": {"torch": "2.12", "python": "3.12"}, "git_commit": "commit0"})
    )
    assert printed(capsys, tmp_path)[-2:] == [
        "one row mixes versions.torch (2.11, 2.12): job 5",
        "one row mixes git_commit (commit1, commit2): job 3, job 1",
    ]


def test_a_row_names_the_threads_of_its_runs_only_where_they_ran_on_a_cpu(tmp_path, capsys):
    for number, (device, model) in enumerate([("cpu", "resnet8"), ("an H100", "resnet20")]):
        for threads in (1, 2):
            result = {"device": device, "threads": threads}
            options = {"seed": threads, "threads": None if threads == 1 else 2, "model__name": model}
            make_run(tmp_path / f"{2 * number + threads}_", accuracy=0.5, result=result, **options)
    assert printed(capsys, tmp_path)[-1:] == ["one row mixes threads (1, 2): 1_"]


def test_a_metric_that_some_runs_do_not_have_shows_its_own_n(tmp_path, capsys):
    for seed in (1, 2):
        make_run(tmp_path / f"{seed}_", accuracy=seed / 4, test=0.5, seed=seed)
    make_run(tmp_path / "3_", result={"status": "finished", "val/accuracy": 0.75, "train/seconds": 1.0}, seed=3)
    rows = [cells(line) for line in printed(capsys, tmp_path) if line.startswith("│")]
    assert rows[0][:4] == ["3_", "3", "0.5000 ± 0.2500", "0.5000 ± 0.0000 (n=2)"]
    (row,) = leaderboard(read_report([tmp_path]))
    assert (row["n"], row["val/accuracy n"], row["test/accuracy n"]) == (3, 3, 2)


def test_every_image_folder_has_its_own_table(tmp_path, capsys):
    for number, root in enumerate(("cats", "dogs", "birds")):
        make_run(tmp_path / f"{number}_", accuracy=0.5 + number / 10, data__name="imagefolder", data__root=root)
    lines = printed(capsys, tmp_path)
    rows = [cells(line)[0] if line.startswith("│") else line for line in lines if line.startswith(("│", "resnet8"))]
    assert rows == [
        "resnet8 on imagefolder root=birds: 1 run by validation accuracy", "2_",
        "resnet8 on imagefolder root=cats: 1 run by validation accuracy", "0_",
        "resnet8 on imagefolder root=dogs: 1 run by validation accuracy", "1_",
    ]  # fmt: skip
    assert not any("not counted" in line for line in lines)


def test_data_sets_are_not_ranked_together(tmp_path, capsys):
    """Ways to use the same images are, also where they change the accuracy."""
    for number, data in enumerate(("fashion_mnist", "digits", "fashion_mnist", "digits")):
        options = {"data__name": data, "data__batch_size": 2**number, "data__mean": [number / 10]}
        make_run(tmp_path / f"{number}_x", accuracy=0.5 + number / 10, **options)
    lines = printed(capsys, tmp_path)
    rows = [cells(line)[0] if line.startswith("│") else line for line in lines if line.startswith(("│", "resnet8"))]
    assert rows == [
        "resnet8 on digits: 2 runs by validation accuracy", "job 3", "job 1",
        "resnet8 on fashion_mnist: 2 runs by validation accuracy", "job 2", "job 0",
    ]  # fmt: skip
    places = [(row["place"], row["data"]) for row in leaderboard(read_report([tmp_path]))]
    assert places == [(1, "digits"), (2, "digits"), (1, "fashion_mnist"), (2, "fashion_mnist")]


def test_a_run_given_as_a_relative_path_has_the_name_of_its_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(make_run(tmp_path / "resnet8", accuracy=0.5))
    (tmp_path / "resnet8" / "checkpoints").mkdir()
    for name in (".", "..", "checkpoints/.."):
        rows = [cells(line)[0] for line in printed(capsys, Path(name)) if line.startswith("│")]
        assert rows == ["resnet8"]


def test_without_validation_the_table_is_by_test_accuracy(tmp_path, capsys):
    make_run(tmp_path / "0_", result={"status": "finished", "test/accuracy": 0.5, "train/seconds": 2.0})
    lines = printed(capsys, tmp_path)
    assert lines[0] == "resnet8 on digits: 1 run by test accuracy"
    assert cells(lines[2]) == ["run", "test/accuracy", "seconds"]


def test_not_a_number_ranks_last(tmp_path, capsys):
    for number, accuracy in enumerate((0.5, 0.75, float("nan"), 1.0)):
        make_run(tmp_path / f"{number}_x", accuracy=accuracy, seed=number % 2, optimizer__lr=1.0 + number // 2)
    lines = printed(capsys, tmp_path)
    rows = [cells(line)[:4] for line in lines if line.startswith("│")]
    assert rows[0] == ["job 1", "1.0", "2", "0.6250 ± 0.1768"]
    assert rows[2:] == [["job 3", "2.0", "2", "nan"]]
    assert "nan" not in rows[1]


def test_pruned_runs_are_counted_separately(sweep, capsys):
    make_run(sweep / "5_pruned", model__name="resnet20", result={"status": "pruned", "val/accuracy": 1.0})
    lines = printed(capsys, sweep)
    assert lines[0] == "resnet20 and resnet8 on digits: 2 configurations (4 runs) by validation accuracy"
    assert lines[-2:] == ["not counted: 1 run that the search pruned", "job 4 failed: a < b"]


def test_a_narrow_terminal_leaves_settings_out(sweep, capsys, monkeypatch):
    for number in (5, 6):
        make_run(sweep / f"{number}_long", accuracy=0.3, optimizer__lr=number / 123456789, optimizer__name="d" * 20)
    for columns, shown, left_out in (
        (91, ["model", "lr", "optimizer"], ""),
        (90, ["model", "lr"], "optimizer"),
    ):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = printed(capsys, sweep)
        assert cells(next(line for line in lines if "┃run" in line))[1:-4] == shown
        table = [line for line in lines if line[0] in "│┃"]
        assert max(map(len, table)) <= columns
        assert any(line.startswith("┃best ") and "optimizer. " in line for line in table) == bool("lr" in shown)
        assert (f"settings that differ too, shown in report.html: {left_out}" in lines) == bool(left_out)

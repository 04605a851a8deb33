import json

from fake_runs import make_run

from reslab.reports.configurations import mean_and_interval
from reslab.reports.leaderboard import failure_lines, leaderboard, notes_on_means, read_report


def test_the_objectives_of_a_search_are_columns(tmp_path):
    objective = ["val/accuracy", "parameters", "val/loss"]
    for number, parameters in enumerate((77850, 272474)):
        folder = make_run(tmp_path / f"{number}_x", accuracy=0.5, objective=objective, optimizer__lr=number)
        result = json.loads((folder / "result.json").read_text()) | {"parameters": parameters}
        (folder / "result.json").write_text(json.dumps(result))
    report = read_report([tmp_path])
    assert report.metric_names == ["val/accuracy", "test/accuracy", "parameters"]
    texts = {mean_and_interval(configuration, "parameters") for configuration in report.configurations}
    assert texts == {"77850", "272474"}
    assert {row["parameters mean"] for row in leaderboard(report)} == {77850, 272474}


def result_of(used, available=540, step=60):
    images = {"val/images": used, "val/images_available": available, "test/images": 359, "test/images_available": 359}
    return {"best_step": step} | images


def test_counts_of_images_and_steps_are_neither_metrics_nor_settings(tmp_path):
    for number, step in enumerate((20, 40)):
        make_run(tmp_path / f"{number}_", accuracy=0.5, seed=number, result=result_of(540, step=step))
    report = read_report([tmp_path])
    assert (report.metric_names, report.differing_settings) == (["val/accuracy", "test/accuracy"], [])
    (row,) = leaderboard(report)
    assert not [name for name in row if "images" in name or "best_step" in name]
    assert notes_on_means(report) == []


def test_a_line_names_the_runs_that_validated_on_the_test_images(tmp_path):
    for number, on_test in enumerate((True, False)):
        make_run(tmp_path / f"{number}_x", accuracy=0.5, data__validate_on_test=on_test)
    assert notes_on_means(read_report([tmp_path])) == [
        "val/accuracy is that of the test images, with data.validate_on_test=true: job 0"
    ]


def test_a_line_names_some_runs_and_counts_the_others(tmp_path):
    for number in range(8):
        make_run(tmp_path / f"{number}_x", seed=number, result={"status": "failed", "error": "out of memory"})
    assert failure_lines(read_report([tmp_path])) == [
        "job 0, job 1, job 2, job 3, job 4 and 3 more failed: out of memory"
    ]


def test_a_line_says_where_images_have_changed_between_runs(tmp_path):
    for number, (checksum, seed, version) in enumerate([("x", 1, "2.11"), ("y", 1, "2.11"), ("z", 2, "2.11")]):
        result = {"data_checksum": checksum, "versions": {"torch": version}}
        make_run(tmp_path / f"{number}_x", accuracy=0.5, seed=seed, optimizer__lr=number, result=result)
    assert notes_on_means(read_report([tmp_path])) == [
        "the images of a data set differ between runs, although their options do not: job 0, job 1"
    ]


def test_files_that_have_changed_are_said_for_every_seed(tmp_path):
    """E.g. of two projects with a folder of the same name, given by a relative path."""
    for number, (checksum, seed, fold) in enumerate([("x", 1, 0), ("x", 2, 0), ("y", 3, 0), ("z", 1, 1)]):
        more = {"data__name": "imagefolder", "data__root": "photos", "data__folds": 2, "data__fold": fold}
        result = {"files_checksum": checksum, "data_checksum": f"{checksum} {seed}"}
        make_run(tmp_path / f"{number}_x", accuracy=0.5, seed=seed, result=result, **more)
    line = "the images of a data set differ between runs, although their options do not: job 0, job 2"
    assert line in notes_on_means(read_report([tmp_path]))


def test_what_a_run_could_not_write_at_its_end_is_said(tmp_path):
    make_run(tmp_path / "0_x", accuracy=0.5)
    make_run(tmp_path / "1_x", accuracy=0.5, optimizer__lr=2, result={"unwritten": ["logger.wandb", "<b>"]})
    assert notes_on_means(read_report([tmp_path])) == [
        f"job 1: not written: logger.wandb, <b>; resume={tmp_path}/1_x tests again and writes it"
    ]


def test_one_line_says_which_runs_used_a_part_of_the_images(tmp_path):
    for number, used in enumerate((64, 540, 64, 128)):
        make_run(tmp_path / f"{number}_x", accuracy=0.5, optimizer__lr=number, result=result_of(used))
    make_run(tmp_path / "4_x", optimizer__lr=9, result={"status": "failed", "error": "x"} | result_of(1))
    (line,) = notes_on_means(read_report([tmp_path]))
    start, _, parts = line.partition(": ")
    assert start == "val/accuracy is that of a part of the images"
    assert sorted(parts.split("; ")) == ["128 of 540 images (job 3)", "64 of 540 images (job 0, job 2)"]

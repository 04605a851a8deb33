import json

from fake_runs import make_run

from reslab.reports.configurations import mean_and_interval
from reslab.reports.leaderboard import leaderboard, read_report


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

from reslab.benchmarking.picture import part_percentages
from reslab.benchmarking.table import cells, lines_below


def test_the_numbers_of_a_row(finished_row):
    medians = {"data": 1.0, "forward": 2.0, "backward": 4.0, "optimizer": 1.0}
    row = finished_row("gpu", 12345.6) | {
        "step_ms": {"median": 8.125, "p10": 7.5, "p90": 1234.5}, "peak_memory_mb": 2048.4,
        "parts_ms": {name: {"median": median} for name, median in medians.items()},
    }  # fmt: skip
    assert cells(row) == ["12,346", "8.12 (7.5-1,234)", "1", "2", "4", "1", "2,048"]
    assert part_percentages(row) == {"data": 12.5, "forward": 25, "backward": 50, "optimizer": 12.5}
    both = row | {"host_ms": 9.04, "gpu_ms": 2.1}
    assert cells(both, ["host_ms", "gpu_ms"])[1:4] == ["8.12 (7.5-1,234)", "9.04", "2.1"]
    assert cells(row, ["host_ms", "gpu_ms"])[1:4] == ["8.12 (7.5-1,234)", "", ""]
    assert cells({"status": "out of memory"}) == ["", "out of memory"]


def test_a_graph_that_was_asked_for_and_not_used_is_named_with_the_reason(finished_row):
    rows = [
        finished_row("gpu", 1.0, with_graph=asked) | {"graph": graph, "startup_seconds": 0.0}
        for asked, graph in ((True, "trainer.precision=16-mixed"), (True, True), (False, "graph=false"))
    ]
    result = {"cases": rows, "ratios": [], "largest_batches": [], "folder": "b"}
    lines = [line for line in lines_below(result, ["with_graph"]) if "eagerly" in line]
    assert lines == ["no graph: graph=true, but steps ran eagerly: trainer.precision=16-mixed"]

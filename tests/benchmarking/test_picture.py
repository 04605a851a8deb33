from matplotlib.figure import Figure

from reslab.benchmarking.picture import draw

CASE = {
    "status": "finished", "device": "cpu", "accelerator": "cpu", "precision": "32-true",
    "memory_format": "channels_last", "compile": False, "with_graph": "auto", "batch_size": 64,
    "images_per_second": 100.0,
    "parts_ms": {name: {"median": 1.0} for name in ("data", "forward", "backward", "optimizer")},
}  # fmt: skip


def test_names_are_no_formulas_and_not_too_long(tmp_path, monkeypatch):
    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: figures.append(figure) or savefig(figure, *a, **k))
    draw(tmp_path / "benchmark.png", {"model": "$\\frac{$", "data": "x" * 98, "cases": [CASE]})
    assert figures[0].axes[0].get_title() == "$\\frac{$ on " + "x" * 12 + "…" + "x" * 11
    assert (tmp_path / "benchmark.png").stat().st_size > 0

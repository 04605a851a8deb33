import pytest
from fake_runs import make_sweep
from matplotlib.figure import Figure


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """The folder of a sweep, and a terminal that is wide enough for its table."""
    monkeypatch.setenv("COLUMNS", "200")
    return make_sweep(tmp_path / "sweep")


@pytest.fixture
def figures(monkeypatch):
    """A list that receives every figure as it is drawn."""
    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kwargs: drawn.append(figure) or savefig(figure, *args, **kwargs)
    )
    return drawn

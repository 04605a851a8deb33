import re

import pytest
from fake_runs import make_run

from reslab.reports.leaderboard import read_report
from reslab.reports.page import MAX_CURVES, html_page


def test_curves_show_the_mean_and_the_range_of_the_seeds(tmp_path, figures):
    for seed, errors in enumerate([(0.5, 0.25), (0.75, 0.5)]):
        make_run(tmp_path / f"{seed}_", accuracy=0.5, seed=seed, curve=[(1 - error, 1 - error) for error in errors])
    text = html_page(read_report([tmp_path]))
    for (axes,) in (figure.axes for figure in figures[:2]):
        assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 62.5], [2, 37.5]]]
        band, dots = axes.collections
        assert dots.get_offsets().tolist() == [[2, 37.5], [1, 62.5]]
        corners = {(x, y) for x, y in band.get_paths()[0].vertices.tolist()}
        assert corners == {(1, 50), (1, 75), (2, 25), (2, 50)}
    assert text.count("<title>1: resnet8</title>") == 2
    assert text.count("<title>1: resnet8\nepoch 2: 37.50 % (25.00 to 50.00)</title>") == 2
    assert "<p>Lines show the mean over the seeds, bands the range from the smallest to the largest value.</p>" in text


def test_both_panels_show_all_errors(tmp_path, figures):
    html_page(read_report([make_run(tmp_path / "run", accuracy=0.5, curve=[(0.75, 0.0), (0.75, 0.5)])]))
    for (axes,) in (figure.axes for figure in figures[:2]):
        low, high = axes.get_ylim()
        assert low == 0
        assert 100 < high < 110


def test_a_long_label_is_complete_in_the_legend(tmp_path):
    for number, lr in enumerate((1, 2)):
        options = {"model__name": f"{number}" * 90, "trainer__precision": f"{number}" * 90}
        make_run(tmp_path / f"{number}_", accuracy=number / 2, optimizer__lr=lr, curve=[(0.5, 0.5)], **options)
    text = html_page(read_report([tmp_path]))
    label = f"model={'1' * 90}, lr=2, precision={'1' * 90}"
    assert f'<li><span style="background: #1f77b4"></span>1: {label}</li>' in text


def test_the_mean_ends_where_a_seed_ends(tmp_path, figures):
    """The mean of the seeds that are left would jump to their error."""
    make_run(tmp_path / "0_", accuracy=0.5, seed=1, curve=[(0.5, 0.75), (0.75, 0.875)])
    make_run(tmp_path / "1_", accuracy=0.5, seed=2, curve=[(0.5, 0.25)])
    make_run(tmp_path / "2_", accuracy=0.75, optimizer__lr=1.0, curve=[(0.5, 0.75), (0.75, 0.5)])
    text = html_page(read_report([tmp_path]))
    whole, thin, mean = (line.get_xydata().tolist() for line in figures[1].axes[0].lines)
    assert whole == [[1, 25], [2, 50]]
    assert thin == [[1, 25], [2, 12.5]]
    assert mean == [[1, 50]]
    band, *_ = figures[1].axes[0].collections
    assert {(x, y) for x, y in band.get_paths()[0].vertices.tolist()} == {(1, 25), (1, 75)}
    assert (
        "The seeds of 2 have different epochs: thin lines show single seeds, and the mean covers the epochs that"
        in text
    )


def test_only_the_best_curves_are_drawn(tmp_path, figures):
    for number in range(MAX_CURVES + 1):
        make_run(tmp_path / f"{number}_", accuracy=number / 100, optimizer__lr=number + 1.0, curve=[(0.5, 0.5)])
    text = html_page(read_report([tmp_path]))
    labels = [line.get_label() for line in figures[0].axes[0].lines]
    assert labels == [f"{place}: lr={12.0 - place}" for place in range(1, MAX_CURVES + 1)]
    assert "The 10 best configurations." in text


def test_an_effect_has_one_dot_per_run_and_the_mean_by_value(sweep, figures):
    text = html_page(read_report([sweep]))
    (axes,) = figures[2].axes
    (dots,), (means,) = axes.collections, axes.lines
    assert sorted(dots.get_offsets().tolist()) == [[0, 0.5], [0, 0.7], [1, 0.9], [1, 0.9]]
    assert means.get_xydata().tolist() == [[0, pytest.approx(0.6)], [1, 0.9]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["resnet8", "resnet20"]
    shapes = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"><title>(.*?)</title></use>', text)
    places = {name: (float(x), float(y)) for x, y, name in shapes}
    assert len(places) == 4
    low, high = places[f"{sweep}/0_resnet8: 0.5000"], places[f"{sweep}/1_resnet8: 0.7000"]
    best = places[f"{sweep}/2_resnet20: 0.9000"]
    assert low[0] == high[0] < best[0]
    assert low[1] - high[1] == pytest.approx(high[1] - best[1], abs=0.03)  # pixels, downwards


def test_one_batch_and_all_batches_have_places_of_their_own(tmp_path, figures):
    for number, value in enumerate((1, 1.0, 0.5)):
        make_run(tmp_path / str(number), accuracy=number / 4, trainer__limit_train_batches=value)
    html_page(read_report([tmp_path]))
    (axes,) = figures[0].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.5", "1", "1.0"]
    assert sorted(axes.collections[0].get_offsets().tolist()) == [[0, 0.5], [0.5, 0], [1, 0.25]]


def test_many_dots_have_no_names(tmp_path, figures, monkeypatch):
    """A page of 5,000 runs would otherwise have several megabytes of them."""
    monkeypatch.setattr("reslab.reports.figures.MAX_NAMES", 3)
    for number in range(4):
        make_run(tmp_path / f"{number}_x", accuracy=0.5 + number / 8, optimizer__lr=number + 1.0)
    text = html_page(read_report([tmp_path]))
    assert len(re.findall(r'<use xlink:href="#\w+" x="[\d.]+" y="[\d.]+"/>', text)) == 4
    assert "<title>" not in text[text.index("<body>") :]
    assert len(figures[0].axes[0].collections[0].get_offsets()) == 4


def test_parallel_coordinates_have_one_line_per_configuration(tmp_path, figures):
    make_run(tmp_path / "0_", accuracy=0.5)
    make_run(tmp_path / "1_", accuracy=0.7, seed=2)
    make_run(tmp_path / "2_", accuracy=0.8, model__name="resnet20")
    make_run(tmp_path / "3_", accuracy=1.0, model__name="resnet20", optimizer__lr=0.2)
    text = html_page(read_report([tmp_path]))
    (collection,) = figures[2].axes[0].collections
    svg = text[text.index("Parallel coordinates") :]
    names = re.findall("<path d=[^>]*><title>(.*?)</title></path>", svg)
    lines = [segment.tolist() for segment in collection.get_segments()]
    assert dict(zip(names, lines, strict=True)) == {
        "model=resnet8, lr=0.1: 0.6000": [[0, 0], [1, 0], [2, 0]],
        "model=resnet20, lr=0.1: 0.8000": [[0, 1], [1, 0], [2, pytest.approx(0.5)]],
        "model=resnet20, lr=0.2: 1.0000": [[0, 1], [1, 1], [2, 1]],
    }
    assert "Parallel coordinates" in text


def test_names_are_not_formulas(tmp_path):
    for number in range(2):
        options = {"model__name": f"$a_{number}^$", "optimizer__name": f"$\\frac{{{number}$"}
        make_run(tmp_path / f"{number}_x", accuracy=0.5 + number / 4, curve=[(0.5, 0.5)], **options)
    text = html_page(read_report([tmp_path]))
    assert text.count(">$a_0^$</text>") == 2  # on the axis of the effect and of the parallel coordinates
    assert ": model=$a_0^$, optimizer=$\\frac{0$</li>" in text  # in the legend

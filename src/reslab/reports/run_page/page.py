"""run.html: the frame of one run's page, and the parts that need no answers to single images."""

from pathlib import Path
from typing import Any, NamedTuple

from reslab.pages import SORTING, document, embedded_json, facts_table, text
from reslab.reports.configurations import metric_text, seconds_text
from reslab.reports.entries import Entry
from reslab.reports.origin import origin
from reslab.reports.run_page.figures import curves
from reslab.reports.run_page.metrics import interval_text, metrics_without_answers
from reslab.reports.settings import setting_text
from reslab.reports.statistics import PERCENT
from reslab.text import counted

HERE = Path(__file__).parent


class TestParts(NamedTuple):
    """The parts of the page about the test.

    Attributes:
        metrics: HTML, above the learning curves.
        images: HTML, below them: what needs the answers to single images.
        data: what the script needs, as plain values.
    """

    metrics: str
    images: str
    data: dict[str, Any]


def html_page(entry: Entry, test: TestParts | None, untested: str) -> str:
    """Return the page.

    Args:
        entry: the run.
        test: the parts about its test; None without one.
        untested: why there are none; "" if there is nothing to say.
    """
    settings = entry.settings
    title = f"{settings.get('model', 'a run')} on {settings.get('data', 'a data set')}"
    body = [
        f"<h1>{text(title)}</h1>",
        f'<p class="lead">{text(summary(entry))}</p>',
        "" if entry.has_ended else f'<p class="warning">{text(entry.failure)}</p>',
        f'<p class="warning">{text(entry.unwritten)}</p>' if entry.unwritten else "",
        f'<p class="warning">{text(untested)}</p>' if untested else "",
        test.metrics if test else metrics_section(entry),
        curves_section(entry),
        test.images if test else "",
        provenance_section(entry),
        settings_section(entry),
    ]
    script = ""
    if test:
        body.append("<noscript><p>Sorting, searching and the images of a cell need JavaScript.</p></noscript>")
        body.append(f'<script type="application/json" id="data">{embedded_json(test.data)}</script>')
        script = SORTING + (HERE / "page.js").read_text(encoding="utf-8")
    return document(title, "\n".join(filter(None, body)), (HERE / "page.css").read_text(encoding="utf-8"), script)


def summary(entry: Entry) -> str:
    """Return the run in one line."""
    result, parts = entry.result, []
    for name, words in {"test/accuracy": "test accuracy", "val/accuracy": "validation accuracy"}.items():
        if name in result:
            parts.append(f"{words} {metric_text(result[name])}")
    if "epochs" in result:
        parts.append(f"{counted(int(result['epochs']), 'epoch')}, {counted(int(result.get('steps', 0)), 'step')}")
    if "train/seconds" in result:
        parts.append(f"{seconds_text(result['train/seconds'])} s of training")
    return "; ".join(parts) or str(result["status"])


def metrics_section(entry: Entry) -> str:
    """Return the metrics of the result, where the answers to the single images are not known."""
    facts = {
        name: [f"{value:,.0f}" if "/images" in name else metric_text(value)]
        for name, value in entry.result.items()
        if name.startswith(("test/", "val/"))
    }
    for metric in metrics_without_answers(entry.result):
        if metric.interval:
            facts[metric.name].append(f"{PERCENT} interval {interval_text(metric.interval)} ({metric.method})")
    return f"<h2>Result</h2>{facts_table(facts)}" if facts else ""


def curves_section(entry: Entry) -> str:
    figures = curves(entry.metrics)
    return f'<h2>Learning curves</h2><div class="figures">{"".join(figures)}</div>' if figures else ""


def provenance_section(entry: Entry) -> str:
    """Return where the run comes from, and what it measured of itself."""
    result = entry.result
    numbers = {
        name: result[name] for name in ("parameters", "best_step", "train/images_per_second") if result.get(name)
    }
    facts = {"folder": [entry.location]} | origin([entry])
    facts |= {
        name.partition("/")[2].replace("_", " ") or name.replace("_", " "): [f"{value:,.0f}"]
        for name, value in numbers.items()
    }
    if checksum := result.get("data_checksum"):
        facts["data checksum"] = [checksum]
    return f"<h2>Provenance</h2>{facts_table(facts)}"


def settings_section(entry: Entry) -> str:
    """Return every setting that the result depends on."""
    if not entry.settings:
        return ""
    facts = {"seed": [str(entry.seed)]} | {
        name: [setting_text(entry.settings, name)] for name in sorted(entry.settings)
    }
    heading = f"<summary>{counted(len(facts), 'setting')}</summary>"
    return f"<h2>Settings</h2><details>{heading}{facts_table(facts)}</details>"

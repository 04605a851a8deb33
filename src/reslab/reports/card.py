"""The card of a network that is shared: how well it does what, how it was made, and who may use it. It is Markdown."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from reslab.configuration import CONF, ZOO, has_prefix, name_of, unquoted
from reslab.data.preprocessing import GREY_WEIGHTS
from reslab.errors import UserError
from reslab.inference.export.share import Shared
from reslab.models.weights import OF_TORCHVISION
from reslab.reports.configurations import metric_text
from reslab.reports.entries import Entry, read_entry
from reslab.reports.run_page.metrics import metrics_without_answers
from reslab.reports.run_page.tested import AnsweredTest, require_same_test
from reslab.reports.settings import requested_text
from reslab.reports.statistics import PERCENT
from reslab.run import UNREADABLE, Result, read_configuration, tested_step
from reslab.text import counted, for_shell, printable, visible
from reslab.training.answers import read_answers

MAX_MATRIX = 20  # classes whose confusion matrix is read in a terminal; of more, the most frequent mistakes are listed
MAX_PAIRS = 20
NO_SHAPE = ("model.weights", "model.freeze", "model.layer_decay")  # options that change no tensor's shape
OWN_IMAGES = "imagefolder"  # the data set that is any folder of images


def card(shared: Shared) -> str:
    """Return the card of a network.

    Raises:
        UserError: a file of its run cannot be read, or its answers are not those of its result.
    """
    entry = read_entry(shared.run)
    if entry.result["status"] == UNREADABLE:
        raise UserError(f"{entry.location}: {entry.failure}")
    tested = answered_test(entry, shared)
    sections = {
        "": introduction(shared, entry.result),
        "Use": use(shared, entry.result),
        "Metrics": metrics(entry.result, tested),
        "Calibration": calibrated(shared),
        "Confusion matrix": confusion(tested) if tested else without_answers(entry.result),
        "Images": images(shared),
        "Data": data(entry.result),
        "Recipe": recipe(shared, entry.result),
        "Licence": [licence(shared)],
    }
    return "\n".join(block for title, lines in sections.items() for block in section(title, list(lines)))


def section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield from ([f"## {title}", ""] if title else [])
        yield from (*lines, "")


def answered_test(entry: Entry, shared: Shared) -> AnsweredTest | None:
    """Return the answers of a run's test; None if it was not tested, or the run does not have the answers."""
    if "test/accuracy" not in entry.result or not shared.run.answers_file.exists():
        return None
    answers, step = read_answers(shared.run.answers_file)
    require_same_test(answers, step, entry.result)
    return AnsweredTest(answers, entry.result)


def introduction(shared: Shared, result: Result) -> Iterator[str]:
    yield f"# {text(shared.folder.name)}"
    yield ""
    yield (
        f"{text(result['model'])}, trained on {text(result['data'])} with ResLab: "
        f"{counted(result['parameters'], 'parameter')} in `weights.safetensors`, {shared.size / 1e6:.2f} MB."
    )


def use(shared: Shared, result: Result) -> list[str]:
    """Return how a reader uses the network, which the zoo has by name."""
    is_in_zoo = shared.folder.absolute().parent == ZOO
    name = f"zoo/{shared.folder.name}" if is_in_zoo else shared.folder.name
    root = " root=…" if needs_root(result["data"]) else ""
    weights = name.replace("zoo/", "zoo:", 1) if is_in_zoo else name
    return [
        f"    python src/predict.py {for_shell(name)} photo.png",
        f"    python src/evaluate.py {for_shell(name)}{root}",
        f"    python src/train.py {model_of(shared, result)} {for_shell(f'model.weights={weights}')} data=…",
        "",
        "In Python:",
        "",
        "    import reslab",
        "",
        f"    reslab.load({printable(repr(name))}).predict(['photo.png'])",
    ]


def model_of(shared: Shared, result: Result) -> str:
    """Return the options of a network that takes the weights."""
    of_the_model = (each for each in shared.overrides if has_prefix(name_of(each), ("model",)))
    options = [each for each in of_the_model if name_of(each) not in NO_SHAPE]
    if not any(name_of(each) == "model" for each in options):
        known = (CONF / "model" / f"{result['model']}.yaml").is_file()
        options.insert(0, f"model={result['model'] if known else '…'}")
    return " ".join(for_shell(each) for each in options)


def metrics(result: Result, tested: AnsweredTest | None) -> Iterator[str]:
    """Yield the table of the test's metrics, with where each would be with other images."""
    if "test/accuracy" not in result:
        yield "The network was not tested."
        return
    yield f"| metric | value | {PERCENT} interval |"
    yield "|---|---|---|"
    for metric in tested.metrics() if tested else metrics_without_answers(result):
        bounds = metric.interval and f"{metric_text(metric.interval[0])} to {metric_text(metric.interval[1])}"
        yield f"| {metric.name} | {metric_text(metric.value)} | {f'{bounds} ({metric.method})' if bounds else ''} |"
    if "test/images" not in result:  # of an older version
        return
    yield ""
    n = int(result["test/images"])
    right = round(float(result["test/accuracy"]) * n)
    yield (
        f"{counted(n, 'test image')}, {right:,} right. An interval says where the metric of the same network would be "
        "with other images of this kind; other seeds are not in it."
    )


def calibrated(shared: Shared) -> Iterator[str]:
    """Yield what `calibrate` has stored with the weights, if it has, and what uses it."""
    if (stored := shared.calibration) is None:
        return
    yield (
        f"The weights have a calibration, for the views {', '.join(stored['views']) or 'none'}: the temperature "
        f"{stored['temperature']:.4f} with the standard error {stored['standard_error']:.4f}, fitted on "
        f"{counted(stored['images'], 'validation image')}, on which it changed the calibration error from "
        f"{metric_text(stored['calibration_error_before'])} to {metric_text(stored['calibration_error_after'])}. "
        "`calibrated=true` of `predict`, `evaluate` and `export` divides the logits by it, and `coverage=` of "
        "`predict` and `evaluate` gives sets of classes. The metrics above are those without it."
    )


def without_answers(result: Result) -> Iterator[str]:
    """Yield why there is no confusion matrix of a test."""
    if "test/accuracy" in result:
        yield (
            "The folder that was shared does not have the answers to single test images (`answers.safetensors`), from "
            "which the matrix and the other intervals are computed. They stay with the run: sharing the run itself "
            "gives both."
        )


def confusion(tested: AnsweredTest) -> Iterator[str]:
    """Yield the confusion matrix; of many classes the most frequent mistakes."""
    names = [text(name) for name in tested.answers.classes]
    if len(names) <= MAX_MATRIX:
        yield f"| true class | {' | '.join(names)} |"
        yield f"|---|{len(names) * '--:|'}"
        for name, row in zip(names, tested.confusion.matrix().tolist(), strict=True):
            yield f"| {name} | {' | '.join(f'{count:,}' if count else '' for count in row)} |"
        yield ""
        yield "A column is a predicted class, a number how many test images are of this pair."
        return
    yield "| true class | predicted | test images |"
    yield "|---|---|--:|"
    for true, predicted, count in tested.mistaken_pairs()[:MAX_PAIRS]:
        yield f"| {names[true]} | {names[predicted]} | {count:,} |"
    yield ""
    yield f"The most frequent mistakes between {len(names):,} classes."


def images(shared: Shared) -> Iterator[str]:
    """Yield what the network takes."""
    spec = shared.spec
    size = spec.size_in_evaluation
    stored = len(spec.mean)
    kind = {1: "grey", 3: "RGB"}.get(stored, f"{stored} channels")
    if stored == 3 and spec.channels == 1:
        weights = ", ".join(map(str, GREY_WEIGHTS))
        last = f", then added to one channel with the weights {weights}; a grey image is repeated to RGB before"
    else:
        last = ", then repeated to three channels" if stored == 1 and spec.channels == 3 else ""
    yield (
        f"{size}x{size} pixels, {kind}, from 0 to 1 with mean {numbers(spec.mean)} and standard deviation "
        f"{numbers(spec.std)} subtracted and divided{last}; `predict` does it. {len(spec.classes):,} classes: "
        f"{', '.join(map(text, spec.classes))}."
    )


def numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def data(result: Result) -> Iterator[str]:
    """Yield what the file of the data set in conf/ says of it, its source and its licence included."""
    name, known = result["data"], known_data()
    if name == OWN_IMAGES or name not in known:
        yield "Images of the author's own. Write here where they come from and what their licence allows."
        return
    for line in known[name].read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        yield line.removeprefix("# ")


def known_data() -> dict[str, Path]:
    """Return the files of conf/data by the names of their data sets."""
    return {file.stem: file for file in (CONF / "data").glob("[!_]*.yaml")}


def recipe(shared: Shared, result: Result) -> Iterator[str]:
    """Yield the command that trains the network again, and where it was trained."""
    yield f"    python src/train.py {' '.join(map(for_shell, shared.overrides))}".rstrip()
    if files := own_files(shared):
        yield ""
        yield (
            f"Only the author has what {' and '.join(map(text, files))} names: ask for it, or leave the option out for "
            "another network."
        )
    if needs_root(result["data"]):
        yield ""
        yield "Add `data.root=<the folder of the images>`."
    if "requested" in result:
        yield ""
        yield (
            f"The run was resumed with another length ({text(requested_text(result['requested']))}), and the command "
            "has the last one: by itself it gives other weights."
        )
    yield ""
    device = text(result["device"])
    if device == "cpu" and "threads" in result:
        device = f"{text(result.get('processor', device))}, {counted(result['threads'], 'thread')}"
    same_weights = (
        " The same command gives the same weights with the same versions, number of threads and kind of processor."
        if "processor" in result and result["device"] == "cpu" and "requested" not in result
        else ""
    )
    versions = ", ".join(f"{text(name)} {text(version)}" for name, version in result.get("versions", {}).items())
    yield (
        f"Seed {result['seed']}; the weights of step {tested_step(result):,} of {result['steps']:,} "
        f"({counted(result['epochs'], 'epoch')}), after {result['train/seconds']:,.0f} s of training on "
        f"{device}, {text(result['precision'])}. {versions}; ResLab's commit "
        f"{text(commit(result))}.{same_weights}"
    )
    yield ""
    yield (
        f"The weights were read back and compared with those of the run on {shared.images}: all logits are the same, "
        "bit for bit. `result.json` and `.hydra/` are those of the run, without its folders and loggers."
    )


def own_files(shared: Shared) -> list[str]:
    """Return the overrides of the recipe that name a file or a run on the author's machine."""
    theirs = set(shared.run.overrides)
    return [each for each in shared.overrides if each not in theirs or names_own_weights(each)]


def names_own_weights(override: str) -> bool:
    value = unquoted(override.partition("=")[2])
    published = value == "null" or value.startswith((OF_TORCHVISION, "zoo:", "zoo/"))
    return name_of(override) == "model.weights" and not published


def needs_root(name: str) -> bool:
    """Return whether a data set is wherever its user says, by its file in conf/data."""
    file = known_data().get(name)
    return file is not None and "root" in (options := read_configuration(file)) and options["root"] is None


def commit(result: Result) -> str:
    """Return the beginning of the commit, and whether the code differed from it: see `provenance.git_commit`."""
    number, dirty, differences = str(result.get("git_commit")).partition("-dirty-")
    return f"{number[:12]}{dirty}{differences}"


def licence(shared: Shared) -> str:
    stated = "not stated." if shared.licence is None else f"{text(shared.licence)}."
    return f"Of the weights: {stated} Of the data: see above."


def text(value: object) -> str:
    r"""Return text of unknown origin as Markdown shows it.

    Example:
        >>> print(text("a|b <i>"))
        a\|b &lt;i&gt;
    """
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(visible(value), quote=False))

"""benchmarks/gpu.py: its rows, its files, its table, and a dry run of every part on the CPU."""

import json
import os
import subprocess
import sys
import time

import pytest
from conftest import CONF

BENCHMARKS = CONF.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu  # noqa: E402  # the folder is no package
import gpu_data  # noqa: E402
import gpu_results  # noqa: E402
from gpu_data import MissingDataError  # noqa: E402
from gpu_results import Results, table  # noqa: E402
from gpu_rows import PARTS, Row, rows_of  # noqa: E402
from gpu_runs import Machine, OutOfTimeError, RowError, in_pieces  # noqa: E402

from reslab.run import Run  # noqa: E402
from reslab.training.options import TRAINING_SCHEMA  # noqa: E402

PLACE = {"card": "card A", "driver": "1.2", "versions": {"torch": "2.11.0"}, "commit": "c" * 40, "source": "s1"}


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "work", time.monotonic() + 3600)


def row(program="graph=true", seconds=10, measure=lambda machine: {"step_ms": 2.0}, subject="ResNet-20, batch 128"):
    return Row(subject, program, seconds, measure)


def fails(error):
    def measure(machine):
        raise error

    return measure


def run_dry(results, *arguments):
    command = [sys.executable, BENCHMARKS / "gpu.py", "--dry", "--results", results, "--minutes", "30", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout


# the rows


@pytest.mark.slow
@pytest.mark.parametrize("part", ["speed", "recipes", "fidelity", "disk"])
def test_every_command_line_is_one_that_train_accepts(composed, machine, monkeypatch, tmp_path, part):
    """The commands of a GPU are composed and checked, and not run."""
    commands = []

    def python(*arguments, **options):
        if arguments[0] == "src/train.py":
            commands.append(arguments[1:])
            raise RowError

    monkeypatch.setattr(machine, "python", python)
    monkeypatch.setattr(gpu_data, "unpack_once", lambda folder, unpack: folder)
    monkeypatch.setattr(gpu_data, "find", lambda name, *others: tmp_path / name)
    for each in rows_of(part, seeds=[3]):
        if "plain loop" in each.program:
            continue
        with pytest.raises(RowError):
            each.measure(machine)
    assert commands
    for words in commands:
        config = composed(*(word for word in words if not word.startswith(("hydra.", "resume="))))
        TRAINING_SCHEMA.check(config, [])
        assert config.trainer.accelerator == "gpu"


def test_rows_have_names_of_their_own_and_fit_into_a_call():
    for part in PARTS:
        rows = rows_of(part, seeds=[1, 2])
        assert len({each.name for each in rows}) == len(rows)
        assert all(each.seconds <= 60 * 7.5 for each in rows)


def test_data_is_found_and_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_data, "ROOT", tmp_path / "checkout")
    monkeypatch.delenv("RESLAB_SHARED_DATA", raising=False)
    with pytest.raises(MissingDataError, match=r"^mnist \(RESLAB_SHARED_DATA, \.\./shared/data or shared/data\)$"):
        gpu_data.mnist(tmp_path)
    inside, beside, named = (tmp_path / each for each in ("checkout/shared/data", "shared/data", "elsewhere"))
    for folder in (inside, beside, named):
        (folder / "mnist").mkdir(parents=True)
        assert gpu_data.find("mnist") == (folder if folder != named else beside) / "mnist"
    monkeypatch.setenv("RESLAB_SHARED_DATA", str(named))
    assert gpu_data.find("mnist") == named / "mnist"
    (named / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(gpu_data.gzip.compress(b"labels"))
    for _ in range(2):
        root = gpu_data.mnist(tmp_path / "work")
        assert (root / "MNIST" / "raw" / "train-labels-idx1-ubyte").read_bytes() == b"labels"
        (named / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(b"changed since")


# how they are measured


def test_an_error_is_one_line(machine):
    with pytest.raises(RowError, match=r"^exit status 1: ValueError: no such thing$"):
        machine.python("-c", "print('before'); raise ValueError('no such thing')")
    with pytest.raises(RowError, match=r"^exit status 2: error: model=x does not exist$"):
        machine.python("-c", "import sys; print('error: model=x does not exist\\n after'); sys.exit(2)")


def test_a_command_ends_with_the_call(tmp_path):
    late = Machine(tmp_path, time.monotonic())
    with pytest.raises(OutOfTimeError):
        late.python("-c", "import signal; signal.pause()")
    late.python("-c", "import signal; signal.pause()", stop=True)  # it is terminated, and that is no error


def test_a_long_run_says_how_far_it_is_until_it_has_ended(machine, monkeypatch):
    folder = machine.work / "fidelity" / "wide" / "resnet8-digits" / "2026-01-31_12-00-00"
    run = Run(folder)

    def train_two_epochs(*arguments, stop):
        assert stop
        assert arguments[-2:] == (f"outputs='{machine.work}/fidelity/wide'", "resume=auto")
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        run.write_metrics([*run.metrics, {"epoch": 1, "step": 5}, {"epoch": 2, "step": 10}])

    monkeypatch.setattr(machine, "python", train_two_epochs)
    with pytest.raises(OutOfTimeError, match=r"^2 epochs so far$"):
        in_pieces(machine, "wide", {}, {})
    with pytest.raises(OutOfTimeError, match=r"^4 epochs so far$"):
        in_pieces(machine, "wide", {}, {})
    monkeypatch.setattr(machine, "python", lambda *arguments, stop: run.finish({"epochs": 5}))
    assert in_pieces(machine, "wide", {}, {})["epochs"] == 5
    assert not (machine.work / "fidelity" / "wide").exists()


def test_a_plain_loop_is_measured_once_in_a_call_and_may_fail(machine, monkeypatch):
    measured = []

    def python(script, name, file, *options):
        measured.append(name)
        machine.work.mkdir(exist_ok=True)
        file.write_text(json.dumps({"eager": {"step_ms": 8.0}, "graph": {"error": "no capture"}}))

    monkeypatch.setattr(machine, "python", python)
    assert machine.plain_step("resnet20", "eager") == {"step_ms": 8.0}
    assert machine.ratio_to_plain("resnet20", "eager", step_ms=10.0) == {"ratio": 0.8}
    assert machine.ratio_to_plain("resnet20", "graph", step_ms=10.0) == {}
    with pytest.raises(RowError, match=r"^no capture$"):
        machine.plain_step("resnet20", "graph")
    assert measured == ["resnet20"]


def test_the_plain_loop_trains(monkeypatch):
    import gpu_loops
    import torch

    loop = gpu_loops.Loop(gpu_loops.Work(gpu_loops.resnet20, batch=2, pixels=8), torch.device("cpu"), as_graph=False)
    before = [parameter.clone() for parameter in loop.network.parameters()]
    assert loop.milliseconds(steps=2, warmup_steps=1) > 0
    after = [*loop.network.parameters()]
    assert sum(parameter.numel() for parameter in after) == 269_722  # the 0.27 M of He et al. 2015
    assert not any(torch.equal(one, other) for one, other in zip(before, after, strict=True) if one.ndim > 1)


def test_a_plain_loop_that_fails_does_not_end_the_other_kind(tmp_path, monkeypatch):
    import gpu_loops

    train = gpu_loops.measure

    def measure(work, device, as_graph, *steps):
        if as_graph:
            raise RuntimeError("capture failed")
        return train(work, device, as_graph, *steps)

    monkeypatch.setattr(gpu_loops, "measure", measure)
    monkeypatch.setattr(gpu_loops.torch, "set_float32_matmul_precision", lambda precision: None)
    monkeypatch.setattr(gpu_loops.torch.backends.cudnn, "benchmark", False)
    file = tmp_path / "loops.json"
    monkeypatch.setattr(sys, "argv", ["gpu_loops.py", "resnet20", str(file), "--steps", "1", "--cpu"])
    gpu_loops.main()
    result = json.loads(file.read_text())
    assert result["graph"] == {"error": "RuntimeError: capture failed"}
    assert result["eager"]["step_ms"] > 0


# the calls


def measure(rows, machine, results, again=False, **place):
    return gpu.measure_part("speed", rows, machine, results, PLACE | place, again)


def test_a_later_call_continues_where_the_last_one_ended(tmp_path, machine, capsys):
    measured = []
    rows = [row(name, measure=lambda _, name=name: measured.append(name) or {"step_ms": 1.0}) for name in "abc"]
    assert measure(rows[:2], machine, Results(tmp_path, "speed"))
    assert measure(rows, machine, Results(tmp_path, "speed"))
    assert measured == ["a", "b", "c"]
    measure(rows, machine, Results(tmp_path, "speed"), card="card B")
    measure(rows, machine, Results(tmp_path, "speed"), source="s2")
    measure(rows, machine, Results(tmp_path, "speed"), source="s2", again=True)
    assert len(measured) == 3 + 9
    assert len(json.loads((tmp_path / "gpu_speed.json").read_text())["rows"]) == 6  # of two cards


def test_a_row_that_does_not_fit_into_the_call_is_left_for_the_next_one(tmp_path, capsys):
    short = Machine(tmp_path / "work", time.monotonic() + 100)
    results = Results(tmp_path, "speed")
    assert not measure([row("a", seconds=50), row("b", seconds=200), row("c", seconds=1)], short, results)
    assert [each["program"] for each in results.records] == ["a"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("speed: ResNet-20, batch 128, b takes about 200 s, and ")


def test_a_row_that_fails_is_recorded_and_the_next_is_tried(tmp_path, machine):
    results = Results(tmp_path, "speed")
    rows = [
        row("a", measure=fails(RowError("exit status 1: out\nof memory"))),
        row("b", measure=fails(KeyError("x"))),
        row("c", measure=fails(MissingDataError("mnist"))),
        row("d", measure=fails(OutOfTimeError("3 epochs so far"))),
        row("e"),
    ]
    measure(rows, machine, results)
    assert [(each["status"], each.get("error")) for each in results.records] == [
        ("failed", "exit status 1: out of memory"), ("failed", "KeyError: 'x'"),
        ("not measured", "mnist is missing"), ("unfinished", "3 epochs so far"), ("measured", None),
    ]  # fmt: skip
    tried = []
    rows = [row(name, measure=lambda _, name=name: tried.append(name) or {"step_ms": 1.0}) for name in "abcde"]
    measure(rows, machine, results)
    assert tried == ["c", "d"]  # what may work in the next call


def test_a_record_says_where_and_how_it_was_measured(tmp_path, machine):
    def commands(machine):
        machine.commands.append(f"python src/train.py data.root='{machine.work}/data' x={gpu.ROOT}/y")
        return {"step_ms": 2.0}

    record = gpu.measure_row(row(measure=commands), machine) | gpu_results.origin("card A", "1.2")
    assert record["command"] == "python src/train.py data.root='WORK/data' x=y"
    assert (record["card"], record["driver"], record["values"]) == ("card A", "1.2", {"step_ms": 2.0})
    assert {"commit", "source", "seconds", "date", "versions"} <= record.keys()


def test_the_source_changes_with_what_is_measured_and_not_with_results(tmp_path):
    for folder in ("src", "conf", "benchmarks/results", "tests/gpu"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "src" / "a.py").write_text("1")
    before = gpu_results.source(tmp_path)
    (tmp_path / "benchmarks" / "results" / "gpu_speed.json").write_text("{}")
    (tmp_path / "benchmarks" / "README.md").write_text("text")
    assert gpu_results.source(tmp_path) == before
    for file in ("src/a.py", "tests/gpu/test_graph.py"):
        (tmp_path / file).write_text("2")
        assert gpu_results.source(tmp_path) != before
        before = gpu_results.source(tmp_path)


def test_a_machine_without_a_gpu_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no nvidia-smi
    monkeypatch.setattr(sys, "argv", ["gpu.py", "speed"])
    assert gpu.main() == 2
    assert capsys.readouterr().err.startswith("error: nvidia-smi finds no GPU")


# the table


def record(subject, program, values, **others):
    name = f"{subject}, {program}"
    return (
        PLACE | {"name": name, "subject": subject, "program": program, "status": "measured", "values": values} | others
    )


def lines_of(folder, start):
    return [line for line in table(folder).splitlines() if line.startswith(start)]


def test_the_table_has_every_row_also_those_that_no_file_has(tmp_path):
    rows = [each for part in PARTS for each in rows_of(part, seeds=[1])]
    assert table(tmp_path).count("| not measured |") == len(rows)
    assert table(tmp_path).count("Measured: nothing.") == len(PARTS)
    for each in rows:
        assert f"| {each.subject} | " in table(tmp_path)


def test_the_table_shows_the_newest_card_and_the_mean_of_the_seeds(tmp_path):
    recipes, speed = Results(tmp_path, "recipes"), Results(tmp_path, "speed")
    recipes.add(record("experiment=cifar10_fast", "seed 1", {"test": 0.5}, card="card B"))
    for seed, accuracy in ((1, 0.91), (2, 0.93)):
        values = {"validation": 0.9, "test": accuracy, "training_s": 4.0, "command_s": 20.0}
        recipes.add(record("experiment=cifar10_fast", f"seed {seed}", values))
    speed.add(record("ResNet-20, batch 128", "graph=true", {"step_ms": 2.125, "ratio": 0.98, "peak_mb": 1234.5}))
    speed.add(record("ResNet-20, batch 128", "graph=false", {}, status="failed", error="exit status 1: a | b"))
    assert lines_of(tmp_path, "| experiment=cifar10_fast") == [
        "| experiment=cifar10_fast | 2 | 0.9000 ± 0.0000 | 0.9200 ± 0.0141 | 4.0 ± 0.0 | 20.0 ± 0.0 |"
    ]
    assert lines_of(tmp_path, "| ResNet-20, batch 128 | graph=") == [
        "| ResNet-20, batch 128 | graph=false | failed: exit status 1: a \\| b |  |  |  |  |  |  |  |",
        "| ResNet-20, batch 128 | graph=true | 2.12 |  |  | 0.98 |  |  |  | 1,234 |",
    ]
    assert "Measured rows: card A, driver 1.2, torch 2.11.0, cccccccccccc: 1." in table(tmp_path)


def test_the_readme_has_the_table_of_the_results():
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    begin, end = gpu_results.BEGIN, gpu_results.END
    assert text[text.index(begin) + len(begin) : text.index(end)].strip() == table(gpu.RESULTS)


# dry runs


# By default one or two rows of each program. The rows of ResNet-50 and ResNet-18 are those of ResNet-20.
DRY = (
    {"tests": "", "speed": "ResNet-20", "recipes": "", "fidelity": "", "disk": ""}
    if "RESLAB_ALL_FAULTS" in os.environ
    else {
        "tests": "",
        "speed": "ResNet-20, batch 128, graph",
        "recipes": "_fast",
        "fidelity": "300 epochs, seed",
        "disk": "",
    }
)


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_row_of_a_dry_run_is_measured(tmp_path, part):
    status, output = run_dry(tmp_path, part, "--rows", DRY[part])
    records = json.loads((tmp_path / f"gpu_{part}.json").read_text())["rows"]
    assert [each["name"] for each in records] == [
        each.name for each in rows_of(part, seeds=[1]) if DRY[part] in each.name
    ]
    assert {each["status"] for each in records} == {"measured"}, output
    assert status == 0
    if part == "speed":  # a row with the command, the probe in it and the plain loop beside it
        (one,) = [each for each in records if each["name"] == "ResNet-20, batch 128, graph=false"]
        names = {"first_step_s", "step_ms", "peak_mb", "first_epoch_s", "second_epoch_s", "graph", "ratio"}
        assert one["values"].keys() == names
        assert one["values"]["first_step_s"] > one["values"]["second_epoch_s"]
        assert one["card"] == "CPU"

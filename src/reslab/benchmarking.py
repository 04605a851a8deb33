"""Speed and memory of training over devices, precisions, memory formats, compilation and batch sizes.

Each case runs in a process of its own (measuring.py): its memory and compiler begin clean, and one that the system ends
becomes a row. Nothing here imports torch, so that what is mistyped is answered at once.
"""

import logging
import multiprocessing
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations, product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reslab.errors import UserError
from reslab.files import write_json
from reslab.options import as_list

log = logging.getLogger(__name__)

Row = dict[str, Any]  # a case, its status (finished, out of memory, refused, failed), and its figures or error
PARTS = ("data", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Case:
    device: str
    precision: str
    memory_format: str
    compile: bool
    batch_size: int


OPTIONS = tuple(field.name for field in fields(Case))


def benchmark(config: DictConfig) -> dict[str, Any]:
    """Measure every case; write benchmark.json and benchmark.png into the run's folder."""
    cases = read_cases(config)
    require_devices(cases)
    rows = []
    for number, case in enumerate(cases, start=1):
        rows.append(measure_case(config, case))
        log.info("%d of %d  %s: %s", number, len(cases), describe(rows[-1], OPTIONS), outcome(rows[-1]))
    if all(row["status"] == "refused" for row in rows):
        raise UserError(rows[0]["error"])
    alone = dict.fromkeys(replace(case, batch_size=cases[0].batch_size) for case in cases)
    result = {
        "model": config.model.name,
        "data": config.data.name,
        "warmup_steps": config.benchmark.warmup_steps,
        "steps": config.benchmark.steps,
        "cases": rows,
        "ratios": ratios(rows),
        "largest_batches": [find_largest_batch(config, case) for case in alone if config.benchmark.largest_batch],
        "folder": config.folder,
    }
    folder = Path(config.folder)
    write_json(folder / "benchmark.json", result)
    draw(folder / "benchmark.png", result)
    return result


# cases


def read_cases(config: DictConfig) -> list[Case]:
    """Every combination."""
    if config.resume is not None:
        raise UserError("resume= belongs to train.py: a benchmark starts anew")
    names = ("devices", "precisions", "memory_formats", "compile", "batch_sizes")
    lists = (as_list(config.benchmark[name]) for name in names)
    return list(dict.fromkeys(Case(*values) for values in product(*lists)))


def require_devices(cases: list[Case]) -> None:
    if any(case.device == "gpu" for case in cases):
        from reslab.training import require_accelerator  # torch

        require_accelerator("gpu", option="benchmark.devices")


def settings_of(config: DictConfig, case: Case, warmup_steps: int, steps: int) -> dict[str, Any]:
    """train.py's settings for so many steps of the case on one device, with nothing beside the training."""
    settings: Any = OmegaConf.to_container(config, resolve=True)
    settings["case"] = {"memory_format": case.memory_format, "warmup_steps": warmup_steps}
    settings["compile"] = case.compile
    settings["data"] |= {"batch_size": case.batch_size, "val_fraction": 0, "validate_on_test": False}
    if "num_images" in settings["data"]:  # synthetic ones: never fewer than a batch
        settings["data"]["num_images"] = max(settings["data"]["num_images"], case.batch_size)
    settings["trainer"] |= {"accelerator": case.device, "precision": case.precision}
    settings["trainer"] |= {"devices": 1, "num_nodes": 1, "strategy": "auto", "overfit_batches": 0.0, "profiler": None}
    settings["trainer"] |= {"limit_train_batches": None, "limit_val_batches": 0, "enable_progress_bar": False}
    settings["trainer"] |= {"max_steps": warmup_steps + steps, "max_epochs": warmup_steps + steps}
    return settings


# measuring


def measure_case(config: DictConfig, case: Case) -> Row:
    options = config.benchmark
    return asdict(case) | in_own_process(settings_of(config, case, options.warmup_steps, options.steps))


def in_own_process(settings: dict[str, Any]) -> Row:
    """One that is out of memory spoils no other: oneDNN's compiler, for one, never works again after that."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure_and_send, args=(sender, settings))
    process.start()
    sender.close()  # so that the receiver sees the other end close
    try:
        row: Row = receiver.recv()
        return row
    except EOFError:
        process.join()
        return ended(process.exitcode or 0)
    finally:
        process.kill()
        process.join()


def measure_and_send(sender: Connection, settings: dict[str, Any]) -> None:
    from reslab.measuring import measure  # torch

    sender.send(measure(settings))


def ended(exit_code: int) -> Row:
    """Of a process that sent nothing; Linux kills one where memory has run out."""
    if exit_code == -signal.SIGKILL:
        return {"status": "out of memory"}
    reason = f"exit status {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name
    return {"status": "failed", "error": f"its process ended with {reason}"}


# the largest batch

STEPS_THAT_FIT = (
    2  # the first makes the optimizer's state and the gradients, which the second has beside its activations
)
GRANULARITY = 16  # the answer is at most a sixteenth below the true one


def find_largest_batch(config: DictConfig, case: Case) -> Row:
    """`batch_size`, null if not even one image fits, and what happened at the next larger one that was tried."""
    rows: dict[int, Row] = {}

    def fits(batch_size: int) -> bool:
        settings = settings_of(config, replace(case, batch_size=batch_size), 0, STEPS_THAT_FIT)
        rows[batch_size] = asdict(case) | {"batch_size": batch_size} | in_own_process(settings)
        row = rows[batch_size]
        log.info("%s: %s", describe(row, OPTIONS), "fits" if row["status"] == "finished" else outcome(row))
        return bool(row["status"] == "finished")

    largest, above = search_largest(fits, case.batch_size)
    known = {name: rows[largest][name] for name in ("accelerator", "peak_memory_mb", "run")} if largest else {}
    answer = {"batch_size": largest or None, "next": above, "reason": outcome(rows[above])}
    return asdict(case) | known | answer


def search_largest(fits: Callable[[int], bool], start: int) -> tuple[int, int]:
    """The largest number that fits (0: none) and the smallest tried that does not; doubling, then bisection."""
    low, high = 0, start
    while fits(high):
        low, high = high, 2 * high
    if low == 0:
        while high > 1 and not fits(high // 2):
            high //= 2
        low = high // 2
    while high - low > max(1, low // GRANULARITY):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low, high


# results


def ratios(rows: list[Row]) -> list[Row]:
    """For each two finished cases equal in all but the device: how many times the images/s of the slower one."""
    found = []
    for pair in combinations([row for row in rows if row["status"] == "finished"], 2):
        slower, faster = sorted(pair, key=lambda row: row["images_per_second"])
        common = {name: slower[name] for name in OPTIONS if name != "device"}
        if slower["accelerator"] != faster["accelerator"] and common.items() <= faster.items():
            ratio = faster["images_per_second"] / slower["images_per_second"]
            found.append({"faster": taken(faster), "slower": taken(slower), "ratio": ratio, **common})
    return found


def taken(row: Row) -> str:
    return f"{row['accelerator']} ({row['run']['precision']})"


def describe(row: Row, names: Iterable[str]) -> str:
    """`cpu, bf16-mixed, batch 64`; what `auto` stands for, once it is known."""
    words = {
        "device": row.get("accelerator", row.get("device")),
        "precision": row.get("run", row)["precision"],
        "memory_format": row["memory_format"],
        "compile": "compiled" if row["compile"] else "not compiled",
        "batch_size": f"batch {row['batch_size']}",
    }
    return ", ".join(str(words[name]) for name in names)


def varying(rows: list[Row]) -> list[str]:
    """The options that tell the cases apart."""
    return [name for name in OPTIONS if len({row[name] for row in rows}) > 1]


def outcome(row: Row) -> str:
    if row["status"] == "finished":
        return f"{short_number(row['images_per_second'])} images/s"
    return ": ".join(row[name] for name in ("status", "error") if name in row)


TABLE_WIDTH = 100  # at least: below it figures would be cut off


def print_benchmark(result: dict[str, Any]) -> None:
    rows, names = result["cases"], varying(result["cases"])
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    console.width = max(console.width, TABLE_WIDTH)
    console.print(speed_table(result, names), soft_wrap=False)
    for row in rows:
        if "error" in row:
            console.print(f"{describe(row, names or OPTIONS)}: {outcome(row)}")
    for ratio in result["ratios"]:
        alike = describe(ratio, [name for name in names if name not in ("device", "precision")])
        console.print(
            f"{ratio['faster']}: {ratio['ratio']:.1f} times the images/s of {ratio['slower']}{alike and ', ' + alike}"
        )
    for row in result["largest_batches"]:
        case = describe(row, [name for name in names if name != "batch_size"] or ["device"])
        console.print(f"largest batch, {case}: {row['batch_size'] or 'none'} ({row['next']}: {row['reason']})")
    folder = Path(result["folder"])
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    console.print(f"results: {folder} (benchmark.json, benchmark.png)")


def speed_table(result: dict[str, Any], names: list[str]) -> Table:
    """What all cases share stands in the title; milliseconds are medians, with the 10th to the 90th percentile."""
    rows = result["cases"]
    finished = next((row for row in rows if row["status"] == "finished"), None)
    title = f"{result['model']} on {result['data']}"
    if finished:
        title += f", {finished['image_size']} pixels\n" + "\n".join(machines(rows))
    same = describe(finished or rows[0], [name for name in OPTIONS if name not in names])
    table = Table(title=f"{title}\n{same}", title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("case")
    for name in ("images/s", "ms a step", *PARTS, "peak MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(describe(row, names or ["device"]), *figures(row))
    return table


def machines(rows: list[Row]) -> list[str]:
    """Of each device its name: `cpu: AMD EPYC, 2 threads`."""
    names = {}
    for row in rows:
        if row["status"] == "finished":
            cpu = f"{row['cpu']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"
            names[row["accelerator"]] = cpu if row["accelerator"] == "cpu" else row["run"]["device"]
    return [f"{accelerator}: {name}" for accelerator, name in names.items()]


def figures(row: Row) -> list[str]:
    if row["status"] != "finished":
        return ["", row["status"]]
    step, parts = row["step_ms"], row["parts_ms"]
    return [
        short_number(row["images_per_second"]),
        f"{short_number(step['median'])} ({short_number(step['p10'])}-{short_number(step['p90'])})",
        *(short_number(parts[name]["median"]) for name in PARTS),
        f"{row['peak_memory_mb']:,.0f}",
    ]


def short_number(value: float) -> str:
    return f"{value:.3g}" if value < 999 else f"{value:,.0f}"


def draw(path: Path, result: dict[str, Any]) -> None:
    """Images/s of every case, and how its step divides."""
    from matplotlib.figure import Figure  # a third of a second

    rows = result["cases"]
    names, places = varying(rows) or ["device"], range(len(rows))
    figure = Figure(figsize=(11, 1.8 + 0.4 * len(rows)), layout="constrained")
    speed, split = figure.subplots(1, 2, sharey=True)
    speeds = [row.get("images_per_second", 0.0) for row in rows]
    labels = [figures(row)[0] or row["status"] for row in rows]
    speed.bar_label(speed.barh(places, speeds), labels, padding=3)
    speed.set(xlabel="images/s", title=f"{result['model']} on {result['data']}", xlim=(0, 1.2 * max(speeds) or 1))
    speed.set_yticks(places, [describe(row, names) for row in rows])
    speed.invert_yaxis()  # the first case on top
    left = [0.0] * len(rows)
    for part in PARTS:
        widths = [share(row, part) for row in rows]
        split.barh(places, widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    split.set(xlabel="% of a step", title="where a step goes", xlim=(0, 100))
    figure.legend(*split.get_legend_handles_labels(), ncols=len(PARTS), loc="outside lower right", fontsize="small")
    figure.savefig(path, dpi=110)


def share(row: Row, part: str) -> float:
    """Per cent of the sum of the parts' medians, which need not be the step's own."""
    if row["status"] != "finished":
        return 0.0
    medians = {name: row["parts_ms"][name]["median"] for name in PARTS}
    return float(100 * medians[part] / sum(medians.values()))

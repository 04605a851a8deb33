"""The speed of a network in use: torch on each device, and ONNX Runtime in float32 and with 8 bits on the CPU."""

import statistics
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor

from reslab.benchmarking.measuring import cpu_name
from reslab.benchmarking.rows import Row
from reslab.configuration import as_list
from reslab.files import write_json
from reslab.inference.export.formats import onnx_session, quiet_conversion, write_onnx
from reslab.inference.export.latency import milliseconds
from reslab.inference.export.network import ExportedNetwork
from reslab.inference.export.quantization import Quantizer
from reslab.inference.precision import precision_plugin
from reslab.models.summary import layers
from reslab.run import BENCHMARK_FILE
from reslab.training.build import build_classifier, build_data, require_accelerator, resolve_precision
from reslab.training.classifier import Classifier
from reslab.training.process import prepare_process
from reslab.training.provenance import git_commit, versions

CALIBRATION_IMAGES = 64  # of the ranges of an int8 network, whose speed does not depend on them


class Runner(NamedTuple):
    """One way to compute a network.

    Attributes:
        runtime: "eager", "onnx" or "int8".
        device: the name of the GPU, or "cpu".
        precision: of its numbers.
        size: of the weights in memory, or of the file, in bytes.
        run: computes the probabilities of a batch, uint8 (N, H, W, C), and returns once they are on the CPU.
    """

    runtime: str
    device: str
    precision: str
    size: int
    run: Callable[[Tensor], Any]


def measure_inference(config: DictConfig) -> dict[str, Any]:
    """Measure a network in use, and write benchmark.json into the folder of the benchmark.

    The weights are those of `model.weights` or the first ones of a training: they do not change the speed. A call takes
    uint8 images in the memory of the host, and returns their probabilities there. All cases are called in turn.

    Args:
        config: the composed configuration conf/benchmark.yaml.

    Returns:
        What benchmark.json holds: the model, the data set, the pixels, parameters and FLOPs of an image, the threads,
        the processor and the versions; "cases", one row for each runtime and each size of a batch; the folder.

    Raises:
        UserError: there is no GPU but one is asked for, or the network cannot be built with these options.
    """
    for device in as_list(config.benchmark.devices):
        require_accelerator(device, option="benchmark.devices")
    prepare_process(config.seed)
    data = build_data(config, stages=("fit",))
    classifier = build_classifier(config, data).eval()
    runners = make_runners(config, classifier)
    sizes = as_list(config.benchmark.inference_batches)
    images = random_images(max(sizes), ExportedNetwork(classifier).image_shape)
    calls = {
        (number, size): partial(runner.run, images[:size].clone())
        for number, runner in enumerate(runners)
        for size in sizes
    }
    options = config.benchmark
    times = milliseconds(calls, options.seconds, options.steps, min(options.warmup_steps, 3))
    rows = [describe(runners[number], size, each) for (number, size), each in times.items()]
    side = data.spec.size_in_evaluation
    result = {
        "mode": "inference",
        "model": config.model.name,
        "data": config.data.name,
        "image_size": side,
        "parameters": sum(each.numel() for each in classifier.network.parameters()),
        "flops": layers(classifier.network, data.spec.channels, side).flops,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "rounds": len(next(iter(times.values()))),
        "versions": versions(),
        "git_commit": git_commit(),
        "cases": rows,
        "folder": config.folder,
    }
    if any(runner.runtime != "eager" for runner in runners):
        result["versions"]["onnxruntime"] = version("onnxruntime")
    write_json(Path(config.folder) / BENCHMARK_FILE, result)
    return result


def describe(runner: Runner, size: int, times: list[float]) -> Row:
    """Return the row of a case, given the milliseconds of its rounds."""
    median = statistics.median(times)
    return {
        "runtime": runner.runtime,
        "device": runner.device,
        "precision": runner.precision,
        "megabytes": runner.size / 1e6,
        "batch_size": size,
        "ms": median,
        "fastest_ms": min(times),
        "images_per_second": 1000 * size / median,
    }


def make_runners(config: DictConfig, classifier: Classifier) -> list[Runner]:
    """Return every way to compute a network that the options ask for."""
    runners = []
    runtimes = as_list(config.benchmark.runtimes)
    if "eager" in runtimes:
        runners += [eager(config, classifier, device) for device in as_list(config.benchmark.devices)]
    network = ExportedNetwork(classifier)
    with TemporaryDirectory() as folder, quiet_conversion(), torch.no_grad():
        file = Path(folder, "network.onnx")
        if "onnx" in runtimes:
            write_onnx(network, file, {})
            runners.append(onnx("onnx", "32-true", file))
        if "int8" in runtimes:
            Quantizer([random_images(CALIBRATION_IMAGES, network.image_shape)]).write(network, file, {})
            runners.append(onnx("int8", "int8", file))
    return list({runner[:3]: runner for runner in runners}.values())  # auto may be the same device


def eager(config: DictConfig, classifier: Classifier, accelerator: str) -> Runner:
    """Return torch on a device, in the precision of the option trainer.precision."""
    has_gpu = accelerator != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    precision = resolve_precision(config.trainer.precision, "gpu" if has_gpu else "cpu")
    plugin = precision_plugin(precision, device.type)
    network = plugin.convert_module(ExportedNetwork(classifier)).to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        with plugin.forward_context():
            probabilities: Tensor = network(images.to(device))[0]
        return probabilities.cpu()  # waits for the GPU

    size = sum(each.numel() * each.element_size() for each in network.state_dict().values())
    return Runner("eager", torch.cuda.get_device_name(device) if has_gpu else "cpu", precision, size, run)


def onnx(runtime: str, precision: str, file: Path) -> Runner:
    session = onnx_session(file.read_bytes())
    size = file.stat().st_size
    return Runner(
        runtime, "cpu", precision, size, lambda images: session.run(["probabilities"], {"images": images.numpy()})
    )


def random_images(count: int, shape: tuple[int, int, int]) -> Tensor:
    """Return random pixels, uint8 (count, H, W, C)."""
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

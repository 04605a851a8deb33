"""Plain PyTorch training loops with all images on the GPU: what the card allows, without ResLab.

    python benchmarks/gpu_loops.py <resnet20|resnet50|resnet18|resnet50_224> <result.json> [--steps 60]

Each network is trained in bf16 twice: every step launched by Python, and the whole step as one CUDA graph. The result
has "eager" and "graph", each with the milliseconds of a step and the peak memory, or with "error". --cpu takes a few
tiny steps on the CPU, where there are no graphs, to try the script.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

WARMUP_STEPS = 15  # cuDNN times its algorithms in the first ones
STEPS_BEFORE_CAPTURE = 5  # PyTorch's documentation asks for a few, on another stream


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut that has no parameters (He et al. 2015, option A)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.stride, self.added = stride, (channels_out - channels_in) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.added:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.added, self.added))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


def resnet20() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(3):
            layers.append(BasicBlock(channels, width, stride if block == 0 else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def resnet18() -> nn.Module:
    """Return torchvision's ResNet-18 with the 3x3 stem for small images."""
    network = models.resnet18(num_classes=10)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


def resnet50() -> nn.Module:
    return models.resnet50(num_classes=10)


@dataclass(frozen=True)
class Work:
    """What is trained: a network, the size of its images and batches, and its optimizer."""

    network: Callable[[], nn.Module]
    batch: int
    pixels: int = 32
    adam: bool = False


WORKS = {
    "resnet20": Work(resnet20, 128),
    "resnet50": Work(resnet50, 64, adam=True),
    "resnet18": Work(resnet18, 512),
    "resnet50_224": Work(resnet50, 256, pixels=224),
}


class Loop:
    """A training loop over random images that are on the device.

    Args:
        work: what is trained.
        device: where.
        as_graph: record the step once as a CUDA graph, and replay it.
    """

    def __init__(self, work: Work, device: torch.device, as_graph: bool) -> None:
        torch.manual_seed(0)
        self.device, self.as_graph = device, as_graph
        self.network = work.network().to(device).to(memory_format=torch.channels_last)
        shape = (4 * work.batch, 3, work.pixels, work.pixels)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        self.labels = torch.randint(0, 10, (len(self.images),), device=device)
        self.indices = torch.arange(work.batch, device=device)  # of the batch; a graph reads them at the same place
        self.optimizer = self.make_optimizer(work.adam)

    def make_optimizer(self, adam: bool) -> torch.optim.Optimizer:
        if adam:
            return torch.optim.Adam(self.network.parameters(), lr=1e-3, fused=True, capturable=self.as_graph)
        return torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)

    def step(self) -> None:
        x = (self.images[self.indices].float() - 127.5) / 127.5  # (N, 3, H, W)
        x = x.contiguous(memory_format=torch.channels_last)
        # A graph cannot use weights that autocast has cached before it was recorded.
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not self.as_graph):
            loss = F.cross_entropy(self.network(x).float(), self.labels[self.indices])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def recorded_step(self) -> Callable[[], None]:
        """Return a function that replays the step as a CUDA graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(STEPS_BEFORE_CAPTURE):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    def milliseconds(self, steps: int, warmup_steps: int) -> float:
        """Return the milliseconds of a step, each on another batch."""
        step = self.recorded_step() if self.as_graph else self.step
        order = torch.randperm(len(self.images), device=self.device).view(-1, len(self.indices))
        start = 0.0
        for number in range(warmup_steps + steps):
            if number == warmup_steps:
                self.synchronize()
                start = time.perf_counter()
            self.indices.copy_(order[number % len(order)])
            step()
        self.synchronize()
        return 1000 * (time.perf_counter() - start) / steps

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def measure(work: Work, device: torch.device, as_graph: bool, steps: int, warmup_steps: int) -> dict[str, float]:
    """Train, and return the milliseconds of a step and, on a GPU, the peak memory in megabytes."""
    if device.type == "cpu":
        return {"step_ms": Loop(work, device, as_graph=False).milliseconds(steps, warmup_steps)}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    milliseconds = Loop(work, device, as_graph).milliseconds(steps, warmup_steps)
    return {"step_ms": milliseconds, "peak_mb": torch.cuda.max_memory_reserved() / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("result", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # as in ResLab: TF32 for what is not in bf16
    work, device, warmup_steps = WORKS[options.work], torch.device("cuda"), WARMUP_STEPS
    if options.cpu:
        work, device, warmup_steps = Work(resnet20, batch=2, pixels=8, adam=work.adam), torch.device("cpu"), 1
    else:
        torch.cuda.init()  # the statistics of the memory need it
    result: dict[str, dict[str, Any]] = {}
    for name in ("eager", "graph"):
        try:
            result[name] = measure(work, device, name == "graph", options.steps, warmup_steps)
        except Exception as error:  # the other kind may work
            result[name] = {"error": f"{type(error).__name__}: {error}"}
    options.result.write_text(json.dumps(result))


if __name__ == "__main__":
    main()

"""Measure the training steps of networks whose last stages have few positions, with and without matrix products.

    python benchmarks/small_grids.py [--rounds 3] [--precision 32-true]

Each round trains on one random batch with PyTorch's convolutions, and then with those of reslab.models.convolution. The
first round is not counted. The script writes benchmarks/results/small_grids.json.
"""

import argparse
import time

import torch
from hydra import compose, initialize_config_dir
from recording import ratios, write_results

from reslab.configuration import CONF
from reslab.models import convolution
from reslab.models.build import build_network

CASES = {  # a network's options, and its images: channels, pixels, batch size
    "six_block": (["model=six_block"], (1, 28, 128)),
    "resnet50, 7x7 stem": (["model=resnet50", "model.stem=imagenet"], (3, 28, 64)),
    "resnet18, 7x7 stem": (["model=resnet18", "model.stem=imagenet"], (1, 28, 128)),
    # None of its grids is so small, so it shows how far noise alone goes.
    "resnet50, 3x3 stem": (["model=resnet50", "model.stem=cifar"], (3, 32, 64)),
}
OFF, ON = 0, convolution.MAX_POSITIONS


def measure(options: list[str], images: tuple[int, int, int], rounds: int, precision: str) -> dict[str, list[float]]:
    """Return the seconds of a step in each round."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*options, "trainer=cpu"])
    channels, size, batch = images
    network = build_network(config.model, channels, 10, size).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)
    x = torch.randn(batch, channels, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,))
    seconds: dict[str, list[float]] = {"convolutions": [], "products": []}
    for number in range(rounds + 1):
        for name, positions in zip(seconds, (OFF, ON), strict=True):
            convolution.MAX_POSITIONS = positions
            start = time.perf_counter()
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = torch.nn.functional.cross_entropy(network(x), labels)
            loss.backward()
            optimizer.step()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    arguments = parser.parse_args()
    results = {}
    for name, (options, images) in CASES.items():
        seconds = measure(options, images, arguments.rounds, arguments.precision)
        ratio = ratios(seconds["convolutions"], seconds["products"])
        results[name] = {"seconds": seconds, "convolutions_to_products": ratio}
        print(f"{name}: {ratio['median']:.2f} times as fast ({ratio['min']:.2f} to {ratio['max']:.2f})", flush=True)
    threads = torch.get_num_threads()
    write_results(__file__, {"steps": results, "threads": threads, **vars(arguments)}, ("torch",))


if __name__ == "__main__":
    main()

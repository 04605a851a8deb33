"""Compare the time to list image files: ResLab's class folders, and torchvision's ImageFolder on the same folder.

    python benchmarks/listing.py [--classes 182] [--images 800] [--rounds 5]

The files are empty: only their names count. Each round measures both programs in both orders, and the first round is
not counted. The script writes benchmarks/results/listing.json.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from recording import median_and_range, ratios, write_results
from torchvision.datasets import ImageFolder

from reslab.data.folders import class_images, find_splits, list_classes, subfolders


def write_files(folder: Path, classes: int, images: int) -> None:
    for label in range(classes):
        (folder / f"class{label:03}").mkdir()
        for number in range(images):
            (folder / f"class{label:03}" / f"{number:05}.jpg").touch()


def reslab_listing(folder: Path) -> list[tuple[str, int]]:
    assert not find_splits(folder)
    classes = subfolders(folder)
    found = class_images(folder, classes, list_classes(folder, classes))
    return [(path, label) for label, paths in enumerate(found) for path in paths]


def torchvision_listing(folder: Path) -> list[tuple[str, int]]:
    return ImageFolder(folder).samples


def seconds(listing: Callable[[Path], list[tuple[str, int]]], folder: Path) -> float:
    start = time.perf_counter()
    listing(folder)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("classes", 182), ("images", 800), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    times: dict[str, list[float]] = {"ours": [], "torchvision": []}
    programs = {"ours": reslab_listing, "torchvision": torchvision_listing}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, options.classes, options.images)
        assert reslab_listing(folder) == torchvision_listing(folder)
        for number in range(options.rounds + 1):
            for order in (list(programs), list(reversed(programs))):
                for program in order:
                    elapsed = seconds(programs[program], folder)
                    if number:
                        times[program].append(elapsed)
    results = {
        "seconds": {program: [round(value, 3) for value in values] for program, values in times.items()},
        "files": options.classes * options.images,
        **vars(options),
    }
    write_results(__file__, results, ("torchvision",))
    print(
        "{:,} files: ours {median:.2f} s,".format(options.classes * options.images, **median_and_range(times["ours"])),
        "torchvision {median:.2f} s;".format(**median_and_range(times["torchvision"])),
        "ratio {median:.2f} ({min:.2f} to {max:.2f}),".format(**ratios(times["ours"], times["torchvision"])),
        f"n={len(times['ours'])}",
    )


if __name__ == "__main__":
    main()

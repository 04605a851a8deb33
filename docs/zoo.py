"""Write the table of the zoo from the results of its networks: python docs/zoo.py."""

from pathlib import Path

from reslab.configuration import ZOO
from reslab.files import write_text
from reslab.newest import folders_in
from reslab.reports.statistics import PERCENT, proportion_interval
from reslab.run import Run

PAGE = ZOO / "README.md"
HEAD = f"""\
# Zoo

Trained networks, in the repository and in the wheel, by name:

    python src/predict.py zoo/digits_resnet8 photo.png
    python src/evaluate.py zoo/digits_resnet8
    python src/train.py model=resnet8 model.weights=zoo:digits_resnet8 data=mnist

```python
import reslab

run = reslab.load("zoo/digits_resnet8")
run.result["test/accuracy"], run.predict(["photo.png"])
```

A name leads to the card: metrics with their intervals, confusion matrix, data with source and licence, and the command
that trains the network again. The weights are under the licence of ResLab, MIT.

| name | parameters | MB | test accuracy | {PERCENT} interval | test images | seed | training |
|---|--:|--:|--:|---|--:|--:|--:|
"""
TAIL = """
The accuracy is that of one seed. Where several were trained ([reproductions.md](../reproductions.md)), it is the seed
of the best validation accuracy, and among equals of the lowest validation loss. The interval says where the accuracy
would be with other images of this kind, not with other seeds. [models.md](../models.md#the-zoo) says what is in a
folder, and how to make one of a network of your own. `python docs/zoo.py` writes this page.
"""


def row(folder: Path) -> str:
    """Return the row of a network."""
    run = Run(folder)
    result, n = run.result, int(run.result["test/images"])
    accuracy = result["test/accuracy"]
    low, high = proportion_interval(round(accuracy * n), n)
    device = f"{result['train/seconds']:,.0f} s, {result['device']}"
    return (
        f"| [{folder.name}]({folder.name}/README.md) | {result['parameters']:,} | "
        f"{run.weights.stat().st_size / 1e6:.2f} | {accuracy:.4f} | {low:.4f} to {high:.4f} | {n:,} | "
        f"{result['seed']} | {device} |\n"
    )


def page() -> str:
    return HEAD + "".join(row(ZOO / name) for name in folders_in(str(ZOO))) + TAIL


if __name__ == "__main__":
    write_text(PAGE, page())

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

Each name links to the card: metrics with their intervals, confusion matrix, data with source and licence, and the
command that trains the network again. The weights are under the licence of ResLab, MIT.

| name | parameters | MB | test accuracy | {PERCENT} interval | test images | seed |
|---|--:|--:|--:|---|--:|--:|
"""
TAIL = """
The accuracy is that of one seed. If several were trained ([reproductions.md](../reproductions.md)), it is the seed with
the best validation accuracy, or if several are equal, the lowest validation loss. The interval is for other images of
this kind, not for other seeds. [models.md](../models.md#the-zoo) says what is in a folder, and how to make one from a
network of your own. `python docs/zoo.py` writes this page.
"""


def row(folder: Path) -> str:
    """Return the row of a network."""
    run = Run(folder)
    result, n = run.result, int(run.result["test/images"])
    accuracy = result["test/accuracy"]
    low, high = proportion_interval(round(accuracy * n), n)
    return (
        f"| [{folder.name}]({folder.name}/README.md) | {result['parameters']:,} | "
        f"{run.weights.stat().st_size / 1e6:.2f} | {accuracy:.4f} | {low:.4f} to {high:.4f} | {n:,} | "
        f"{result['seed']} |\n"
    )


def page() -> str:
    return HEAD + "".join(row(ZOO / name) for name in folders_in(str(ZOO))) + TAIL


if __name__ == "__main__":
    write_text(PAGE, page())

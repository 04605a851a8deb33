"""Write a trained network as a file for other programs: `reslab export --help`."""

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.inference.export.options import EXPORT_SCHEMA, SHARE, require_packages
from reslab.interruption import signals
from reslab.newest import require_path

HELP = """\
Writes a trained network as one file for other programs. It takes uint8 images
(N, H, W, C), and holds the normalization, the softmax, the names of the
classes, how to prepare an image, and where the network comes from
(docs/deploy.md).

  python src/export.py latest
  python src/export.py latest format=torch_export output=network.pt2
  python src/export.py best.ckpt limit=1000

The file is read again by its own runtime, and answers to the test images of the
run. It is kept only if the answers are those of the run's network, which
computes in float32 on the CPU.

checkpoint  a run's folder, which stands for its best checkpoint; a .ckpt file;
            a folder of runs, which stands for the newest; latest
format      onnx, torch_export (.pt2), torchscript (.pt, which torch has
            deprecated), or int8: onnx with 8 bits, whose accuracy and speed
            are printed; or share: a folder for ResLab elsewhere, with the
            weights, the result, the settings and a card (docs/zoo)
output      the file; without it, export/<model> in the run's folder; of share,
            the folder, which is new
root        the folder of the run's own data set, if it has moved
limit       the number of test images to compare
verify      false compares on random pixels, where there are no test images
calibrated  true divides the logits by the temperature of calibrate.py
license     of the weights, for the card of share
"""  # not the docstring of this module, which python -OO removes


def run_export(config: DictConfig) -> None:
    """Write a network, and print what was compared."""
    require_path(config.checkpoint)
    require_packages(config.format)
    if config.format == SHARE:
        run_share(config)
        return
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_export
        from reslab.inference.export.export import export

    print_export(export(config))


def run_share(config: DictConfig) -> None:
    """Write the folder of a network, and print what was compared."""
    with signals.deferred():
        from reslab.commands.printing import print_shared
        from reslab.inference.export.share import share
        from reslab.reports.card import card

    print_shared(share(config, card))


def main() -> None:
    command(EXPORT_SCHEMA, run_export, HELP)


if __name__ == "__main__":
    main()

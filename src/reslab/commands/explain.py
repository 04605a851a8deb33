"""Show which parts of images speak for a class: `reslab explain --help`."""

from contextlib import closing
from itertools import chain, islice
from pathlib import Path

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.commands.resolvers import new_folder
from reslab.files import require_output_folder
from reslab.inference.options import EXPLAIN_SCHEMA
from reslab.interruption import signals
from reslab.machine import refuse_absent_gpu
from reslab.newest import require_checkpoint, require_path
from reslab.text import printable

HELP = """\
Shows which parts of images speak for a class, by Grad-CAM (arXiv:1610.02391).

  python src/explain.py latest photo.jpg more/
  python src/explain.py latest photos/*.jpg class=cat output=why
  python src/explain.py checkpoint=best.ckpt images=photos layer=layer3

Arguments without a name are the checkpoint, then the images.
checkpoint  a run's folder, which stands for its best checkpoint; a .ckpt file;
            a folder of runs, which stands for the newest; latest
images      a file, a folder (all images below it), a glob in quotes, or a list
            of them
class       the class to explain, by name; without it, the predicted one of each
            image
layer       the layer whose maps are weighed; without it, those that the global
            pooling takes. An earlier layer has finer maps, which say less about
            the class
device      auto, cpu or gpu
on_error    stop at images that cannot be read, or skip them
output      a folder for an overlay of each image, a contact sheet, sheet.png,
            and explanations.json; without it, a new one in outputs/explain

It needs the package captum: pip install -e '.[explain]'
"""  # not the docstring of this module, which python -OO removes


def run_explain(config: DictConfig) -> None:
    """Explain images, and write the overlays."""
    require_path(config.checkpoint)
    refuse_absent_gpu(config.device, "device")
    require_output_folder(config.output or ".")
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.configuration import as_list
        from reslab.inference.explained_files import SHEET, Explanations, write_explanations
        from reslab.training.progress import with_bar

    explanations = Explanations(
        require_checkpoint(config.checkpoint),
        [str(pattern) for pattern in as_list(config.images)],  # YAML reads a folder named 2024 as an integer
        class_name=config["class"],
        layer=config.layer,
        on_error=config.on_error,
        device=config.device,
    )
    with closing(with_bar(explanations, "explain", len(explanations.paths), lambda _: 1)) as explained:
        first = list(islice(explained, 1))  # a mistake leaves no empty folder
        folder = Path(config.output or new_folder("outputs/explain", "output"))
        rows = write_explanations(chain(first, explained), folder)
    print(f"written: {printable(folder / SHEET)} and the overlays beside it ({len(rows)} images)")


def main() -> None:
    command(EXPLAIN_SCHEMA, run_explain, HELP)


if __name__ == "__main__":
    main()

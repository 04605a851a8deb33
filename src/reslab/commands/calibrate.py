"""Calibrate a trained network: `reslab calibrate --help`."""

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.inference.options import CALIBRATE_SCHEMA, accelerator_of
from reslab.interruption import signals
from reslab.machine import refuse_absent_gpu
from reslab.newest import require_path

HELP = """\
Makes the probabilities of a trained network right on the average: fits one
temperature, by which its logits are divided, on the images that its run
validated on, and stores it in the checkpoint. The weights and the answers stay
the same. With it, evaluate and predict take calibrated=true and coverage=0.95.

  python src/calibrate.py latest
  python src/calibrate.py outputs/resnet20-digits/2026-01-31_12-00-00

checkpoint  a run's folder, which stands for its best checkpoint; a .ckpt file;
            a folder of runs, which stands for the newest; latest
root        the folder of the run's data set, if it has moved
views       none, flip, shifts, crops or a list of them: the copies of each
            image whose logits are averaged. The temperature is right for these
device      auto, cpu or gpu
"""  # not the docstring of this module, which python -OO removes


def run_calibrate(config: DictConfig) -> None:
    """Calibrate a network, and print how good its probabilities were and are."""
    require_path(config.checkpoint)
    refuse_absent_gpu(*accelerator_of(config))
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_calibration
        from reslab.inference.calibration import calibrate

    print_calibration(calibrate(config))


def main() -> None:
    command(CALIBRATE_SCHEMA, run_calibrate, HELP)


if __name__ == "__main__":
    main()

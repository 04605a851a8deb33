"""Train a residual network on a data set: `reslab train --help`."""

import logging
from typing import TYPE_CHECKING

from reslab.commands.main import run

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from reslab.run import Result

log = logging.getLogger(__name__)

HELP = """\
Trains a residual network on a data set, tests the weights with the best
validation accuracy and writes the result.

  python src/train.py                         ResNet-20 on digits: no download
  python src/train.py model=resnet50 data=cifar10 trainer.accelerator=gpu
  python src/train.py model=resnet18 data=imagefolder data.root=photos
  python src/train.py experiment=six_block    a recipe from conf/experiment
  python src/train.py -m model=resnet20,resnet32 seed=1,2,3
  python src/train.py model=resnet18 summary=true     its layers; no training
  python src/train.py model=resnet18 find_lr=true     suggest a learning rate

A run's folder is outputs/<model>-<data>/<date>_<time>; latest is the newest.
  python src/train.py resume=latest trainer.max_epochs=90   continue it
  python src/train.py from=latest seed=2                    repeat it anew
  python src/train.py model=resnet20 model.weights=latest   fine-tune it

Choices (group=name; each name is a file in conf/<group>/):
{choices}

Common options (--cfg job shows all, with their values):
  trainer.max_epochs=10         trainer.accelerator=auto|cpu|gpu
  trainer.precision=auto|32-true|bf16-mixed
  data.batch_size=128           data.image_size=96
  data.val_fraction=0.1         data.root=/my/data
  data.augment=null             model.weights=IMAGENET1K_V2
  model.freeze=true             optimizer.lr=0.1
  label_smoothing=0.1           seed=1

Flags of Hydra (https://hydra.cc): -m (sweep), --cfg job, --hydra-help
"""  # not the docstring of this module, which python -OO removes


def run_train(config: "DictConfig") -> float | list[float | None] | None:
    """Train one run, print its result, and return what a sweeper of Hydra optimizes."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from reslab.interruption import signals

    if config.summary:
        show_summary(config)
        return None
    if config.find_lr:
        suggest_learning_rate(config)
        return None
    log_beginning(config)
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_next_steps, print_result
        from reslab.training.fit import train  # torch and lightning, once the configuration is known to be right

    result = train(config)
    is_single = HydraConfig.get().mode == RunMode.RUN  # a sweep ends with a table of all its jobs instead
    if is_single:
        print_result(result)
    write_page(config, result)
    if is_single:
        print_next_steps(result, config)
    if isinstance(config.objective, str):
        return result.get(config.objective)
    return [result.get(name) for name in config.objective]


def write_page(config: "DictConfig", result: "Result", config_dir: str | None = None) -> None:
    """Write the page of a run that was tested, in its first process. The run has ended: what fails is one warning."""
    from reslab.errors import one_line
    from reslab.interruption import signals
    from reslab.machine import is_first_process
    from reslab.run import Run

    if not (config.page and "test/accuracy" in result and is_first_process()):
        return
    try:
        with signals.deferred():  # the run has ended, and its page takes seconds
            from reslab.reports.run_page.writing import write_run_page

            write_run_page(Run(config.folder, config_dir))
    except Exception as error:
        log.debug("the page failed", exc_info=error)
        log.warning("the page of the run was not written: %s", one_line(error, "config"))


def show_summary(config: "DictConfig") -> None:
    """Print the layers of the network that the configuration would train. Nothing is written."""
    from reslab.files import drop_run_logs
    from reslab.interruption import signals

    drop_run_logs()
    with signals.deferred():
        from reslab.commands.printing import print_summary

    print_summary(config)


def suggest_learning_rate(config: "DictConfig") -> None:
    """Test rising learning rates, write their curve into a folder, and print the rate to take. Nothing is trained."""
    from pathlib import Path

    from reslab.commands.resolvers import new_folder
    from reslab.files import drop_run_logs
    from reslab.interruption import signals

    drop_run_logs()
    log_beginning(config)
    with signals.deferred():
        from reslab.commands.printing import print_suggestion
        from reslab.training.find_lr import range_test, suggested, write_curve

    curve = range_test(config)
    folder = Path(new_folder(f"{config.outputs}/find_lr"))
    write_curve(curve, folder)
    print_suggestion(suggested(curve), folder)


def log_beginning(config: "DictConfig") -> None:
    """Log what begins, before the imports that take seconds. Raise UserError if it needs a GPU that is not there."""
    from reslab.machine import is_first_process, refuse_absent_gpu

    refuse_absent_gpu(config.trainer.accelerator, "trainer.accelerator")
    if is_first_process():
        log.info("%s on %s: loading …", config.model.name, config.data.name)


def main() -> None:
    from reslab.commands.entry import command
    from reslab.training.options import TRAINING_SCHEMA

    command(TRAINING_SCHEMA, run_train, HELP)


if __name__ == "__main__":  # the processes of a run and the jobs of a sweep start this file
    run("train")

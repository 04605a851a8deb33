"""One run, from its composed configuration to its result: train, test the best weights, write the result."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from torch import distributed

from reslab.configuration import has_prefix, task_overrides, to_dict
from reslab.data.base import ImageDataModule
from reslab.data.images import first_few
from reslab.data.training_files import file_changes
from reslab.errors import RunError, UserError
from reslab.files import sole_user
from reslab.interruption import signals
from reslab.machine import is_first_process
from reslab.run import FINISHED, LEFT_TO_THE_RUN, Result, Run, canonical, identity, time_text
from reslab.training.adapters import Adapter, open_loggers, run_loggers
from reslab.training.answers import with_files
from reslab.training.build import (
    best_of,
    build_callbacks,
    build_classifier,
    build_data,
    build_trainer,
    require_accelerator,
)
from reslab.training.checkpoints import (
    Resumed,
    any_process,
    interruption_error,
    read_checkpoint,
    resumed_checkpoint,
    step_of,
)
from reslab.training.classifier import Classifier
from reslab.training.distributed import count_over_processes, joined_processes
from reslab.training.ending import finish, without_loggers
from reslab.training.graph import build_graphs
from reslab.training.history import History
from reslab.training.opening import (
    data_line,
    freeze_line,
    loss_line,
    network_line,
    opening_level,
    shared_line,
    weights_lines,
)
from reslab.training.process import prepare_process, quiet_other_processes
from reslab.training.progress import EpochLines
from reslab.training.provenance import provenance, requested_lengths
from reslab.training.record import EARLIER_ORIGINS
from reslab.training.stopping import stop_moment, stop_reason, was_pruned
from reslab.training.texts_and_pictures import LogTextsAndPictures
from reslab.training.threads import fixed_threads

log = logging.getLogger(__name__)


def train(config: DictConfig) -> Result:
    """Train a network, test it and write the result.

    The weights with the best validation accuracy are tested; without validation, the last ones.

    Args:
        config: a composed conf/config.yaml. The run is written into `config.folder`.

    Returns:
        The content of the run's result.json: metrics by name ("test/accuracy"), seconds of training, versions, …

    Raises:
        UserError: the configuration cannot be trained, or the folder is in use or holds another run.
        RunError: training failed, e.g. because the loss is no longer finite.
        Interrupted: a signal ended the run, after its last checkpoint was written.
    """
    quiet_other_processes()
    require_accelerator(config.trainer.accelerator)
    run = Run(config.folder)
    with sole_user(run.folder) if is_first_process() else nullcontext():
        if not config.resume and run.has_ended:  # by a process that was waited for
            raise UserError(f"{run.folder} holds a finished run: another hydra.run.dir begins a new one")
        resumed = resumed_checkpoint(Path(config.resume), config) if config.resume else None
        if resumed and has_nothing_to_do(config, run, resumed):
            result = run.result
            why = f" ({result['stopped']})" if "stopped" in result else ""
            log.info("%s has finished at step %d%s, so nothing is left to do", run.folder, resumed.step, why)
            return result
        try:
            threads = fixed_threads(config, resumed.record if resumed else None)
            loggers = run_loggers(config, resumed)
            with threads, joined_processes(config.trainer.num_nodes, run), loggers as adapters:
                return fit_and_test(config, run, resumed, adapters)
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()  # the next job of a sweep makes another one


KEPT_BEST = "kept_best.ckpt"  # a best checkpoint that is not that of the result any more
# Options that say where a run is, and those that it has chosen itself.
NO_CHANGE = ("resume", "folder", "outputs", *LEFT_TO_THE_RUN)


def has_nothing_to_do(config: DictConfig, run: Run, resumed: Resumed) -> bool:
    """Return whether a run is finished, with its result and all that belongs to it, and no option has changed."""
    result = run.result
    if result["status"] != FINISHED or result.get("steps") != resumed.step or resumed.broken:
        return False
    if result.get("unwritten"):
        return False
    before, now = identity(resumed.record["config"]), identity(to_dict(config, resolve=True))
    names = [name for name in before.keys() | now.keys() if not has_prefix(name, NO_CHANGE)]
    if any(canonical(before.get(name), name) != canonical(now.get(name), name) for name in names):
        return False
    try:
        rows = run.metrics
    except (OSError, ValueError):
        return False
    best = result.get("best_step")
    is_tested = not config.test or ("test/accuracy" in result and run.answers_file.is_file())
    is_complete = bool(rows) and rows[-1].get("step") == resumed.step and best in (None, step_of(run.best))
    return resumed.checkpoint.resolve() == run.last.resolve() and is_tested and is_complete


def fit_and_test(config: DictConfig, run: Run, resumed: Resumed | None, adapters: Mapping[str, Adapter]) -> Result:
    """Train in the run's folder, or continue there from a checkpoint, then test and write the result."""
    prepare_process(config.seed)
    seen_files = resumed.record.get("training_files") if resumed else None
    data = build_data(config, stages=("fit", "test") if config.test else ("fit",), seen_files=seen_files)
    if resumed:
        refuse_other_classes(data, resumed.record["spec"]["classes"])
        # An older version may have computed other statistics.
        data.mean, data.std = (resumed.record["spec"][name] for name in ("mean", "std"))
    log.log(opening_level(), "%s", data_line(data))
    if is_first_process() and (line := shared_line(data)):
        log.log(opening_level(), "%s", line)
    _ = data.batches_per_epoch  # a batch that is too large is a mistake
    classifier = build_classifier(config, data, resumed.shapes if resumed else None)
    history = History(run)
    callbacks = build_callbacks(config, data, history)
    best = best_of(callbacks)
    lines = next(callback for callback in callbacks if isinstance(callback, EpochLines))
    pictures = [callback for callback in callbacks if isinstance(callback, LogTextsAndPictures)]
    for callback in pictures if is_first_process() else ():
        callback.adapters = [*adapters.values()]
    folder_update = FolderUpdate(config, run, resumed, chooses_best=best is not None)
    trainer = build_trainer(config, [folder_update, *callbacks], [adapter.logger for adapter in adapters.values()])
    classifier.graphs = graphs = build_graphs(config, classifier, trainer)
    origin = provenance(config, data, classifier, trainer)
    if resumed:
        refuse_other_images(data, resumed.record, origin)
    log.log(opening_level(), "%s", network_line(origin, data.spec, trainer.world_size))
    if trainer.precision != config.trainer.precision == "16-mixed":
        log.warning("trainer.precision=16-mixed needs a GPU: this run computes in %s", trainer.precision)
    if not resumed and (line := freeze_line(config.model)):
        log.warning("%s", line)
    for line in weights_lines(config, data, origin["data_checksum"]) if is_first_process() and not resumed else ():
        log.warning("%s", line)
    if line := loss_line(classifier.loss_name, origin.get("class_weights")):
        log.log(opening_level(), "%s", line)
    lengths = requested_lengths(config, resumed.record if resumed else None, resumed.step if resumed else 0)
    classifier.record |= {"origin": origin, "requested": lengths, "training_files": data.training_files()}
    classifier.record["validation_files"] = data.validation_files()
    with signals.deferred(), memory_advice(config, graphs.is_active):
        open_loggers(adapters, config, classifier, resumed)
        checkpoint = resumed.checkpoint if resumed else None
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        finally:
            graphs.forget()  # their memory is for the test, and for the next job of a sweep
        source, ended_at = run.last, time.time()  # the checkpoint of the last weights, and when they were reached
        if resumed and not folder_update.is_done:  # nothing was left to train, and Lightning has called no hook
            log.info("nothing is left to train: the run has ended at step %d", resumed.step)
            source, ended_at = resumed.checkpoint, run.ended_at or ended_at
            classifier.load_state_dict(read_checkpoint(source)["state_dict"])  # with callbacks=ema, the averages
            folder_update.apply()
            history.write_rows(trainer)  # metrics.csv may have been lost or damaged since
            lines.shown = len(history.rows)  # before
        if best is not None:
            best.forget_replaced()
        if best is not None and best.best_step is None:  # best.ckpt is of other weights, so the last ones compete again
            history.validated_step = None
        last = validate_last_weights(trainer, classifier, data, history)
        if last:
            if best is not None:
                best.compare_last(trainer, source)
            lines.shown = min(lines.shown, len(history.rows) - 1)
        lines.show_rows()
    pruned = was_pruned(trainer)
    stopped = stop_reason(trainer)
    if stopped:
        log.info("stopped after %s: %s", stop_moment(trainer), stopped)
    best_step = best.best_step if best else None
    metrics = history.metrics_at(best_step)
    result: Result = {name: value for name, value in metrics.items() if name.startswith(("train/", "val/"))}
    result |= {"epochs": history.epochs, "steps": trainer.global_step, "best_step": best_step}
    result |= {"train/seconds": history.train_seconds, "train/images_per_second": history.images_per_second}
    result |= {"graph": graphs.outcome, "ended": time_text(ended_at)}
    if data.fold_split:
        result["fold_split"] = data.fold_split
    if len(lengths) > 1:
        result["requested"] = lengths
    if stopped:
        result["stopped"] = stopped
    if config.test and not pruned:
        chosen = run.best if best is not None and best.best_step is not None else None  # None: the last weights
        why = None if chosen else why_last_weights(config, data)
        result |= test(trainer, classifier, data, chosen, why)
    for name, left_out in data.left_out.items():
        unreadable = count_over_processes(trainer, len(left_out))
        if f"{name}/images" in result and (split := data.splits[name]):
            result[f"{name}/images_available"] = data.sizes[name]
            if unreadable := unreadable + data.sizes[name] - len(split):
                result[f"{name}/images_unreadable"] = unreadable
    result |= origin
    if EARLIER_ORIGINS in classifier.record:
        result[EARLIER_ORIGINS] = classifier.record[EARLIER_ORIGINS]
    if not trainer.is_global_zero:
        return result
    answers = classifier.answers
    if answers is not None and (split := data.splits["test"]):
        answers = with_files(answers, split, data.root)
    return finish(
        run, classifier, adapters, result, epoch=trainer.current_epoch, last=last, pictures=pictures, answers=answers,
        pruned=pruned,
    )  # fmt: skip


def refuse_other_classes(data: ImageDataModule, recorded: list[str]) -> None:
    """Raise UserError unless the classes are those that a resumed run began with, for which its outputs stand."""
    now = list(data.classes)
    if now == recorded:
        return
    changes = {
        "new": [name for name in now if name not in recorded],
        "missing": [name for name in recorded if name not in now],
    }
    told = "; ".join(f"{what}: {first_few(names)}" for what, names in changes.items() if names) or "another order"
    raise UserError(
        f"data={data.name}: the classes are not those that the run began with ({told}); start a new run, e.g. with its "
        "weights: model.weights=<its folder>"
    )


def refuse_other_images(data: ImageDataModule, recorded: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    """Raise UserError unless the images are those that a resumed run began with, or `data.allow_changes` is true.

    Args:
        data: the data set.
        recorded: the record of the checkpoint.
        origin: the origin of this run, with the checksums of the training and validation images that are there now.
    """
    before, files = recorded["origin"], recorded.get("training_files")  # older runs do not have all checksums
    is_same_data = before["data_checksum"] == origin["data_checksum"]
    if is_same_data and before.get("files_checksum") in (None, origin["files_checksum"]):
        return
    changes = file_changes(data.file_splits, data.root, files, data.test_files)
    if not changes and is_same_data:
        changes = "files of the same names have other contents"
    elif not changes and files is not None:
        changes = "the files are the same, but not their labels or their division"
    more = f": {changes}" if changes else ""
    changed = f"data={data.name}: the images differ from those that the run began with{more}"
    if not data.allow_changes:
        raise UserError(f"{changed}; start a new run, or set data.allow_changes=true to continue with these")
    log.warning("%s", changed)


class FolderUpdate(Callback):
    """Change the run's folder when training has truly begun or resumed, so that a mistake before leaves it as it was.

    An earlier result is removed, and the settings are written with which a resumed run continues.

    Args:
        config: the configuration of the run.
        run: the run.
        resumed: what it continues from; None for a new run.
        chooses_best: whether the run has a best checkpoint.
    """

    def __init__(self, config: DictConfig, run: Run, resumed: Resumed | None, chooses_best: bool) -> None:
        self.config, self.run, self.resumed, self.chooses_best = config, run, resumed, chooses_best
        self.is_done = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if any_process(trainer, signals.caught is not None):
            raise interruption_error()
        self.apply()

    def apply(self) -> None:
        """Change the folder. Only the first process does so."""
        self.is_done = True
        if not is_first_process():
            return
        self.run.reopen()
        for path in self.resumed.broken if self.resumed else ():
            path.replace(path.with_suffix(".broken"))
        if not self.chooses_best:
            self.keep_best()
        if self.config.resume and HydraConfig.initialized():
            overrides = [argument for argument in task_overrides() if not argument.startswith("resume=")]
            self.run.write_settings(OmegaConf.to_yaml(OmegaConf.merge(self.config, {"resume": None})), overrides)

    def keep_best(self) -> None:
        """Give best.ckpt another name: the result will be of the last weights, and so must the run's checkpoint be."""
        if self.run.best.exists():
            kept = self.run.best.with_name(KEPT_BEST)
            self.run.best.replace(kept)
            log.warning("no validation chooses weights any more: best.ckpt, which one chose before, is %s now", kept)


def validate_last_weights(
    trainer: L.Trainer, classifier: Classifier, data: ImageDataModule, history: History
) -> dict[str, float]:
    """Validate the last weights where training ended without that.

    A limit may have ended it within an epoch, or trainer.check_val_every_n_epoch have left out the last one.

    Returns:
        The metrics by name; nothing where the last weights were validated before, or nothing is validated.
    """
    if data.splits["val"] is None or trainer.limit_val_batches == 0 or not history.rows:
        return {}
    if history.validated_step == trainer.global_step:
        return {}
    with without_loggers(trainer):
        (metrics,) = trainer.validate(classifier, datamodule=data, verbose=False)
    history.add_validation(trainer, classifier)
    return dict(metrics)


@contextmanager
def memory_advice(config: DictConfig, has_graphs: bool = False) -> Iterator[None]:
    """Turn an error of a GPU that is out of memory into a RunError that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        size, accumulated = config.data.batch_size, config.trainer.accumulate_grad_batches
        half, twice = size // 2, 2 * accumulated
        advice = (
            f"try data.batch_size={half} trainer.accumulate_grad_batches={twice}: an optimizer step then averages over "
            f"{half * twice} images instead of {size * accumulated}, and a batch norm over {half} instead of {size}"
        )
        advice = advice if size > 1 else "the network is too large for it"
        advice = f"graph=false needs less; {advice}" if has_graphs else advice
        raise RunError(f"out of memory on the GPU with data.batch_size={size}: {advice}") from error


def why_last_weights(config: DictConfig, data: ImageDataModule) -> str:
    """Say why no validation has chosen the weights of a test."""
    if data.splits["val"] is None:
        return "there are no validation images"
    if data.validate_on_test:
        return "the validation images are the test images"
    if config.trainer.limit_val_batches == 0:
        return "trainer.limit_val_batches=0 leaves the validation out"
    return "no validation has chosen others"


def test(
    trainer: L.Trainer, classifier: Classifier, data: ImageDataModule, checkpoint: Path | None, why: str | None
) -> Result:
    """Return the test metrics by name; nothing if the data set has no test images.

    Args:
        trainer: the trainer.
        classifier: the network.
        data: the data.
        checkpoint: of the weights to test; None for the last ones.
        why: to test the last ones.
    """
    if data.splits["test"] is None:
        log.info("data=%s has no test set, so the network is not tested", data.name)
        return {}
    if trainer.limit_test_batches == 0:
        log.info("trainer.limit_test_batches=0, so the network is not tested")
        return {}
    if checkpoint is None:
        log.log(opening_level(), "the last weights are tested: %s", why)
    with without_loggers(trainer):
        (metrics,) = trainer.test(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    return dict(metrics) | {"test/images": classifier.evaluated_images["test"]}

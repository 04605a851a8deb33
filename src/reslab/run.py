"""A run's folder: its files, status, result and checkpoints."""

import csv
import json
import math
import os
import time
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from reslab.configuration import flatten, has_prefix, name_of, shown
from reslab.errors import UserError, mistakes_as_user_errors
from reslab.files import plain_bytes, write_csv, write_json, write_text, write_waiting_lines
from reslab.text import for_shell

if TYPE_CHECKING:
    from reslab.data.options import OnError
    from reslab.data.splits import SplitName
    from reslab.inference.export.options import FormatName
    from reslab.inference.options import Top, UnknownClasses
    from reslab.training.classifier import Classifier
    from reslab.training.options import View

Result = dict[str, Any]

# The options that a resumed run may change. Any other difference makes it another run.
MAY_DIFFER = (
    "resume", "folder", "outputs", "test", "page", "summary", "find_lr", "objective", "compile", "graph", "logger",
    "checkpoint", "sweep", "callbacks",
    "data.root", "data.num_workers", "data.on_error", "data.allow_changes", "trainer.max_epochs", "trainer.max_steps",
    "trainer.max_time", "trainer.accelerator",
    "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.log_every_n_steps",
    "trainer.limit_test_batches", "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.profiler",
    "trainer.detect_anomaly",
)  # fmt: skip
MAY_NOT_DIFFER = ("callbacks.ema",)  # the exception within callbacks: it changes the weights
# Options that the result of a run does not depend on.
WITHOUT_EFFECT = (
    "folder", "outputs", "resume", "summary", "find_lr", "objective", "test", "page", "logger", "checkpoint", "sweep",
    "graph", "data.num_workers", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.log_every_n_steps", "trainer.profiler", "trainer.detect_anomaly", "callbacks.texts_and_pictures",
    "callbacks.last_checkpoint", "callbacks.pruning",
)  # fmt: skip
# Options that are newer than some runs, with the value that does what those runs did.
ABSENT: dict[str, Any] = {
    "flip_averaging": False, "mixup": 0.0, "cutmix": 0.0, "model.whiten_stem": False, "data.augment.randaugment": 0,
    "data.on_error": "stop", "outputs": "outputs", "checkpoint.every_minutes": 10, "sweep.stop_on_failure": False,
    "model.stem_activation": False, "model.relu_before_addition": False, "model.pooling": "average",
    "model.classifier_bias": True, "model.logit_scale": 1.0,
    "model.train_norms": False, "data.background": None, "trainer.gradient_clip_algorithm": "norm",
    "model.layer_decay": 1.0,
    "data.allow_changes": False, "data.augment.erasing_aspect": "log_uniform", "data.augment.erasing_fill": "random",
    "data.eval_size": None, "data.resize": None, "data.interpolation": "bilinear", "data.fit": None,
    "data.augment.scale": None, "data.augment.scale_aspect": [3 / 4, 4 / 3], "data.augment.vertical_flip": False,
    "data.augment.right_angles": False, "data.augment.trivial_augment": False, "data.augment.color_jitter": 0,
    "data.repeats": 1,
    "threads": None, "logger.tensorboard.group_by": "split", "optimizer.eps": 1e-8, "graph": "auto",
    "callbacks.ema.every_steps": 1, "callbacks.ema.copy_fraction": None, "data.class_weights": None,
    "loss._target_": "reslab.training.losses.cross_entropy", "loss._partial_": True,
    "data.labels": None, "data.group": None, "data.folds": None, "data.fold": None,
}  # fmt: skip
# Options where an integer is a number of batches and a decimal is a fraction: 1 is one batch, 1.0 is all of them.
COUNT_BATCHES = (
    "trainer.limit_train_batches", "trainer.limit_val_batches", "trainer.limit_test_batches",
    "trainer.overfit_batches", "trainer.val_check_interval",
)  # fmt: skip
# Options whose null leaves the value to the run, which records it when it begins.
LEFT_TO_THE_RUN = ("threads",)
# Modules and classes that have moved. The configurations of older runs contain the old names.
MOVED = {f"reslab.{name}.": f"reslab.training.{name}." for name in ("averaging", "checkpoints", "schedules")} | {
    "reslab.tensorboard.TensorBoardReport": "reslab.training.texts_and_pictures.LogTextsAndPictures",
    "reslab.training.tensorboard.TensorBoardReport": "reslab.training.texts_and_pictures.LogTextsAndPictures",
    "reslab.training.logger.Curves": "reslab.training.tensorboard.TensorBoardCurves",
}

# Options that have other names now.
RENAMED = {
    f"logger.{name}": f"logger.tensorboard.{name}"
    for name in ("save_dir", "name", "version", "default_hp_metric", "group_by", "flush_secs", "max_queue", "comment")
} | {
    f"callbacks.tensorboard_report{part}": f"callbacks.texts_and_pictures{part}"
    for part in ("", "._target_", ".num_images", ".num_mistakes")
}

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"  # previous: what last.ckpt was before
BEST_BEFORE_END = "best_before_end.ckpt"  # what best.ckpt was before a validation that only the end of the run caused
WEIGHTS = "weights.safetensors"  # the only checkpoint in the folder of a network that was exported to be shared
PAGE = "run.html"  # what shows a run to a reader
SWEEP_FILE = "multirun.yaml"  # what a sweep was started with, in its folder; the name is Hydra's
BENCHMARK_FILE = "benchmark.json"  # the result of a benchmark, whose folder has settings but holds no run
FINISHED, PRUNED = "finished", "pruned"
ENDED = (FINISHED, PRUNED)  # the statuses of a run that has nothing left to do
ENDINGS = {FINISHED: "has finished", PRUNED: "was pruned"}
UNFINISHED = "unfinished"  # the status of a run without a result
UNREADABLE = "unreadable"  # the status of a run with a damaged result, and in a report with other damaged files
# What reading the settings of a run can raise if its process was killed while it wrote them.
SETTINGS_ERRORS = (OSError, yaml.YAMLError, KeyError, TypeError)
# The largest sizes of the files of a run, in bytes. A configuration and a result have a few thousand.
MAX_SETTINGS_SIZE, MAX_METRICS_SIZE = 256 << 10, 64 << 20
SHALLOW = 4096  # bytes: a document so short cannot nest deeply enough to crash libyaml
MAX_DEPTH = 100
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast, where it is installed


class Run:
    """One training run, read from its folder.

    Nothing is read before it is asked for. The folder of a run that was killed can be read too.

    Args:
        folder: where the run is, e.g. outputs/resnet20-digits/2026-01-31_12-00-00. It need not exist.
        config_dir: the folder of configuration that names the run's network and data set, if these are classes of your
            own; needed by the methods that use the trained network.

    Attributes:
        folder, checkpoints, hydra_folder: folders.
        last, previous, best, weights, metrics_file, result_file, answers_file, page_file, config_file, overrides_file:
            files in them.

    Example:
        >>> from reslab import Run
        >>> run = Run("outputs/resnet20-digits/2026-01-31_12-00-00")
        >>> run.status, run.metrics
        ('unfinished', [])
        >>> run.best
        PosixPath('outputs/resnet20-digits/2026-01-31_12-00-00/checkpoints/best.ckpt')
    """

    def __init__(self, folder: str | Path, config_dir: str | Path | None = None) -> None:
        require_text(folder, "the folder of a run")
        self.folder, self.config_dir = Path(folder), config_dir
        self.checkpoints = self.folder / "checkpoints"
        self.last, self.previous, self.best = (self.checkpoints / name for name in (LAST, PREVIOUS, BEST))
        self.best_before_end = self.checkpoints / BEST_BEFORE_END
        self.weights = self.folder / WEIGHTS
        self.metrics_file = self.folder / "metrics.csv"
        self.result_file = self.folder / "result.json"
        self.page_file = self.folder / PAGE
        self.answers_file = self.folder / "answers.safetensors"  # what the network answered to each test image
        self.hydra_folder = self.folder / ".hydra"
        self.config_file = self.hydra_folder / "config.yaml"
        self.overrides_file = self.hydra_folder / "overrides.yaml"  # it is written last

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.status})"

    @classmethod
    def of_checkpoint(cls, path: str | Path) -> "Run":
        """Return the run that a checkpoint belongs to, by the path of the file."""
        path = Path(path)
        if path.name == WEIGHTS:
            return cls(path.parent)
        if path.parent.name in ("", ".."):  # as in the folder of the checkpoints, whose name is then not in the path
            path = Path(os.path.abspath(path))  # noqa: PTH100  # resolve would follow links
        return cls(path.parent.parent)

    @classmethod
    def below(cls, folder: str | Path) -> Iterator["Run"]:
        """Yield every run in a folder or below it, in no order. The folder of a benchmark holds no run."""
        for settings in Path(os.path.expanduser(folder)).rglob(".hydra"):
            if not os.path.exists(settings.parent / BENCHMARK_FILE):
                yield cls(settings.parent)

    # settings

    @property
    def config(self) -> dict[str, Any]:
        """The composed configuration, with its interpolations as they are. Raises OSError or YAMLError."""
        return read_yaml(self.config_file)

    @property
    def overrides(self) -> list[str]:
        """The command line, one override per entry. Raises OSError or YAMLError where it is incomplete."""
        overrides = read_yaml(self.overrides_file)
        if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
            raise yaml.YAMLError(f"{self.overrides_file} is no list of overrides")  # a full disk leaves it empty
        return [with_current_name(each) for each in overrides]

    @property
    def has_settings(self) -> bool:
        """Whether all settings were written, so that the run can be resumed. A full disk leaves an empty file."""
        return self.settings_problem is None

    @property
    def settings_problem(self) -> str | None:
        """What the settings lack, e.g. `.hydra/overrides.yaml is missing`; None if all were written."""
        for file in (self.overrides_file, self.config_file):
            name = file.relative_to(self.folder)
            if not os.path.lexists(file):
                return f"{name} is missing"
            try:
                if file == self.overrides_file:
                    is_whole = isinstance(self.overrides, list)
                else:
                    is_whole = isinstance(self.config, dict) and len(self.config) > 0
            except SETTINGS_ERRORS:
                is_whole = False
            if not is_whole:
                return f"{name} is damaged"
        return None

    @property
    def settings_version(self) -> tuple[int, int] | None:
        """What differs once the settings are written again, as they are when the run has resumed; None without any."""
        try:
            written = self.overrides_file.stat()
        except OSError:
            return None
        return written.st_ino, written.st_mtime_ns

    def write_settings(self, config: str, overrides: Sequence[str]) -> None:
        """Write the configuration (as YAML) and the command line."""
        write_text(self.config_file, config)
        write_text(self.overrides_file, yaml.safe_dump(list(overrides)))

    # results

    @property
    def result(self) -> Result:
        """What result.json holds: see `read_result`."""
        return read_result(self.folder)

    @property
    def status(self) -> str:
        """finished, pruned, failed, interrupted or unfinished; unreadable if result.json is damaged."""
        return str(self.result["status"])

    @property
    def has_ended(self) -> bool:
        """Whether the run is finished or pruned."""
        return self.status in ENDED

    @property
    def has_failed(self) -> bool:
        return self.status == "failed"

    @property
    def ended_at(self) -> float:
        """When its training ended: see `ended_by`."""
        return self.ended_by(self.result)

    def ended_by(self, result: Mapping[str, Any]) -> float:
        """Return when the training of a run ended, by its result, in seconds since 1970.

        The result of an older version does not say it. Then it is the time of the file of its last weights, or without
        them of its result; 0 without both, and for a network that was shared, whose files have the time of the copy.
        """
        if (recorded := recorded_time(result)) is not None:
            return recorded
        times = [file.stat().st_mtime for file in (self.last, self.result_file) if file.is_file()]
        return times[0] if times and not self.is_shared else 0.0

    @property
    def has_begun(self) -> bool:
        """Whether a run has begun to train here or has left a result."""
        return self.result_file.exists() or self.checkpoints.exists()

    @property
    def metrics(self) -> list[dict[str, float]]:
        """One row for each validation and each end of an epoch, without the cells that are empty.

        Epochs are numbered from 1, also where an older version has numbered them from 0.

        Raises OSError, or ValueError where metrics.csv is not a table of numbers.
        """
        try:
            content = plain_bytes(self.metrics_file, MAX_METRICS_SIZE)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return metric_rows(content.decode("utf-8"))

    def write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the rows, with a column for every name in any of them."""
        write_csv(self.metrics_file, rows)

    def finish(self, result: Result, *, pruned: bool = False) -> Result:
        """Write the results of a run that has ended, and return them as they were written."""
        written = {"status": PRUNED if pruned else FINISHED} | result | {"folder": str(self.folder)}
        write_json(self.result_file, written)
        return written

    def fail(self, error: str, *, interrupted: bool = False) -> None:
        """Write why the run has no results."""
        status = "interrupted" if interrupted else "failed"
        result = {"status": status, "error": error, "ended": time_text(time.time()), "folder": str(self.folder)}
        write_json(self.result_file, result)

    def reopen(self) -> None:
        """Remove the result and let the log be written, because training has begun or has resumed."""
        self.checkpoints.mkdir(exist_ok=True)
        self.result_file.unlink(missing_ok=True)
        self.answers_file.unlink(missing_ok=True)
        self.page_file.unlink(missing_ok=True)
        if self.best_before_end.exists():
            self.best_before_end.replace(self.best)
        write_waiting_lines()

    # checkpoints

    @property
    def has_checkpoint(self) -> bool:
        return any(map(os.path.lexists, (self.best, self.last, self.weights)))

    @property
    def is_shared(self) -> bool:
        """Whether the folder holds the weights of a run without the checkpoints that the run could resume from."""
        return self.weights.is_file() and not self.resumable_checkpoints()

    def checkpoint(self) -> Path:
        """Return the best checkpoint, or the last one where there is no best one.

        A warning says so if the result of the run is that of a best checkpoint, which is missing. Raises UserError
        without any.
        """
        path, other = self.chosen_checkpoint()
        if other:
            warnings.warn(other, stacklevel=2)
        return path

    def chosen_checkpoint(self) -> tuple[Path, str | None]:
        """Return the checkpoint, and what is to be said if the result of the run is of other weights."""
        for path in (self.best, self.last, self.weights):
            # What is in place of the best checkpoint and cannot be read is no reason to take other weights.
            if os.path.lexists(path):
                return path, self.other_step(path, self.result.get("steps")) if path == self.last else None
        raise UserError(
            self.lost_checkpoints or f"{self.folder} holds no checkpoint: {self.best} and {self.last} are missing"
        )

    def other_step(self, checkpoint: Path, step: Any) -> str | None:
        """Say that the result of the run is of another step than that of a checkpoint; None if it is not."""
        tested = tested_step(self.result)
        if tested in (None, step):
            return None
        return f"{checkpoint} is of step {step}; the result of the run, {self.result_file}, is of step {tested}"

    @property
    def lost_checkpoints(self) -> str | None:
        """What the run had reached if it has no checkpoints any more; None if it may not have written any.

        The first one is written after the first epoch at the latest.
        """
        if self.resumable_checkpoints():
            return None
        if self.has_ended:
            reached = f"{ENDINGS[self.status]} at step {self.result.get('steps')}"
        elif (epoch := self.last_epoch()) > 1:
            reached = f"had reached epoch {epoch:.0f}"
        else:
            return None
        return f"{self.folder} {reached}, and its checkpoints are missing"

    def last_epoch(self) -> float:
        """Return the number of the last epoch in metrics.csv; 0 where there is none."""
        try:
            return max((row.get("epoch", 0.0) for row in self.metrics), default=0.0)
        except (OSError, ValueError):
            return 0.0

    def resumable_checkpoints(self) -> list[Path]:
        """Return the checkpoints to resume from, the newest first."""
        candidates = (self.last, self.previous, self.best)
        return [path for path in candidates if path.is_file()]

    # the trained network

    @mistakes_as_user_errors()
    def classifier(self) -> "Classifier":
        """Return the network with its best weights.

        Returns:
            A torch.nn.Module in evaluation mode on the CPU. It takes uint8 images (N, C, H, W) as the data set stores
            them, from 0 to 255, refuses other types, and returns logits (N, num_classes).
            Images of `data.eval_size` are taken as they are; others are resized, and cropped, padded or squashed, as
            the options of the run say.

        Raises:
            UserError: the run has no checkpoint, or its checkpoint is not one of ResLab.
        """
        from reslab.inference.loading import load_classifier  # torch

        return load_classifier(self.checkpoint(), self.config_dir).classifier

    @mistakes_as_user_errors()
    def predict(
        self,
        images: str | Path | Sequence[str | Path],
        top: "Top" = 3,
        *,
        batch_size: int = 64,
        num_workers: int = 0,
        on_error: "OnError" = "stop",
        device: str = "auto",
        views: "View | Sequence[View] | None" = None,
        calibrated: bool = False,
        coverage: float | None = None,
    ) -> list[dict[str, Any]]:
        """Classify image files with the best weights.

        Args:
            images: a file, a folder, a glob, or a list of them.
            top: how many classes to return for each image; "all" for every class.
            batch_size: how many images the network takes at a time.
            num_workers: processes that decode images; 0 decodes in this one. Where the system starts them anew, as
                macOS and Windows do, a script that asks for them needs `if __name__ == "__main__":`.
            on_error: whether to "stop" at images that cannot be read or to "skip" them.
            device: "auto", "cpu" or "gpu"; "auto" is a GPU if there is one, otherwise the CPU.
            views: the copies of each image whose logits are averaged: "flip", "shifts", "crops", a list of them, or
                "none"; None: those that the run validated with.
            calibrated: divide the logits by the temperature that `calibrate` has stored in the checkpoint.
            coverage: also give a set of classes, which contains the true one with this probability.

        Returns:
            One dictionary per image: "image" is its path, "classes" lists the `top` most probable classes as
            dictionaries of "class" and "probability", the most probable first. With `coverage`, "set" lists the classes
            in its set.

        Raises:
            UserError: an argument is wrong, there is no such image, one of them cannot be read, or the run has no
                checkpoint, or none with a calibration that `calibrated` and `coverage` need.
        """
        from reslab.inference.prediction import predict  # torch

        return predict(
            self.checkpoint(), images, top=top, batch_size=batch_size, num_workers=num_workers, on_error=on_error,
            device=device, views=views, calibrated=calibrated, coverage=coverage, config_dir=self.config_dir,
        )  # fmt: skip

    @mistakes_as_user_errors()
    def explain(
        self,
        images: str | Path | Sequence[str | Path],
        output: str | Path,
        *,
        class_name: str | None = None,
        layer: str | None = None,
        on_error: "OnError" = "stop",
        device: str = "auto",
    ) -> list[dict[str, Any]]:
        """Show which parts of image files speak for a class, by Grad-CAM with the best weights.

        Args:
            images: a file, a folder, a glob, or a list of them.
            output: the folder for the overlay of each image, a contact sheet and the list.
            class_name: the class to explain; None for the predicted one of each image.
            layer: the layer whose maps are weighed, such as "layer3"; None for the maps that the global pooling takes.
            on_error: whether to "stop" at images that cannot be read or to "skip" them.
            device: "auto", "cpu" or "gpu"; "auto" is a GPU if there is one, otherwise the CPU.

        Returns:
            The rows of explanations.json, one per image: "image", "class" and its "probability", "predicted", "layer"
            and "overlay", the name of the picture in the folder.

        Raises:
            UserError: as for `predict`, or captum is not installed, or there is no such class or layer.
        """
        from reslab.inference.explained_files import Explanations, write_explanations  # torch

        require_text(output, "output")
        explained = Explanations(
            self.checkpoint(), images, class_name=class_name, layer=layer, on_error=on_error, device=device,
            config_dir=self.config_dir,
        )  # fmt: skip
        return write_explanations(explained, Path(output))

    @mistakes_as_user_errors()
    def evaluate(
        self,
        *,
        data: str | None = None,
        root: str | Path | None = None,
        split: "SplitName" = "test",
        views: "View | Sequence[View] | None" = None,
        calibrated: bool = False,
        coverage: float | None = None,
        unknown_classes: "UnknownClasses" = "refuse",
        predictions: str | Path | None = None,
        device: str = "auto",
    ) -> dict[str, Any]:
        """Test the network with its best weights, as `python src/evaluate.py` does.

        Args:
            data: the data set, one of conf/data or of `config_dir`; None for the run's own.
            root: the folder of the data set; None for that of the run, or of conf/data.
            split: "test", or "val" for the images that the run validated on.
            views: as for `predict`.
            calibrated: divide the logits by the temperature that `calibrate` has stored in the checkpoint.
            coverage: also measure sets of classes that contain the true one with this probability.
            unknown_classes: whether to "refuse" test images of classes that the network does not know, to "skip" them,
                or to take classes "by_position".
            predictions: a .csv or .parquet file to write, with one row per image; None for no file.
            device: "auto", "cpu" or "gpu"; "auto" is a GPU if there is one, otherwise the CPU.

        Returns:
            What `evaluate output=evaluation.json` writes: "metrics" by name, such as "test/accuracy", "classes" with
            one row per class, and how they were computed: "images", "views", "precision", ….

        Raises:
            UserError: an argument is wrong, the run has no checkpoint or no calibration that is needed, or the data set
                has no test images of classes that the network knows.
        """
        from reslab.inference.evaluation import evaluate  # torch
        from reslab.inference.options import EVALUATE_SCHEMA
        from reslab.options import NAME, NULL, check_option

        check_option("data", data, NAME | NULL)
        given = {
            "checkpoint": self.checkpoint(), "split": split, "views": views, "calibrated": calibrated,
            "coverage": coverage, "unknown_classes": unknown_classes, "predictions": predictions, "device": device,
            "trainer.enable_progress_bar": False,
        }  # fmt: skip
        if root is not None:
            given["root" if data is None else "data.root"] = root
        choices = [] if data is None else [f"data={data}"]
        return evaluate(EVALUATE_SCHEMA.compose(given, choices, self.config_dir), self.config_dir)

    @mistakes_as_user_errors()
    def calibrate(
        self,
        *,
        root: str | Path | None = None,
        views: "View | Sequence[View] | None" = None,
        device: str = "auto",
    ) -> dict[str, Any]:
        """Fit a temperature on the images that the run validated on, and store it in the best checkpoint.

        Args:
            root: the folder of the run's data set, if it has moved.
            views: as for `predict`. The temperature is right for these.
            device: "auto", "cpu" or "gpu".

        Returns:
            The "temperature", its "standard_error", how many "images" it was fitted on, and the loss and the
            calibration error of these before and after, such as "loss_before".

        Raises:
            UserError: the run has no checkpoint, no validation images that are still there, or no temperature fits.
        """
        from reslab.inference.calibration import calibrate  # torch
        from reslab.inference.options import CALIBRATE_SCHEMA

        given = {
            "checkpoint": self.checkpoint(), "root": root, "views": views, "device": device,
            "trainer.enable_progress_bar": False,
        }  # fmt: skip
        return calibrate(CALIBRATE_SCHEMA.compose(given, config_dir=self.config_dir), self.config_dir)

    @mistakes_as_user_errors()
    def export(
        self,
        format: "FormatName" = "onnx",
        output: str | Path | None = None,
        *,
        root: str | Path | None = None,
        verify: bool = True,
        limit: int | None = None,
        calibrated: bool = False,
        calibration_images: int = 512,
    ) -> Path:
        """Write the network with its best weights as a file for other programs.

        Args:
            format: "onnx", "torch_export", "torchscript" or "int8".
            output: the file; None for export/<model> in the run's folder.
            root: the folder of the run's data set, if it has moved.
            verify: keep the file only if it answers to the test images as the run's network does; False for only to
                random pixels, where the test images are not at hand.
            limit: the number of test images for that; None for all.
            calibrated: divide the logits by the temperature that `calibrate` has stored in the checkpoint.
            calibration_images: of "int8", the training images on which the ranges of its numbers are measured.

        Returns:
            The file.

        Raises:
            UserError: an argument is wrong, a package is missing, the run has no checkpoint or no test images, or the
                file cannot be written.
            RunError: the network cannot be exported, or the file gives other answers. No file is left then.
        """
        from reslab.inference.export.options import ENDINGS, EXPORT_SCHEMA, SHARE, require_packages
        from reslab.options import check_option, one_of

        if format == SHARE:
            raise UserError(
                f"format={SHARE} is for the command: python src/export.py <run> format={SHARE} output=<a new folder>"
            )
        check_option("format", format, one_of(*ENDINGS))
        given = {
            "checkpoint": self.checkpoint(), "format": format, "output": output, "root": root, "verify": verify,
            "limit": limit, "calibrated": calibrated, "calibration_images": calibration_images,
        }  # fmt: skip
        config = EXPORT_SCHEMA.compose(given, config_dir=self.config_dir)
        require_packages(format)
        from reslab.inference.export.export import export  # torch

        return export(config, self.config_dir).path


def require_text(path: object, what: str) -> None:
    """Raise UserError for what Python programs may pass in place of a path."""
    if not isinstance(path, str | Path):
        raise UserError(f"{what} is a path (str or Path), not of type {type(path).__name__}")


def checked_config_dir(config_dir: str | Path | None) -> str | None:
    """Return the user's own folder of configuration, with `~` expanded. Raise UserError if there is no such folder."""
    if config_dir is None:
        return None
    require_text(config_dir, "config_dir")
    folder = os.path.expanduser(config_dir)
    if not os.path.isdir(folder):
        raise UserError(f"config_dir={config_dir}: there is no such folder")
    return folder


def resume_argument(folder: Path) -> str:
    """Return `resume=<folder>` as a shell takes it."""
    return for_shell(f"resume={folder}")


def sweep_arguments(folder: Path) -> list[str]:
    """Return the overrides that a sweep was started with. Raise one of `SETTINGS_ERRORS`."""
    file = folder / SWEEP_FILE
    overrides = read_yaml(file)["hydra"]["overrides"]
    arguments = [*overrides["hydra"], *overrides["task"]]
    if not all(isinstance(each, str) for each in arguments):
        raise TypeError(f"{file} has an override that is no text")
    return [with_current_name(each) for each in arguments]


def read_configuration(path: Path, content: bytes | None = None) -> Any:
    """Return what a file of configuration holds, which may be the user's own. Raises UserError if it is no YAML.

    Args:
        path: the file.
        content: its bytes, where they have been read already.
    """
    try:
        return yaml.load(path.read_bytes() if content is None else content, SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path} is not YAML: {error.problem}{line}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. Raises OSError or YAMLError."""
    content = plain_bytes(path, MAX_SETTINGS_SIZE)
    try:
        return load_yaml(content, SafeLoader)
    except yaml.YAMLError:
        if b"\\uD" not in content:
            raise
        return load_yaml(content, yaml.SafeLoader)  # libyaml refuses a path with bytes that are no text: "\uDCFF"


def load_yaml(content: bytes, loader: Any) -> Any:
    """Return the content of a YAML document. Raises YAMLError, also for one whose values would fill the memory."""
    try:
        if b"*" in content or len(content) > SHALLOW:
            check_structure(content, loader)
        return yaml.load(content, loader)  # a safe one
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, bytes that are not UTF-8
        raise yaml.YAMLError(str(error)) from error


def check_structure(content: bytes, loader: Any) -> None:
    """Raise YAMLError for aliases, a few of which can stand for billions of values, and for very deep nesting.

    No program writes either of them into a run's folder. libyaml crashes where a document nests too deeply.
    """
    depth = 0
    for event in yaml.parse(content, loader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"it has an alias, *{event.anchor}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it nests deeper than {MAX_DEPTH} levels")


def metric_rows(text: str) -> list[dict[str, float]]:
    """Return the rows of metrics.csv without the empty cells. Raises ValueError where it is not a table of numbers.

    A number that is cut off is another number, so the last line must have its end, as each has that the run wrote.
    """
    try:
        table = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    names, rows = table[0] if table else [], []
    for number, cells in enumerate(table[1:], 2):
        if len(cells) != len(names):
            raise ValueError(f"line {number} has {len(cells)} cells, and there are {len(names)} columns")
        try:
            rows.append({name: float(value) for name, value in zip(names, cells, strict=True) if value})
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    if not text.endswith(("\n", "\r")) and text:
        raise ValueError("its last line is cut off")
    return numbered_from_1([row for row in rows if row])


def numbered_from_1(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the rows of metrics.csv with the numbers of their epochs from 1. Older versions counted from 0."""
    if not rows or rows[0].get("epoch") != 0:
        return rows
    return [row | {"epoch": row["epoch"] + 1} if "epoch" in row else row for row in rows]


def tested_step(result: Mapping[str, Any]) -> Any:
    """Return the step of the weights that the metrics of a result are of: the best ones, or else the last ones."""
    return result.get("steps") if result.get("best_step") is None else result["best_step"]


def read_result(folder: Path) -> Result:
    """Return the result.json of a run or a sweep.

    Returns:
        Where there is none, only a status, "unfinished"; for a damaged one "unreadable" and the reason as "error".

    Raises:
        OSError: it cannot be opened, or is not a file of the usual size.
    """
    file = Run(folder).result_file
    try:
        return parsed_result(plain_bytes(file, MAX_SETTINGS_SIZE))
    except (FileNotFoundError, NotADirectoryError):
        return {"status": UNFINISHED}
    except ValueError as error:
        return {"status": UNREADABLE, "error": f"{file.name}: {error}"}


def parsed_result(content: bytes) -> Result:
    """Return what the bytes of a result.json hold. Raises ValueError with the reason if that is no result."""
    try:
        result = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("it is not text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    if not isinstance(result, dict) or "status" not in result:
        raise ValueError("it is not a result with a status")
    return result


def time_text(seconds: float) -> str:
    """Return a moment, in seconds since 1970, as ISO 8601 writes it.

    Example:
        >>> time_text(1_800_000_000.5)
        '2027-01-15T08:00:00.500+00:00'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def recorded_time(result: Mapping[str, Any]) -> float | None:
    """Return the moment that a result has as its end, in seconds since 1970; None if it does not say it."""
    try:
        return datetime.fromisoformat(result["ended"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compare two configurations of a run.

    Returns:
        What differs and makes it another run, e.g. `model.name was resnet20 and is resnet32`; empty for the same run.
    """
    before, after = identity(saved), identity(now)
    return [
        f"{name} was {shown(before.get(name))} and is {shown(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if canonical(before.get(name), name) != canonical(after.get(name), name)
        and not may_differ(name)
        and not (name in LEFT_TO_THE_RUN and None in (before.get(name), after.get(name)))
    ]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every option by its dotted name, those of `ABSENT` included, with the present names of classes.

    `~` stands for the home folder: a configuration that was saved before a run has resumed still has it.
    """
    return ABSENT | {current_name(name): present_value(name, value) for name, value in flatten(config).items()}


def canonical(value: Any, name: str = "") -> Hashable:
    """Return what is equal for equal values of an option, or for groups of options by their dotted names.

    Python calls 1, 1.0 and True equal. Here a truth value is no number, and an integer that counts batches is no
    fraction; any other integer equals the decimal of its size.
    """
    if isinstance(value, list):
        return tuple(canonical(each, name) for each in value)
    if isinstance(value, dict):
        return frozenset((key, canonical(each, key)) for key, each in value.items())
    if isinstance(value, float) and math.isnan(value):
        value = math.nan  # NaN equals nothing, but a tuple compares objects first
    counts_batches = name in COUNT_BATCHES and isinstance(value, int) and value > 0
    return isinstance(value, bool), counts_batches, value


def older_options(saved: Mapping[str, Any], today: Mapping[str, Any]) -> list[str]:
    """Return the overrides that give a run which is older than some options what it did.

    Args:
        saved: the run's options by their dotted names.
        today: the options that its choices have today.

    Returns:
        E.g. `data.background=null`; nothing for an option whose value today is what the run did.
    """
    named = {current_name(name) for name in saved}
    return [
        f"{name}={shown(value)}"
        for name, value in ABSENT.items()
        if name not in named and name in today and canonical(today[name], name) != canonical(value, name)
    ]


def present_value(name: str, value: Any) -> Any:
    if isinstance(value, str) and value.startswith("~/"):
        return os.path.expanduser(value)
    return current_class_path(value) if name.endswith("_target_") else value


def current_name(name: str) -> str:
    """Return the present name of an option, which may have a `+` or `~` before it."""
    plain = name.lstrip("+~")
    return name[: len(name) - len(plain)] + RENAMED.get(plain, plain)


def with_current_name(override: str) -> str:
    """Return an override of an older version with the present name of its option."""
    name = name_of(override)
    return current_name(name) + override[len(name) :]


def current_class_path(target: Any) -> Any:
    """Return the present name of a class."""
    for before, now in MOVED.items():
        if isinstance(target, str) and target.startswith(before):
            return now + target.removeprefix(before)
    return target


def may_differ(name: str) -> bool:
    return has_prefix(name, MAY_DIFFER) and not has_prefix(name, MAY_NOT_DIFFER)

"""The loggers of a run: how each is built, continues a resumed run, takes settings, texts and pictures, and ends.

All of them get curves from Lightning. What else one can take depends on its class: `ADAPTERS`.
"""

import csv
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from hydra.utils import get_object, instantiate
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image

from reslab.errors import Interrupted, UserError
from reslab.files import relative
from reslab.machine import is_first_process
from reslab.options import check_made
from reslab.run import Run
from reslab.training.checkpoints import Resumed
from reslab.training.classifier import Classifier
from reslab.training.hparams import Settings, add_hparams, run_settings
from reslab.training.opening import opening_level
from reslab.training.tensorboard import LAYOUT

log = logging.getLogger(__name__)

GRAPH_LAYERS = 300  # tracing a network of a thousand layers takes minutes, and its graph is too large to read


class Adapter:
    """A logger that takes curves, settings and final metrics: one of the user's own, and the base of the others.

    Args:
        logger: the logger.

    Attributes:
        id_argument: the argument of its class that continues an earlier record, which a checkpoint remembers; None if
            there is none.
    """

    id_argument: str | None = None

    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.is_open = False

    @classmethod
    def arguments(cls, options: DictConfig, config: DictConfig, step: int | None) -> dict[str, Any]:
        """Return arguments of the logger's class besides its options.

        Args:
            options: the options of the logger.
            config: the configuration of the run.
            step: the step from which a resumed run continues; None for a new run.

        Raises:
            UserError: the logger cannot work.
        """
        return {}

    def check(self, name: str, folder: Path) -> None:
        """Raise UserError if the logger, of this name, would do harm in the folder of the run."""

    @property
    def id(self) -> str | int | None:
        """What `id_argument` takes, once the logger is open."""
        return self.logger.version if self.id_argument else None

    def start(self, step: int | None) -> None:
        """Begin to write, or continue from a step. Only the first process does so."""
        self.is_open = True

    def close(self, error: BaseException | None) -> None:
        """End the record of a run, after an error or without one."""

    def layout(self) -> None:
        """Arrange the page of a new run."""

    def settings(self, settings: Settings) -> None:
        """Take the settings of a run that begins or resumes."""
        self.logger.log_hyperparams(dict(settings))

    def text(self, tag: str, markdown: str) -> None:
        """Take a text."""

    def image(self, tag: str, image: Tensor) -> None:
        """Take a picture, uint8 (3, H, W)."""

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """Take a figure."""

    def graph(self, classifier: Classifier) -> None:
        """Take the graph of a network."""

    def result(self, config: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Take the final metrics, under names of their own: the last value of val/accuracy is not the best one."""
        self.logger.log_metrics(as_result(metrics), step)
        self.logger.save()


def as_result(metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"result/{name}": value for name, value in metrics.items()}


class TensorBoard(Adapter):
    """It takes the settings at the end, with the final metrics."""

    @classmethod
    def arguments(cls, options: DictConfig, config: DictConfig, step: int | None) -> dict[str, Any]:
        return {} if step is None else {"purge_step": step}  # it then drops the later points of its curves

    def layout(self) -> None:
        self.logger.experiment.add_custom_scalars(LAYOUT)

    def settings(self, settings: Settings) -> None:
        pass

    def text(self, tag: str, markdown: str) -> None:
        self.logger.experiment.add_text(tag, markdown)

    def image(self, tag: str, image: Tensor) -> None:
        self.logger.experiment.add_image(tag, image)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self.logger.experiment.add_figure(tag, figure, step)

    def graph(self, classifier: Classifier) -> None:
        """Add the network's graph, traced in evaluation mode, unless it is too large to read."""
        network = classifier.network
        if len(list(network.modules())) > GRAPH_LAYERS:
            return
        example = classifier.preprocess(classifier.example_input_array.to(classifier.device))
        training = network.training
        network.eval()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # add_graph uses torch.jit's tracer, which warns
            self.logger.experiment.add_graph(network, example)
        network.train(training)

    def result(self, config: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        add_hparams(self.logger.experiment, config, as_result(metrics), step)


class Csv(Adapter):
    """Lightning's logger would begin an existing file anew; here a resumed run continues it."""

    id_argument = "version"  # a number, where the options leave it to the logger

    def check(self, name: str, folder: Path) -> None:
        if Path(self.logger.log_dir).resolve() == folder.resolve():
            raise UserError(
                f"logger.{name} would write over the run's own metrics.csv: give it a folder, e.g. name: csv"
            )

    def start(self, step: int | None) -> None:
        rows = [] if step is None else rows_before(Path(self.logger.log_dir) / "metrics.csv", step)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Experiment logs directory")  # whose file will be deleted
            writer = self.logger.experiment
        writer.metrics = rows
        writer.save()
        self.is_open = True


def rows_before(file: Path, step: int) -> list[dict[str, Any]]:
    """Return the rows of a CSV logger up to a step, as they are written. Incomplete rows of a killed run are left out.

    Raises:
        UserError: the file is no table.
    """
    if not file.is_file():
        return []
    try:
        with file.open(newline="", encoding="utf-8", errors="replace") as lines:
            rows: list[dict[str, Any]] = list(csv.DictReader(lines))
    except csv.Error as error:
        raise UserError(f"{file} is not a table ({error}): remove it to resume without its rows") from error
    complete = (row for row in rows if None not in (*row, *row.values()) and row.get("step", "").isdecimal())
    return [row for row in complete if int(row["step"]) < step]


class Wandb(Adapter):
    """Weights & Biases. A resumed run continues its run there."""

    id_argument = "id"

    @classmethod
    def arguments(cls, options: DictConfig, config: DictConfig, step: int | None) -> dict[str, Any]:
        import wandb

        mode = options.get("mode") or ("offline" if options.get("offline") else os.environ.get("WANDB_MODE", "online"))
        wandb.setup(wandb.Settings(silent=True))
        if mode == "online" and is_first_process():
            require_login()
        return {"mode": mode}  # Lightning itself sets the environment, which counts only before wandb has read it

    def start(self, step: int | None) -> None:
        import wandb

        try:
            run = self.logger.experiment
        except wandb.errors.Error as error:
            raise UserError(wandb_line(error)) from error
        sends_later = f"offline: wandb sync {relative(Path(run.dir).parent)} sends it"
        if not run.disabled:
            log.log(opening_level(), "wandb: %s", run.url or sends_later)
        self.is_open = True

    def close(self, error: BaseException | None) -> None:
        if self.is_open:  # the next job of a sweep would continue this run
            self.logger.experiment.finish(exit_code=0 if error is None else 1)

    def text(self, tag: str, markdown: str) -> None:
        self.logger.log_text(tag, columns=["text"], data=[[markdown]])

    def image(self, tag: str, image: Tensor) -> None:
        self.logger.log_image(tag, [to_pil_image(image)])

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self.logger.log_image(tag, [figure], step)

    def result(self, config: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        self.logger.experiment.summary.update(as_result(metrics))


def require_login() -> None:
    """Raise UserError unless the server of Weights & Biases accepts the API key; wandb would ask for one."""
    import wandb

    try:
        if wandb.login(prompt=False):
            return
    except wandb.errors.Error as error:
        raise UserError(wandb_line(error)) from error
    raise UserError(wandb_line("it has no API key, which `wandb login` stores"))


def wandb_line(reason: object) -> str:
    text = " ".join(str(reason).split()).rstrip(".")
    return f"logger=wandb: {text}; logger.wandb.offline=true keeps the curves in the run's folder, to be sent later"


class MLflow(Adapter):
    """MLflow. A resumed run continues its run there."""

    id_argument = "run_id"

    @classmethod
    def arguments(cls, options: DictConfig, config: DictConfig, step: int | None) -> dict[str, Any]:
        import mlflow  # noqa: F401  # it sets the level of its messages

        for name in ("lightning.pytorch.loggers.mlflow", "mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)  # they report that a database is made
        if options.get("tracking_uri"):
            return {}
        if uri := os.environ.get("MLFLOW_TRACKING_URI"):
            return {"tracking_uri": uri}
        place = Path(os.path.expanduser(config.outputs)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        artifacts = options.get("artifact_location") or place / "mlartifacts" / str(options.get("experiment_name"))
        return {"tracking_uri": f"sqlite:///{place / 'mlflow.db'}", "artifact_location": str(artifacts)}

    def start(self, step: int | None) -> None:
        from mlflow.exceptions import MlflowException

        try:
            run_id, client = self.logger.run_id, self.logger.experiment
            client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            raise UserError(f"logger=mlflow: {' '.join(str(error).split())}") from error
        place = re.sub("//[^/@]*@", "//", client.tracking_uri)  # without a password
        log.log(opening_level(), "mlflow: run %s in %s", run_id, place)
        self.is_open = True

    def close(self, error: BaseException | None) -> None:
        if self.is_open:
            statuses = {Interrupted: "KILLED", type(None): "FINISHED"}
            self.logger.finalize(statuses.get(type(error), "FAILED"))

    def settings(self, settings: Settings) -> None:
        """Log the settings. MLflow lets none change: what a resumed run changes becomes a tag of the same name."""
        data = self.logger.experiment.get_run(self.logger.run_id).data
        texts = {name: str(value)[:250] for name, value in settings.items()}  # Lightning shortens them so
        changed = {name for name, text in texts.items() if name in data.tags or data.params.get(name, text) != text}
        self.logger.log_hyperparams({name: text for name, text in texts.items() if name not in changed})
        for name in sorted(changed):
            self.logger.experiment.set_tag(self.logger.run_id, name, texts[name])

    def text(self, tag: str, markdown: str) -> None:
        self.logger.experiment.log_text(self.logger.run_id, markdown, f"{tag}.md")

    def image(self, tag: str, image: Tensor) -> None:
        self.logger.experiment.log_image(self.logger.run_id, to_pil_image(image), f"{tag}.png")

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        self.logger.experiment.log_figure(self.logger.run_id, figure, f"{tag}.png")


ADAPTERS: dict[type[Logger], type[Adapter]] = {
    TensorBoardLogger: TensorBoard,
    CSVLogger: Csv,
    WandbLogger: Wandb,
    MLFlowLogger: MLflow,
}


def adapter_class(kind: Any) -> type[Adapter]:
    """Return the adapter of a class of loggers."""
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return next((ADAPTERS[base] for base in bases if base in ADAPTERS), Adapter)


@contextmanager
def run_loggers(config: DictConfig, resumed: Resumed | None) -> Iterator[dict[str, Adapter]]:
    """Build the loggers of a run by their names in `config.logger`, and close them at the end of the block."""
    adapters = build_loggers(config, resumed)
    ended_by: BaseException | None = None
    try:
        yield adapters
    except BaseException as error:
        # A finished run stays finished, whether the error came after its end or before it has resumed.
        ended_by = None if Run(config.folder).has_ended else error
        raise
    finally:
        for name, adapter in adapters.items():
            try:
                adapter.close(ended_by)
            except Exception as error:  # a server may be gone; the run has ended, and the other loggers must end too
                log.warning("logger.%s could not be closed: %s", name, " ".join(str(error).split()))


def continued_step(config: DictConfig, resumed: Resumed | None) -> int | None:
    """Return the step from which a run continues, 0 if it had no checkpoint yet; None for a new run."""
    return resumed.step if resumed else 0 if config.resume else None


def build_loggers(config: DictConfig, resumed: Resumed | None) -> dict[str, Adapter]:
    """Build the loggers of a run by their names in `config.logger`. Nothing is written yet.

    Raises:
        UserError: an entry makes no logger, or the logger cannot work.
    """
    adapters: dict[str, Adapter] = {}
    for name, options in config.logger.items():
        kind = adapter_class(get_object(options._target_))
        arguments = kind.arguments(options, config, continued_step(config, resumed))
        recorded = resumed.record.get("loggers", {}).get(name) if resumed else None
        if kind.id_argument and recorded is not None and options.get(kind.id_argument) is None:
            arguments[kind.id_argument] = recorded
        with one_at_a_time(kind, config):
            logger = instantiate(options, **arguments, _convert_="all")
        check_made(f"logger.{name}", logger, Logger)
        adapters[str(name)] = kind(logger)
        adapters[str(name)].check(str(name), Path(config.folder))
    return adapters


def open_loggers(
    adapters: Mapping[str, Adapter], config: DictConfig, classifier: Classifier, resumed: Resumed | None
) -> None:
    """Let the loggers of a run begin, in its first process, and record what a resumed run continues them by."""
    if not is_first_process():
        return
    ids = {}
    for name, adapter in adapters.items():
        with one_at_a_time(type(adapter), config):
            adapter.start(continued_step(config, resumed))
        adapter.settings(run_settings(classifier.record["config"]))
        is_chosen_by_user = adapter.id_argument and config.logger[name].get(adapter.id_argument) is not None
        if adapter.id not in (None, "") and not is_chosen_by_user:
            ids[name] = adapter.id
    if ids:
        classifier.record["loggers"] = ids


@contextmanager
def one_at_a_time(kind: type[Adapter], config: DictConfig) -> Iterator[None]:
    """Let one process at a time make a database and its experiment: two jobs of a sweep would both make them."""
    if kind is not MLflow:
        yield
        return
    place = Path(os.path.expanduser(config.outputs))
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "mlflow.lock"):
        yield

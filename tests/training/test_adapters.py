"""The loggers besides TensorBoard's, whose content is tested in test_tensorboard.py and test_texts_and_pictures.py."""

import csv
import json
import os
import signal
import sqlite3
import struct
from pathlib import Path

import pytest
import torch
from conftest import FP32, run
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import OmegaConf

from reslab.errors import Interrupted, UserError
from reslab.run import Run
from reslab.training import adapters, fit
from reslab.training.checkpoints import read_checkpoint

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=2")
PICTURES = {"train/augmented_images", "test/confusion_matrix", "test/most_confident_mistakes"}


def table(folder):
    with (folder / "csv" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def values(rows, name):
    return [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]


# build


def test_a_resumed_run_tells_each_logger_what_it_understands(composed, tmp_path):
    config = composed("logger=[tensorboard,csv]", "logger.csv.version=null", f"resume={tmp_path}")
    record = {"loggers": {"csv": 3}}
    made = adapters.build_loggers(config, resumed_at(7, record))
    assert made["tensorboard"].logger._kwargs["purge_step"] == 7
    assert made["csv"].logger.version == 3
    made = adapters.build_loggers(config, None)  # the run was killed before its first checkpoint
    assert made["tensorboard"].logger._kwargs["purge_step"] == 0
    made = adapters.build_loggers(composed("logger=[tensorboard,csv]"), None)
    assert "purge_step" not in made["tensorboard"].logger._kwargs
    assert made["csv"].logger.version == ""


def resumed_at(step, record):
    return adapters.Resumed(Path("last.ckpt"), step, record, {}, [])


@pytest.mark.slow
def test_an_id_that_the_options_give_is_not_recorded(composed):
    config = composed(*QUICK, "trainer.max_epochs=1", "logger=csv", "logger.csv.version=v1.0", "page=false")
    assert "test/accuracy" in fit.train(config)  # the test has read the checkpoint
    assert "loggers" not in read_checkpoint(Run(config.folder).best)["reslab"]


def test_a_logger_that_cannot_end_hides_no_error_and_the_others_end(composed, monkeypatch, caplog):
    ended = []

    def close(self, error):
        ended.append(error)
        raise ConnectionError("the server\nis gone")

    monkeypatch.setattr(adapters.Adapter, "close", close)
    failure = ValueError("the loss is NaN")
    with pytest.raises(ValueError, match="NaN"), adapters.run_loggers(composed("logger=[tensorboard,csv]"), None):
        raise failure
    assert ended == [failure, failure]
    assert caplog.messages == [
        f"logger.{name} could not be closed: the server is gone" for name in ("tensorboard", "csv")
    ]


def test_a_finished_run_stays_finished_where_a_signal_ends_it_before_it_resumes(composed, monkeypatch):
    ended, config = [], composed("logger=csv")
    monkeypatch.setattr(adapters.Adapter, "close", lambda self, error: ended.append(error))
    for finished in (False, True):
        if finished:
            Run(config.folder).finish({})
        with pytest.raises(Interrupted), adapters.run_loggers(config, None):
            raise Interrupted(signal.SIGTERM)
    assert [type(error) for error in ended] == [Interrupted, type(None)]


def test_the_adapter_of_a_class_is_that_of_its_nearest_base():
    class Mine(CSVLogger):
        pass

    assert adapters.adapter_class(Mine) is adapters.Csv
    assert adapters.adapter_class(DummyLogger) is adapters.Adapter
    assert adapters.adapter_class(dict.fromkeys) is adapters.Adapter  # a function makes the logger


@pytest.mark.parametrize("value", ["../..", "a/b", "", -1, 1.5, True, None, ["a"]])
def test_what_a_stranger_says_of_a_logger_is_no_path(trained, tmp_path, value):
    checkpoint = torch.load(trained.folder / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["reslab"]["loggers"] = {"csv": value}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"reslab\.loggers\.csv="):
        read_checkpoint(tmp_path / "last.ckpt")


def test_the_table_of_the_run_is_not_written_over(composed, tmp_path):
    options = ["logger.csv.save_dir=" + str(tmp_path.parent), f"logger.csv.name={tmp_path.name}"]
    for place in (["logger.csv.name=''"], options):
        with pytest.raises(UserError, match=r"^logger\.csv would write over the run's own metrics\.csv"):
            fit.train(composed(*QUICK, "logger=csv", *place))
    assert not (tmp_path / "csv").exists()


# CSV


@pytest.mark.slow
def test_a_resumed_run_continues_its_table(composed, tmp_path):
    """What was written after the checkpoint is written anew, also where the last line was cut off."""
    options = ("model=resnet8", "trainer=cpu", "logger=csv", "trainer.log_every_n_steps=6", "test=false")
    fit.train(composed(*options, "trainer.max_epochs=2"))
    before = table(tmp_path)
    with (tmp_path / "csv" / "metrics.csv").open("a") as file:
        file.write("0.5,35\n")
    previous = tmp_path / "checkpoints" / "previous.ckpt"  # after the first of two epochs
    fit.train(composed(*options, "trainer.max_epochs=2", f"resume={previous}"))
    after = table(tmp_path)
    for name in ("train/loss", "val/accuracy", "step/loss", "step/learning_rate"):
        assert values(after, name) == values(before, name)
    assert [step for step, _ in values(after, "step/loss")] == [5, 11, 17, 19, 25, 31, 37, 39]
    assert [row["step"] for row in Run(tmp_path).metrics] == [20, 40]  # its own table


@pytest.mark.slow
def test_the_table_ends_with_the_test_and_the_result(composed, tmp_path):
    result = fit.train(composed(*QUICK, "logger=[csv,tensorboard]"))
    rows = table(tmp_path)
    assert values(rows, "test/accuracy") == [(40, pytest.approx(result["test/accuracy"]))]
    assert values(rows, "result/val/accuracy") == [(40, pytest.approx(result["val/accuracy"]))]
    settings = OmegaConf.load(tmp_path / "csv" / "hparams.yaml")
    assert settings["optimizer.lr"] == 0.1
    assert len(list(tmp_path.glob("events.out.tfevents*"))) > 0
    assert "loggers" not in torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["reslab"]


# one of the user's own

OWN = """
from lightning.pytorch.loggers import Logger

class Lines(Logger):
    def __init__(self, file):
        super().__init__()
        self.file = file

    name, version = "lines", None

    def log_metrics(self, metrics, step=None):
        with open(self.file, "a") as file:
            print(step, *sorted(metrics), file=file)

    def log_hyperparams(self, params, *args, **kwargs):
        with open(self.file, "a") as file:
            print("settings", params["optimizer.lr"], file=file)
"""


@pytest.mark.slow
def test_a_logger_of_ones_own_is_a_file(tmp_path):
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    (tmp_path / "conf" / "logger" / "lines.yaml").write_text(
        "lines:\n  _target_: own_lines.Lines\n  file: ${folder}/lines.txt\n"
    )
    (tmp_path / "own_lines.py").write_text(OWN)
    options = (*QUICK[:2], FP32, "trainer.max_epochs=1", "hydra.run.dir=run", "logger=[lines,csv]", "logger.csv.name=c")
    done = run("train", *options, f"--config-dir={tmp_path}/conf", cwd=tmp_path, PYTHONPATH=python_path(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "lines.txt").read_text().splitlines()
    assert lines[0] == "settings 0.1"
    assert [line.split()[0] for line in lines if "train/loss" in line] == ["19", "20"]  # and the result
    assert "result/test/accuracy" in lines[-1]
    assert (tmp_path / "run" / "c" / "metrics.csv").is_file()


def python_path(*folders):
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])


# Weights & Biases


def wandb_records(folder):
    """Return the records of an offline run: a log of LevelDB, which divides records at blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    data, place, pending, found = file.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        pending += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a complete record, or its last part
            found.append(Record.FromString(pending))
            pending = b""
    return found


def history(records):
    return [
        {
            item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records
        if record.HasField("history")
    ]


@pytest.fixture
def no_wandb_account(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("NETRC", "/nothing")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
def test_an_offline_run_of_wandb_has_everything_and_is_continued(tmp_path, no_wandb_account):
    options = (*QUICK, FP32, "hydra.run.dir=outputs/some/run", "logger=wandb", "logger.wandb.offline=true")
    done = run("train", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "outputs" / "some" / "run"
    assert "wandb: offline: wandb sync outputs/some/run/wandb/offline-run-" in done.stdout + done.stderr
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("wandb:")][1:] == []
    assert not (tmp_path / "wandb").exists()
    (offline,) = (folder / "wandb").glob("offline-run-*")
    records, result = wandb_records(offline), Run(folder).result
    (begun,) = (record.run for record in records if record.HasField("run") and record.run.display_name)
    assert (begun.project, begun.run_group, begun.display_name) == ("reslab", "some", "run")
    points = history(records)
    accuracies = [(each["trainer/global_step"], each["val/accuracy"]) for each in points if "val/accuracy" in each]
    assert accuracies == [(19, pytest.approx(Run(folder).metrics[0]["val/accuracy"])),
                          (39, pytest.approx(Run(folder).metrics[1]["val/accuracy"]))]  # fmt: skip
    assert PICTURES | {"config", "classes", "layers"} <= {name for each in points for name in each}
    config = {item.key: item.value_json for record in records for item in record.config.update}
    assert json.loads(config["optimizer.lr"]) == 0.1
    assert json.loads(config["loss"]) == "cross_entropy"
    assert json.loads(config["trainer.accumulate_grad_batches"]) == 1
    summary = {item.key or item.nested_key[0]: item.value_json for record in records for item in record.summary.update}
    assert json.loads(summary["result/test/accuracy"]) == pytest.approx(result["test/accuracy"])
    (ended,) = (record.exit for record in records if record.HasField("exit"))
    assert ended.exit_code == 0
    done = run("train", f"resume={folder}", "trainer.max_epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = sorted((folder / "wandb").glob("offline-run-*"))
    assert first.name.rpartition("-")[2] == second.name.rpartition("-")[2] == begun.run_id
    points = history(wandb_records(second))
    assert [each["trainer/global_step"] for each in points if "val/accuracy" in each] == [59]


@pytest.mark.slow
def test_wandb_without_a_key_is_one_line_and_no_prompt(composed, tmp_path, no_wandb_account, monkeypatch):
    import wandb

    monkeypatch.setattr(wandb, "login", lambda prompt: prompt)
    line = r"^logger=wandb: it has no API key, which `wandb login` stores; logger\.wandb\.offline=true keeps "
    with pytest.raises(UserError, match=line):
        fit.train(composed(*QUICK, "logger=wandb"))
    made = adapters.build_loggers(composed("logger=wandb", "logger.wandb.offline=true"), None)
    assert made["wandb"].logger._wandb_init["mode"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert adapters.build_loggers(composed("logger=wandb"), None)["wandb"].logger._wandb_init["mode"] == "disabled"

    def refuse(prompt):
        raise wandb.errors.AuthenticationError("API key is\ninvalid.")

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "login", refuse)
    with pytest.raises(UserError, match=r"^logger=wandb: API key is invalid; logger"):
        fit.train(composed(*QUICK, "logger=wandb"))


# MLflow


def rows_of(database, query):
    with sqlite3.connect(database) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.slow
def test_a_run_of_mlflow_has_everything_and_is_continued(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    options = (*QUICK, FP32, "outputs=runs", "hydra.run.dir=runs/some/run", "logger=mlflow")
    done = run("train", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [each for each in (done.stdout + done.stderr).splitlines() if "mlflow" in each]
    assert line.startswith("mlflow: run ")
    folder, database = tmp_path / "runs" / "some" / "run", tmp_path / "runs" / "mlflow.db"
    ((run_id, name, status),) = rows_of(database, "select run_uuid, name, status from runs")
    assert (name, status) == ("run", "FINISHED")
    assert ("some",) in rows_of(database, "select name from experiments")
    accuracy = "select step, value from metrics where key = 'val/accuracy' order by step"
    expected = [(row["step"] - 1, pytest.approx(row["val/accuracy"])) for row in Run(folder).metrics]
    assert rows_of(database, accuracy) == expected
    final = rows_of(database, "select value from metrics where key = 'result/test/accuracy'")
    assert final == [(pytest.approx(Run(folder).result["test/accuracy"]),)]
    (artifacts,) = (tmp_path / "runs" / "mlartifacts" / "some").glob("*/artifacts")
    found = {file.relative_to(artifacts).as_posix() for file in artifacts.rglob("*.*")}
    assert found == {"config.md", "classes.md", "layers.md", *(f"{tag}.png" for tag in PICTURES)}
    assert not (tmp_path / "mlruns").exists()
    with sqlite3.connect(database) as connection:
        connection.execute("delete from params where key = 'loss'")  # an older version did not log it
    done = run("train", f"resume={folder}", "trainer.max_epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert rows_of(database, "select run_uuid, status from runs") == [(run_id, "FINISHED")]
    assert [step for step, _ in rows_of(database, accuracy)] == [19, 39, 59]
    key = "key = 'trainer.max_epochs'"
    assert rows_of(database, "select value from params where key = 'loss'") == [("cross_entropy",)]
    assert rows_of(database, f"select value from params where {key}") == [("2",)]
    assert rows_of(database, f"select value from tags where {key}") == [("3",)]


@pytest.mark.slow
def test_the_jobs_of_a_parallel_sweep_are_runs_of_one_experiment(tmp_path, monkeypatch, no_wandb_account):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    options = (
        "-m", *QUICK[:2], FP32, "trainer.max_steps=4", "test=false", "seed=1,2", "hydra/launcher=parallel",
        "hydra.launcher.n_jobs=2", "hydra.sweep.dir=outputs/sweep", "logger=[mlflow,wandb]",
        "logger.wandb.offline=true",
    )  # fmt: skip
    done = run("train", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    database = tmp_path / "outputs" / "mlflow.db"
    names = rows_of(database, "select r.name, e.name from runs r join experiments e using (experiment_id) order by 1")
    jobs = sorted(folder.name for folder in (tmp_path / "outputs" / "sweep").glob("[0-9]*"))
    assert names == [(job, "sweep") for job in jobs]
    assert len(jobs) == 2
    runs = [folder.name for folder in (tmp_path / "outputs" / "sweep").glob("*/wandb/offline-run-*")]
    assert len({name.rpartition("-")[2] for name in runs}) == 2

"""The real commands, each in a process of its own with a temporary working directory."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import FP32, SRC, equal, last_weights, run, start
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", FP32)


# without torch


@pytest.mark.slow
def test_torch_is_imported_by_what_needs_it(tmp_path, no_torch):
    assert run("train", cwd=tmp_path, **no_torch).returncode == 99  # so the next tests can fail


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("train", "python src/train.py model=resnet50 data=cifar10 trainer.accelerator=gpu"),
        ("evaluate", "python src/evaluate.py latest output=evaluation.json"),
        ("predict", "python src/predict.py latest photos/*.jpg top=1 output=classes.csv"),
        ("export", "python src/export.py latest format=torch_export output=network.pt2"),
        ("explain", "python src/explain.py latest photos/*.jpg class=cat output=why"),
    ],
)
def test_help_shows_examples(tmp_path, no_torch, command, example):
    done = run(command, "--help", cwd=tmp_path, **no_torch)
    assert done.returncode == 0
    assert example in [line.strip() for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
    if command == "train":
        assert "optimizer: adam, adamw, " in done.stdout
        assert "model: _resnet" not in done.stdout  # it is no choice, only what all others start from


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "arguments", "line"),
    [
        (
            "train",
            ["model=resnet19"],
            "error: model=resnet19 does not exist: did you mean resnet9 or resnet18 or resnet14?",
        ),
        ("train", ["data=cifar"], "error: data=cifar does not exist: did you mean cifar10 or cifar100?"),
        ("train", ["-m", "seed=1", "model=resnet8,resnet99"], "error: model=resnet99 does not exist: did you mean"),
        ("train", ["-m", "seed=1,2,1"], "error: seed=1,2,1: 1 stands there twice, for two equal runs: leave one out"),
        ("train", ["-m", "model=resnet8,'resnet8'"], "error: model=resnet8,'resnet8': resnet8 stands there twice"),
        ("train", ["-m", "summary=true"], "error: summary=true shows one network: leave out -m"),
        ("train", ["folder=here"], "error: folder= follows from the place of the run: give hydra.run.dir=here"),
        ("train", ["-m", "find_lr=true"], "error: find_lr=true suggests one learning rate: leave out -m"),
        (
            "train",
            ["experiment=degradation", "summary=true", "-m"],
            "error: summary=true shows one network: leave out -m",
        ),
        (
            "train",
            ["experiment=degradation", "summary=true"],
            "error: summary=true shows one network, and these options are a sweep: add hydra.mode=RUN and one model=…",
        ),
        ("evaluate", ["latest"], "error: checkpoint=latest is the newest run below outputs, and /"),
        ("predict", ["latest", "a.png"], "error: checkpoint=latest is the newest run below outputs, and /"),
        ("evaluate", ["nowhere"], "error: checkpoint=nowhere does not exist"),
        ("train", ["-m", "sed=1,2"], "error: there is no option sed: did you mean seed?"),
        ("train", ["trainer.max_epochs=abc"], "error: trainer.max_epochs=abc must be an integer of at least 1"),
        ("train", ["--epochs=3"], "error: --epochs=3: options are name=value, without dashes"),
        ("predict", ["checkpoint=a", "images=b", "top=0"], "error: top=0 must be an integer of at least 1 or all"),
        ("benchmark", ["benchmark.steps=0"], "error: benchmark.steps=0 must be an integer of at least 1"),
        ("train", ["trainer.max_epoch=1"], "error: there is no option trainer.max_epoch: did you mean"),
        ("evaluate", [], "error: checkpoint must be given, e.g. checkpoint=latest"),
        ("predict", ["checkpoint=a"], "error: images must be given, e.g. images=photos"),
        ("export", ["latest", "format=keras"], "error: format=keras must be one of onnx, torch_export, torchscript"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, no_torch, command, arguments, line):
    done = run(command, *arguments, cwd=tmp_path, **no_torch)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(line)
    if (
        "must be a" not in line and "-m" not in arguments and "a sweep" not in line
    ):  # a folder is made before an option's value is looked at
        assert list(tmp_path.iterdir()) == []


def test_the_traceback_can_be_asked_for(tmp_path, no_torch):
    done = run("train", "model=resnet19", cwd=tmp_path, HYDRA_FULL_ERROR="1", **no_torch)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert "MissingConfigException" in done.stderr


# with torch


@pytest.fixture(scope="module")
def trained_by_command(tmp_path_factory):
    """(what the command printed, the working directory, the run's folder)"""
    cwd = tmp_path_factory.mktemp("commands")
    done = run("train", *QUICK, cwd=cwd)
    assert done.returncode == 0, done.stderr
    (folder,) = (cwd / "outputs" / "resnet8-digits").iterdir()
    return done.stdout, cwd, folder


def test_train_prints_its_result_and_what_to_paste_next(trained_by_command):
    printed, cwd, folder = trained_by_command
    result = json.loads((folder / "result.json").read_text())
    relative = folder.relative_to(cwd)
    assert f"│ test/accuracy          │ {result['test/accuracy']:.4f} " in printed
    assert [line.split()[0] for line in printed.splitlines()[-4:]] == ["curves", "predict", "evaluate", "continue"]
    assert printed.splitlines()[-1].endswith(f"train.py resume={relative} trainer.max_epochs=2")
    assert sorted(path.name for path in folder.iterdir() if "tfevents" not in path.name) == [
        ".hydra", ".lock", "answers.safetensors", "checkpoints", "metrics.csv", "result.json", "run.html", "train.log",
    ]  # fmt: skip
    assert "[reslab.training.progress][INFO] epoch  train loss" in (folder / "train.log").read_text()


def test_evaluate_finds_the_same_accuracy(trained_by_command):
    _, cwd, folder = trained_by_command
    done = run("evaluate", f"checkpoint={folder}", "trainer=cpu", "output=evaluation.json", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    evaluation = json.loads((cwd / "evaluation.json").read_text())
    result = json.loads((folder / "result.json").read_text())
    tested = {name: value for name, value in result.items() if name.startswith("test/") and "/images" not in name}
    assert evaluation["metrics"] == tested
    assert f"{'test/accuracy':24}{result['test/accuracy']:.4f}" in done.stdout.splitlines()
    assert [row["class"] for row in evaluation["classes"]] == list("0123456789")


@pytest.mark.slow
def test_predict_writes_the_classes_of_the_same_images(trained_by_command, digit_files):
    _, cwd, folder = trained_by_command
    images = digit_files[0].parents[1]
    done = run("predict", f"checkpoint={folder}", f"images={images}", "top=1", "output=classes.csv", cwd=cwd)
    assert (done.returncode, done.stdout, done.stderr) == (0, "written: classes.csv (359 images)\n", "")
    rows = list(csv.DictReader((cwd / "classes.csv").open()))
    assert [row["path"] for row in rows] == sorted(map(str, digit_files))
    right = sum(row["predicted_class"] == Path(row["path"]).parent.name for row in rows)
    assert right / 359 == pytest.approx(json.loads((folder / "result.json").read_text())["test/accuracy"])


@pytest.mark.slow
def test_predict_prints_a_line_for_each_image_to_whoever_reads_it(trained_by_command, digit_files):
    _, cwd, folder = trained_by_command
    done = run("predict", f"checkpoint={folder}", f"images=[{digit_files[0]},{digit_files[1]}]", "top=2", cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(path) for path in digit_files[:2]]
    assert all(line.count("%") == 2 for line in done.stdout.splitlines())
    command = [sys.executable, SRC / "predict.py", f"checkpoint={folder}", f"images={digit_files[0].parents[1]}"]
    # 359 lines do not fit into the pipe of one page.
    with subprocess.Popen(
        [*command, "batch_size=1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith(str(digit_files[0].parents[1]))
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141  # as a shell calls SIGPIPE


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line_before_any_download(tmp_path):
    done = run("train", "model=resnet50", "data=cifar10", "trainer.accelerator=gpu", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")  # nothing is loading yet
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: trainer.accelerator=gpu, but torch")
    assert list(tmp_path.rglob("*")) == [tmp_path / "outputs"]


@pytest.mark.slow
def test_a_failure_is_told_apart_from_a_mistake(tmp_path):
    csv_file = tmp_path / "run" / "metrics.csv"
    csv_file.mkdir(parents=True)  # where a file must be
    partial = csv_file.with_name(".metrics.csv.partial")
    done = run("train", *QUICK, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: IsADirectoryError: [Errno 21] Is a directory: '{partial}' -> '{csv_file}'",
        "HYDRA_FULL_ERROR=1 shows the traceback; the run's log has it too",
    ]
    assert "Traceback (most recent call last):" in (tmp_path / "run" / "train.log").read_text()


# a sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three jobs, one of which has fewer training images than a batch: (the process, the sweep's folder)"""
    cwd = tmp_path_factory.mktemp("sweep")
    done = run("train", "-m", *QUICK, "data.batch_size=256,5000,64", "logger=none", "page=false", cwd=cwd)
    (folder,) = (cwd / "outputs" / "multirun").iterdir()
    return done, folder


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failed_job_and_tells_it(sweep):
    done, folder = sweep
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "job 1 failed: data.batch_size=5000 is more than the 1295 training images" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("curves: tensorboard --logdir ")
    assert (folder / "report.html").read_text().count(
        "<svg"
    ) == 3  # two panels of curves, and the effect of the batch size


@pytest.mark.slow
def test_a_sweeps_table_has_every_job_by_validation_accuracy(sweep):
    _, folder = sweep
    rows = list(csv.DictReader((folder / "runs.csv").open()))
    assert sorted(Path(row["folder"]).name[0] for row in rows) == ["0", "1", "2"]
    assert [row["status"] for row in rows] == ["finished", "finished", "failed"]
    best, second = (float(row["val/accuracy"]) for row in rows[:2])
    assert best > second
    assert list(rows[0])[:2] == ["data.batch_size", "seed"]  # of the settings only what varies
    for row in rows[:2]:
        result = json.loads((Path(folder.parents[2]) / row["folder"] / "result.json").read_text())
        assert float(row["val/accuracy"]) == result["val/accuracy"]


def test_every_job_of_a_sweep_has_its_own_folder_and_log(sweep):
    _, folder = sweep
    found = {path.name.split("_")[0]: path for path in folder.iterdir() if path.is_dir()}
    assert sorted(found) == ["0", "1", "2"]
    results = {number: json.loads((path / "result.json").read_text()) for number, path in found.items()}
    assert {number: result["status"] for number, result in results.items()} == {
        "0": "finished", "1": "failed", "2": "finished",
    }  # fmt: skip
    assert (
        results["1"]["error"]
        == "data.batch_size=5000 is more than the 1295 training images: set data.batch_size=1295 or less"
    )
    tracebacks = {
        number: "Traceback (most recent" in (path / "train.log").read_text() for number, path in found.items()
    }
    assert tracebacks == {"0": False, "1": True, "2": False}


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_its_folder_with_one_curve(tmp_path):
    assert run("train", *QUICK, "test=false", "hydra.run.dir=run", cwd=tmp_path).returncode == 0
    resumed = run("train", "resume=run", "trainer.max_epochs=3", cwd=tmp_path)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [20, 40, 60]
    curve = EventAccumulator(str(tmp_path / "run")).Reload().Scalars("loss/train")
    assert [point.step for point in curve] == [19, 39, 59]
    assert [point.value for point in curve] == pytest.approx([float(row["train/loss"]) for row in rows])


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path):
    devices = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=3", FP32)
    done = run("train", "model=resnet8", *devices, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (tmp_path / "outputs" / "resnet8-digits").iterdir()
    assert done.stdout.count("\nevaluate  ") == 1
    result = json.loads((folder / "result.json").read_text())
    assert result["steps"] == 3 * 20
    assert result["test/accuracy"] > 0.8
    evaluated = run("evaluate", f"checkpoint={folder}", "trainer=cpu", "output=alone.json", cwd=tmp_path)
    assert evaluated.returncode == 0
    alone = json.loads((tmp_path / "alone.json").read_text())["metrics"]
    assert alone  # 359 images, each once, whatever the number of processes
    assert {name: result[name] for name in alone} == pytest.approx(alone, rel=1e-5)


@pytest.mark.slow
def test_a_sweeps_jobs_of_two_processes_are_those_of_single_runs(tmp_path):
    job = ("model=resnet8", "trainer=ddp_cpu", "trainer.max_epochs=1", FP32)
    assert run("train", "-m", *job, "seed=1,2", "hydra.sweep.dir=sweep", cwd=tmp_path).returncode == 0
    assert run("train", *job, "seed=2", "hydra.run.dir=single", cwd=tmp_path).returncode == 0
    # no stray folder of a further process
    assert sorted(path.name for path in tmp_path.iterdir()) == ["single", "sweep"]
    folders = sorted(path for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert [json.loads((folder / "result.json").read_text())["seed"] for folder in folders] == [1, 2]
    assert equal(last_weights(folders[1]), last_weights(tmp_path / "single"))


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_goes_on_with_the_same_command(tmp_path):
    sweep = (
        "-m", "model=resnet8", "trainer=cpu", "trainer.max_epochs=3", "seed=1,2", "sweep.stop_on_failure=true",
        "resume=auto",
    )  # fmt: skip
    with (tmp_path / "told.txt").open("w") as errors:
        process = start("train", *sweep, cwd=tmp_path, stdout=subprocess.PIPE, stderr=errors)
        assert any(line.startswith("    1  ") for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 130
    (folder,) = (tmp_path / "outputs" / "multirun").iterdir()
    said, command = (tmp_path / "told.txt").read_text().splitlines()
    assert said == "interrupted (SIGINT); this continues the sweep:"
    assert command.endswith(f"train.py resume={folder.relative_to(tmp_path)}")
    assert json.loads((folder / "result.json").read_text()) == {"status": "interrupted", "jobs": 1, "failed": 1}
    assert run("train", *sweep, cwd=tmp_path).returncode == 0
    assert list((tmp_path / "outputs" / "multirun").iterdir()) == [folder]
    assert json.loads((folder / "result.json").read_text()) == {"status": "finished", "jobs": 2, "failed": 0}
    assert "resumed from" in next(folder.glob("0_*/train.log")).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "starter",
    [
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"],
        ["srun", "--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1", sys.executable],
    ],
    ids=["torchrun", "srun"],
)
def test_processes_started_from_outside_are_one_run(tmp_path, starter, request):
    if starter[0] == "srun":
        request.getfixturevalue("slurm")
    job = ("model=resnet8", "trainer=ddp_cpu", "trainer.max_epochs=1", FP32)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*starter, SRC / "train.py", *job, "hydra.run.dir=outside"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("evaluate.py outside\n") == 1
    assert run("train", *job, "hydra.run.dir=own", cwd=tmp_path).returncode == 0
    assert equal(last_weights(tmp_path / "outside"), last_weights(tmp_path / "own"))


@pytest.mark.slow
def test_each_job_of_a_sweep_is_a_task_of_ray(tmp_path):
    pytest.importorskip("ray")
    job = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", FP32)
    done = run(
        "train", "-m", "hydra/launcher=ray", *job, "data.batch_size=64,5000", "hydra.sweep.dir=sweep", cwd=tmp_path
    )
    assert done.returncode == 1
    assert "#1 failed: data.batch_size=5000 is more than the 1295 training images" in done.stdout
    assert run("train", *job, "hydra.run.dir=single", cwd=tmp_path).returncode == 0
    first, second = sorted((tmp_path / "sweep").glob("[01]_*"))
    assert json.loads((second / "result.json").read_text())["status"] == "failed"
    assert equal(last_weights(first), last_weights(tmp_path / "single"))


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path):
    """With a network of group norms: batch norm's statistics are of each process's part of the batch."""
    job = (
        "model=timm", "model.name=resnet50_gn", "data=synthetic", "data.num_images=200", "data.image_size=16",
        "data.batch_size=16", "trainer.max_steps=4", "optimizer.lr=0.01", "scheduler=constant", "data.augment=null",
        FP32,
    )  # fmt: skip
    for name, trainer in (("one", ("trainer=cpu",)), ("two", ("trainer=ddp_cpu", "trainer.devices=2"))):
        done = run("train", *job, *trainer, f"hydra.run.dir={name}", "test=false", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    start = run("train", *job, "trainer=cpu", "optimizer.lr=1e-12", "hydra.run.dir=start", "test=false", cwd=tmp_path)
    assert start.returncode == 0
    one, two, before = (last_weights(tmp_path / name) for name in ("one", "two", "start"))
    moved = torch.cat([(one[name] - before[name]).flatten() for name in one]).norm()
    apart = torch.cat([(one[name] - two[name]).flatten() for name in one]).norm()
    assert apart < 1e-4 * moved


@pytest.mark.slow
def test_a_summary_makes_no_folder_and_no_log(tmp_path):
    done = run("train", "model=resnet8", "summary=true", cwd=tmp_path, COLUMNS="60")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["layer", "output", "parameters", "FLOPs"]
    assert "image  1x8x8" in lines
    done = run("train", "model=resnet8", "summary=true", "data=imagefolder", "data.root=absent", cwd=tmp_path)
    assert done.stderr.endswith(
        "; to see the network without these files: data=synthetic data.image_size=224 data.num_classes=10\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_summary_of_a_sweep_is_refused_before_it_begins(tmp_path):
    done = run("train", "-m", "model=resnet8,resnet20", "summary=true", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: summary=true shows one network: leave out -m\n"

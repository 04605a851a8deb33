"""What the tests of launchers share: jobs whose command is a script that notes how it was started."""

import json
import logging
import sys

import pytest

from reslab import machine
from reslab.sweeps.launchers.parallel import ParallelLauncher

# What a job does depends on its seed. The jobs with the seeds 1 and 2 wait until both have begun.
SCRIPT = """
import json, os, pathlib, shutil, signal, sys
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(given.pop("hydra.run.dir").strip("'"))
assert given.pop("hydra.mode") == "RUN"
environment = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HYDRA_FULL_ERROR")}
meeting = folder.parent / "meeting"
meeting.mkdir(exist_ok=True)
seed = int(given["seed"])
(meeting / given["seed"]).touch()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
while seed <= 2 and len(list(meeting.iterdir())) < 2:
    pass
result = {"status": "finished", "given": given, "environment": environment, "val/accuracy": seed / 10}
if seed == 4:  # fails with an error
    result |= {"status": "failed", "error": "the loss became nan"}
if seed == 5:  # is killed
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 7:  # is refused
    print("error: the folder is in use")
    sys.exit(2)
if seed == 8 and not (folder / "began").exists():  # kills the process that started it, and then saves
    (folder / "began").touch()
    os.kill(os.getppid(), signal.SIGKILL)
    signal.sigtimedwait([signal.SIGTERM], 10) and (folder / "saved").touch()
    sys.exit(143)
if seed == 11:  # succeeds without a result
    sys.exit(0)
if seed == 12:  # hangs, also when it is asked to end, as does the process that it has started
    os.fork()
    (folder / "began").touch()
    signal.sigwait([signal.SIGTERM])
    (folder / "asked").touch()
    while True:
        signal.pause()
(folder / "result.json").write_text(json.dumps(result))
if seed == 6:  # is interrupted
    signal.sigwait([signal.SIGTERM])
    (folder / "result.json").write_text('{"status": "interrupted"}')
if seed == 9:  # fails after it has written its result
    os.kill(os.getpid(), signal.SIGSEGV)
if seed == 10:  # its folder disappears
    shutil.rmtree(folder)
    sys.exit(1)
sys.exit(1 if seed == 4 else 0)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The script, as the command of this process, in an environment with 8 processors and 2 GPUs."""
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(path)])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(machine, "processors", lambda: 8)
    return path


@pytest.fixture
def launch(script, sweep_config, monkeypatch):
    """A function that launches one job for each seed, two at a time unless another launcher is given."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # a launcher adds some

    def launch(*seeds, stop_on_failure=False, launcher=None):
        launcher = launcher or ParallelLauncher(n_jobs=2)
        context, config = sweep_config("hydra/launcher=parallel", f"sweep.stop_on_failure={stop_on_failure}")
        launcher.setup(hydra_context=context, task_function=None, config=config)
        return launcher.launch([["model=resnet8", f"seed={seed}"] for seed in seeds], 0)

    return launch


@pytest.fixture
def results(tmp_path):
    """A function that reads the results of the jobs, in their order."""

    def read():
        files = sorted(tmp_path.glob("sweep/*/result.json"), key=lambda path: int(path.parent.name.split("_")[0]))
        return [json.loads(file.read_text()) for file in files]

    return read

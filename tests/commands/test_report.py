import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SRC, run
from fake_runs import make_run, make_sweep

from reslab.commands.report import folder_of, report
from reslab.errors import UserError
from reslab.run import Run


@pytest.fixture
def sweep(tmp_path):
    return make_sweep(tmp_path / "sweep")


@pytest.mark.slow
def test_the_command_does_not_need_torch(sweep, no_torch):
    done = run("report", "sweep", cwd=sweep.parent, **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == ["job 4 failed: a < b", "report: sweep (report.html, report.csv, runs.csv)"]
    assert (sweep / "report.html").is_file()
    done = run("report", "output=there", "sweep/0_resnet8", "sweep/1_resnet8", cwd=sweep.parent, **no_torch)
    assert done.stdout.splitlines()[-1] == "report: there (report.html, report.csv, runs.csv)"
    assert (sweep.parent / "there" / "report.csv").read_text().splitlines()[1].startswith("1,2,2,0.6,")


@pytest.mark.slow
def test_a_report_on_several_folders_is_written_into_their_common_folder(sweep, no_torch):
    first, second = (path.name for path in sorted(sweep.glob("*resnet8")))
    (sweep / "report.csv").write_text("an earlier report")
    done = run("report", first, second, "report.csv", cwd=sweep, **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"report: {sweep} (report.html, report.csv, runs.csv)"
    assert (sweep / "report.csv").read_text().splitlines()[0].startswith("place,")
    assert len((sweep / "runs.csv").read_text().splitlines()) == 3
    assert not (sweep / first / "report.csv").exists()
    apart = run("report", first, "/proc/1", cwd=sweep, **no_torch)
    line = "error: these folders have no common parent but the root: name one with output=<folder>\n"
    assert (apart.returncode, apart.stdout, apart.stderr) == (2, "", line)


def test_latest_is_the_newest_run_or_sweep_not_a_job_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "outputs" / "resnet8-digits" / "1")
    make_sweep(tmp_path / "outputs" / "multirun" / "2")
    Path("outputs/multirun/2/multirun.yaml").touch()
    for number, file in enumerate(("resnet8-digits/1/.hydra/config.yaml", "multirun/2/multirun.yaml")):
        os.utime(Path("outputs", file), (number, number))
    make_run(tmp_path / "outputs" / "resnet8-digits" / "3")  # the newest, without a result
    report(["latest"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "latest: the newest sweep, or run with a result, is outputs/multirun/2"
    assert lines[-1] == "report: outputs/multirun/2 (report.html, report.csv, runs.csv)"
    with pytest.raises(UserError, match=r"^there is no folder oldest"):
        report(["oldest"])


@pytest.mark.slow
def test_the_report_of_one_run_is_its_page(sweep, no_torch):
    done = run("report", "sweep/0_resnet8", cwd=sweep.parent, **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "report: sweep/0_resnet8/run.html"
    assert "resnet8 on digits" in (sweep / "0_resnet8" / "run.html").read_text()
    assert not (sweep / "0_resnet8" / "report.html").exists()
    run("report", "0_resnet8", "0_resnet8/run.html", "output=there", cwd=sweep, **no_torch)
    assert (sweep / "there" / "run.html").is_file()


def test_the_command_compares(sweep, no_torch):
    pattern = [path.relative_to(sweep) for path in sorted(sweep.glob("*resnet8"))]
    done = run("report", *pattern, "versus", "2_resnet20", "3_resnet20", cwd=sweep, **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == [
        "A: 2 runs (seed 1, 2), the best one 1_resnet8",
        "B: 2 runs (seed 1, 2), the best one 2_resnet20",
    ]
    assert not (sweep / "report.html").exists()


def test_a_damaged_result_is_reported_once(tmp_path, capsys):
    folder = make_run(tmp_path / "run", accuracy=0.5)
    (folder / "result.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match=r"/run: unreadable: result.json: it is not text$"):
        report([str(folder)])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: name a folder, e.g. python src/report.py outputs/multirun/2026-01-31_12-00-00"),
        (["swep"], "error: there is no folder swep: did you mean sweep?"),
        (
            ["sweep", "--all"],
            "error: unrecognized arguments: --all: the only option is output=<folder or file>; --help shows examples",
        ),
        (["sweep", "output="], "error: output= must name a folder"),
        (["a", "versus", "b", "output=c"], "error: output=c: versus prints its comparison and writes no file"),
        (["sweep", "versus"], "error: versus stands between two groups of folders: python src/report.py A versus B"),
        (["sweep", "versus", "sweep"], "error: A has 2 configurations, which differ in model: give the runs of one"),
    ],
)
def test_a_mistake_is_one_line(sweep, no_torch, arguments, line):
    done = run("report", *arguments, cwd=sweep.parent, **no_torch)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")


@pytest.mark.slow
def test_a_closed_pipe_is_no_error_and_the_report_is_written(sweep, no_torch):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, SRC / "report.py", sweep]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=os.environ | no_torch)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
    assert (sweep / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["sweep", "--help"])
def test_a_full_disk_behind_the_output_is_one_line(sweep, no_torch, argument):
    command, here = [sys.executable, SRC / "report.py", argument], sweep.parent
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=here, stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ | no_torch
        )
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


def test_ctrl_c_prints_no_traceback(sweep, no_torch):
    """Press it while the command reads a file: a pipe that nothing was written into."""
    file = sweep / "0_resnet8" / ".hydra" / "config.yaml"
    file.unlink()
    os.mkfifo(file)
    command = [sys.executable, SRC / "report.py", sweep]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | no_torch) as process:
        with file.open("w"):  # waits until it is read
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        assert process.stderr.read() == "interrupted (SIGINT)\n"


@pytest.mark.slow
def test_characters_that_the_terminal_cannot_show_do_not_stop_the_report(sweep, no_torch):
    """The name of the folder is not text, and the terminal has no ±. report.csv has the name as it is."""
    folder = sweep.rename(os.fsdecode(os.fsencode(sweep.parent) + b"/\xff"))
    command = [sys.executable, "-X", "utf8=0", SRC / "report.py", folder]
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "200"} | no_torch
    done = subprocess.run(command, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"0.6000 ? 0.1414" in done.stdout
    assert os.fsencode(folder / "1_resnet8") in (folder / "report.csv").read_bytes()
    assert "↕".encode() in (folder / "report.html").read_bytes()


@pytest.mark.slow
def test_help_shows_examples(tmp_path, no_torch):
    done = run("report", "--help", cwd=tmp_path, **no_torch, PYTHONOPTIMIZE="2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  python src/report.py outputs/resnet20-digits versus outputs/resnet32-digits" in done.stdout.splitlines()


@pytest.mark.slow
def test_a_tilde_is_the_home_folder(sweep, no_torch):
    done = run("report", "~/sweep", "output=~/there", cwd=sweep.parent, HOME=str(sweep.parent), **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert (sweep.parent / "there" / "report.html").is_file()


def test_a_tilde_before_no_users_name_is_a_part_of_a_name():
    assert folder_of("~nobody_of_this_name/x") == Path("~nobody_of_this_name/x")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("vs", "vs: the word between two groups of folders is versus: python src/report.py A versus B"),
        ("VS.", "VS.: the word between two groups of folders is versus: python src/report.py A versus B"),
        ("out=x", "there is no option out: output= says where to write"),
    ],
)
def test_a_word_that_is_no_folder_is_answered_with_the_right_one(tmp_path, word, line):
    with pytest.raises(UserError) as refused:
        report([str(tmp_path), word, str(tmp_path)])
    assert str(refused.value) == line


def test_latest_is_the_newest_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^latest is the newest run below outputs, and {tmp_path}/outputs does not"):
        report(["latest"])
    for number, name in enumerate(("b", "a")):
        folder = make_run(tmp_path / "outputs" / "resnet8-digits" / name, accuracy=0.5)
        checkpoints = Run(folder).checkpoints
        checkpoints.mkdir()
        (checkpoints / "last.ckpt").touch()
        os.utime(folder / ".hydra" / "config.yaml", (number, number))
    report(["latest"])
    assert capsys.readouterr().out.splitlines()[-1] == "report: outputs/resnet8-digits/a/run.html"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "PDF"])
def test_an_output_with_the_suffix_of_a_picture_is_the_learning_curves(sweep, tmp_path, capsys, suffix):
    pictures = [tmp_path / f"{name}.{suffix}" for name in ("one", "two")]
    for picture in pictures:
        report([str(sweep), f"output={picture}"])
    assert capsys.readouterr().out.splitlines()[-1] == f"learning curves: {pictures[1]}"
    one, two = (picture.read_bytes() for picture in pictures)
    assert one == two
    assert one.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix.lower()])
    assert not (sweep / "report.html").exists()


def test_a_picture_has_the_curves_and_labels_of_the_page(sweep, tmp_path):
    report([str(sweep), f"output={tmp_path / 'curves.svg'}"])
    picture = (tmp_path / "curves.svg").read_text()
    assert [f"<!-- {split} error in % -->" in picture for split in ("training", "validation")] == [True, True]
    assert ["<!-- 1: model=resnet20 -->" in picture, "<!-- 2: model=resnet8 -->" in picture] == [True, True]


def test_a_picture_has_labels_that_can_be_drawn(tmp_path):
    """A name of a file that is no text is read from YAML with surrogates, and a value may be long."""
    for number, value in enumerate(("a\udcff", "b" * 300)):
        make_run(tmp_path / str(number), accuracy=0.5, model__weights=value, curve=[(0.5, 0.5)])
    report([str(tmp_path), f"output={tmp_path / 'curves.svg'}"])
    picture = (tmp_path / "curves.svg").read_text()
    assert r"weights=a\xff -->" in picture
    assert "b" * 40 in picture
    assert "b" * 101 not in picture


def test_runs_without_curves_and_of_several_data_sets_have_no_picture(tmp_path):
    first = make_run(tmp_path / "a" / "1", accuracy=0.5)
    with pytest.raises(UserError, match=r"^output=c\.JPG: the learning curves are a \.png, \.svg or \.pdf file$"):
        report([str(first), "output=c.JPG"])
    picture = tmp_path / "curves.png"
    with pytest.raises(UserError, match="these runs have no learning curves"):
        report([str(first), f"output={picture}"])
    make_run(tmp_path / "a" / "2", accuracy=0.5, data__name="mnist", curve=[(0.5, 0.5)])
    with pytest.raises(UserError, match="these runs are of 2 data sets: name those of one"):
        report([str(tmp_path / "a"), f"output={picture}"])
    with pytest.raises(UserError, match=r"^output=/dev/null/curves\.png cannot be written: File exists$"):
        report([str(tmp_path / "a" / "2"), "output=/dev/null/curves.png"])
    assert not picture.exists()


def test_a_network_of_the_zoo_is_reported_elsewhere(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is in the zoo, which stays as it is: output=<folder> writes the report"):
        report(["zoo/digits_resnet8"])
    report(["zoo/digits_resnet8", "output=here"])
    assert "0.9972" in capsys.readouterr().out
    assert (tmp_path / "here" / "run.html").is_file()

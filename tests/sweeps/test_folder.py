from fake_runs import make_run
from omegaconf import OmegaConf

from reslab.run import read_result
from reslab.sweeps.folder import Sweep


def test_a_sweep_is_read_from_what_it_wrote(tmp_path, monkeypatch, sweep_config):
    monkeypatch.setenv("SEARCHES", "sqlite:///all.db")
    _, config = sweep_config("seed=1", "hydra/sweeper=optuna", "hydra.sweeper.storage=${oc.env:SEARCHES}")
    sweep = Sweep(tmp_path / "sweep")
    assert not sweep.exists
    assert read_result(sweep.folder)["status"] == "unfinished"
    sweep.write_record(config)
    sweep.write_result("failed", jobs=2, failed=1)
    assert sweep.exists
    assert read_result(sweep.folder)["status"] == "failed"
    assert sweep.storage == "sqlite:///all.db"
    assert OmegaConf.load(sweep.record_file).hydra.overrides.task == ["seed=1"]
    assert sweep.arguments == [
        f"hydra.sweep.dir='{tmp_path}/sweep'", "hydra.mode=MULTIRUN", "hydra/sweeper=optuna",
        "hydra.sweeper.storage=${oc.env:SEARCHES}", "seed=1",
    ]  # fmt: skip


def test_only_folders_with_settings_are_jobs(tmp_path):
    make_run(tmp_path / "0", accuracy=0.5)
    make_run(tmp_path / "1_seed=2")
    make_run(tmp_path / "other")
    (tmp_path / "2_seed=3").mkdir()
    assert sorted(run.folder.name for run in Sweep(tmp_path).jobs) == ["0", "1_seed=2"]


def test_the_folder_of_an_unused_sweep_is_removed_unless_it_holds_other_files(tmp_path):
    for name in ("outputs/multirun/unused", "outputs/kept/used", "elsewhere/unused"):
        (tmp_path / name).mkdir(parents=True)
        for file in ("multirun.yaml", ".lock"):
            (tmp_path / name / file).touch()
    (tmp_path / "outputs" / "kept" / "used" / "notes").touch()
    for name in ("outputs/multirun/unused", "outputs/kept/used", "elsewhere/unused"):
        Sweep(tmp_path / name).remove_unused(tmp_path / "outputs")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["elsewhere", "outputs", "outputs/kept", "outputs/kept/used", "outputs/kept/used/notes"]

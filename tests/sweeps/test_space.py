import sys
import warnings
from itertools import product

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from reslab.errors import UserError, one_line
from reslab.sweeps.space import check_space, grid_values, read_distribution, read_space, suggest_parameters


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a=interval(0,1)", FloatDistribution(0, 1)),
        ("a=tag(log,interval(0.01,1))", FloatDistribution(0.01, 1, log=True)),
        ("a=int(interval(1,9))", IntDistribution(1, 9)),
        ("a=range(1,9)", IntDistribution(1, 8)),  # without its end, as in a grid
        ("a=range(1,9,3)", IntDistribution(1, 7, step=3)),
        ("a=range(5,1,-2)", IntDistribution(3, 5, step=2)),
        ("a=shuffle(range(0,3))", IntDistribution(0, 2)),
        ("a=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("a=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("a=range(0,1,0.3)", FloatDistribution(0, 0.9, step=0.3)),
        ("a=range(1,0,-0.3)", FloatDistribution(0.1, 1, step=0.3)),
        ("a=b,c", CategoricalDistribution(["b", "c"])),
        ("a=b,b,c,b", CategoricalDistribution(["b", "c"])),
        ("a=choice(1,true,[2,3],'x y')", CategoricalDistribution(["1", "True", "[2,3]", "x\\ y"])),
    ],
)
def test_an_override_in_hydras_grammar_is_a_distribution(written, expected):
    assert read_distribution(OverridesParser.create().parse_override(written)) == expected


def test_a_range_of_decimals_has_as_many_values_as_in_hydra():
    for start, step, count in product(
        ("0", "0.1", "0.5", "0.001"), ("0.1", "0.2", "0.3", "0.05", "0.001", "0.15", "0.7", "-0.3"), range(1, 12)
    ):
        stop = round(float(start) + float(step) * (count - 0.5), 6)
        override = OverridesParser.create().parse_override(f"a=range({start},{stop},{step})")
        searched = grid_values({"a": read_distribution(override)})["a"]
        assert searched == pytest.approx(sorted(override.value().range())), override.input_line
        assert len(searched) == count


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("a=interval(1,0)", "a=interval(1,0): 1.0 is above 0.0: the lower end comes first"),
        ("a=tag(log,interval(0,1))", "a=tag(log,interval(0,1)): a logarithmic scale has no 0.0: begin above 0"),
        ("a=tag(log,range(0,3))", "a=tag(log,range(0,3)): a logarithmic scale has no 0: begin above 0"),
        ("a=range(3,3)", "a=range(3,3): this range is empty"),
        ("a=tag(log,choice(1,2))", "a=tag(log,choice(1,2)): tag(log, ...) is for an interval or a range"),
        ("a=tag(lag,interval(1,2))", "a=tag(lag,interval(1,2)): tag(lag, ...) is unknown, there is only tag(log, ...)"),
    ],
)
def test_a_distribution_that_cannot_be_is_a_mistake(written, message):
    with pytest.raises(UserError) as error:
        read_distribution(OverridesParser.create().parse_override(written))
    assert str(error.value).startswith(message)


def test_of_two_overrides_with_one_name_the_later_one_counts():
    fixed, space = read_space(["a=1,2", "b=1,2", "c=1", "a=3", "c=interval(0,1)", "+d=4", "~e"], None)
    assert fixed == ["a=3", "+d=4", "~e"]
    assert space == {"b": CategoricalDistribution(["1", "2"]), "c": FloatDistribution(0, 1)}
    _, space = read_space(["a=1", "b=1,2", "a=1,2"], None)
    assert list(space) == ["a", "b"]  # a resumed search has only the later override, in the place of the first
    with pytest.raises(UserError, match="a search needs an option to search"):
        read_space(["a=1"], None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("model=resnet20,resnet99", "model=resnet99 does not exist: did you mean resnet9 or resnet8 or resnet56?"),
        ("optimizer.lr=interval(0,0.1)", "optimizer.lr=0.0 must be a number from 1e-12 to 1e+38"),
        ("mixup=0.2,-1", "mixup=-1 must be a number from 0.001 to 1000, or 0"),
        ("objective=val/accuracy,val/acuracy", "objective=val/acuracy must be one of val/accuracy, val/loss"),
        ("optimizer.lx=1,2", "there is no option optimizer.lx: did you mean optimizer.lr"),
        (
            "trainer.max_steps=-1 trainer.max_epochs=-1",
            "trainer.max_epochs=-1 and trainer.max_steps=-1 give the learning-rate schedule no length",
        ),
        ("data.val_fraction=0", "objective=val/accuracy is not measured with data.val_fraction=0"),
        ("data.val_fraction=0.1,0", "objective=val/accuracy is not measured with data.val_fraction=0"),
        ("trainer.limit_val_batches=0", "objective=val/accuracy is not measured with trainer.limit_val_batches=0"),
    ],
)
def test_a_value_that_no_trial_can_have_is_reported_before_the_first(tmp_path, monkeypatch, sweep_jobs, space, message):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    jobs = sweep_jobs()
    loader = jobs.composer.config_loader
    assert read_space(["trainer=glob(ddp*)"], loader)[1] == {"trainer": CategoricalDistribution(["ddp", "ddp_cpu"])}
    fixed, choices = read_space(["model.block=basic,bottleneck", "model.groups=1,32", "test=false"], loader)
    check_space(jobs, fixed, choices, ["val/accuracy"])  # one of the four combinations fails
    lines = ["model.groups=32", "model.block=basic,bottleneck", "trainer.max_epochs=-1,2"]
    check_space(jobs, *read_space(lines, loader), ["val/accuracy"])  # three of the four fail, for two reasons
    with pytest.raises((UserError, HydraException)) as error:
        check_space(jobs, *read_space([*space.split(), "seed=1,2"], loader), ["val/accuracy"])
    assert one_line(error.value, "config").startswith(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "objective"),
    [
        ("data.val_fraction=0", "train/loss"),
        ("data.val_fraction=0 data.validate_on_test=true", "val/loss"),
        ("data=imagefolder data.root=photos data.val_fraction=0", "val/loss"),  # it may have val/
        ("data=mnist data.val_fraction=0 data.folds=5 data.fold=1", "val/loss"),
        ("trainer.limit_test_batches=0", "val/accuracy"),
    ],
)
def test_an_objective_that_may_be_measured_is_not_refused(monkeypatch, sweep_jobs, options, objective):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    jobs = sweep_jobs()
    check_space(jobs, *read_space([*options.split(), "seed=1,2"], jobs.composer.config_loader), [objective])


def test_a_grid_has_all_values_of_each_option():
    space = {
        "a": CategoricalDistribution(["x", "y"]), "b": IntDistribution(1, 7, step=3),
        "c": FloatDistribution(0, 0.3, step=0.1),
    }  # fmt: skip
    assert grid_values(space) == {"a": ["x", "y"], "b": [1, 4, 7], "c": [0.0, 0.1, 0.2, 0.3]}


EVERY_KIND = {
    "float": FloatDistribution(0, 1),
    "logarithmic": FloatDistribution(1e-5, 1, log=True),
    "stepped": FloatDistribution(0, 0.9, step=0.3),
    "integer": IntDistribution(1, 9),
    "stepped integer": IntDistribution(1, 7, step=3),
    "logarithmic integer": IntDistribution(1, 100, log=True),
    "choice": CategoricalDistribution(["a", "b", "c"]),
    "only": CategoricalDistribution(["a"]),
}


def test_parameters_are_sampled_as_study_ask_samples_them():
    asked, suggested = (optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1)) for _ in range(2))
    for number in range(15):  # from the eleventh trial on, TPE models those before
        by_optuna, by_us = asked.ask(EVERY_KIND), suggested.ask()
        suggest_parameters(by_us, EVERY_KIND)
        assert by_us.params == by_optuna.params
        assert by_us.distributions == by_optuna.distributions == EVERY_KIND
        for study in (asked, suggested):
            study.tell(number, by_optuna.params["float"])


def test_a_parameter_keeps_its_value():
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    suggest_parameters(trial, EVERY_KIND)
    before = trial.params
    with warnings.catch_warnings(action="error"):
        suggest_parameters(trial, EVERY_KIND)
    assert trial.params == before

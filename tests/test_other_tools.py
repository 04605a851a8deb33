import pytest

from reslab.configuration import defaults
from reslab.errors import choices_with, nearest, option_line
from reslab.other_tools import MEANT, OF_A_SWEEP, meaning, option_of

COMMANDS = ("config", "evaluate", "predict")


@pytest.fixture(scope="module")
def known():
    return {command: set(defaults(command, [])) for command in COMMANDS}


def test_every_row_names_an_option_and_says_something_new(known):
    everything = {*OF_A_SWEEP}.union(*known.values())
    assert {option_of(words) for words, _ in MEANT} <= everything
    for words, names in MEANT:
        for name in names.split():
            assert any(
                meaning(name, options | set(OF_A_SWEEP)) == words for options in (*known.values(), everything)
            ), name


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        ("config", "lr", "optimizer.lr sets the learning rate"),
        ("config", "trainer.lr", "optimizer.lr sets the learning rate"),
        ("config", "Learning-Rate", "optimizer.lr sets the learning rate"),
        ("config", "epochs", "trainer.max_epochs sets the number of epochs"),
        ("config", "batch_size", "data.batch_size sets the number of images in a batch"),
        ("config", "dataset", "data= chooses the data set, e.g. data=cifar10"),
        ("config", "device", "trainer.accelerator=gpu trains on a GPU, =cpu on the CPU"),
        ("config", "trainer.gpus", "trainer.devices sets the number of GPUs, trainer.accelerator=gpu uses them"),
        ("config", "pretrained", "model.weights=IMAGENET1K_V2 loads torchvision's weights, e.g. of model=resnet50"),
        ("config", "early_stopping", "callbacks=early_stopping ends the run once the validation no longer improves"),
        ("config", "model.num_classes", "data= also determines the number of classes"),
        ("config", "scheduler.T_max", "trainer.max_epochs is the end of the schedule, too"),
        ("config", "ckpt_path", "resume= continues the run in a folder"),
        ("predict", "ckpt_path", "checkpoint= is the run's folder or a checkpoint"),
        ("evaluate", "data.fold", "checkpoint= has the fold, which is the one that the run has left out"),
        ("predict", "weights", "checkpoint= is the run's folder or a checkpoint"),
        (
            "config",
            "initial-checkpoint",
            "model.weights= takes the name of torchvision's weights, a file or a run's folder",
        ),
        ("config", "drop-path", "model.stochastic_depth is the probability of skipping the last block"),
        ("config", "test-only", "test=false leaves out the test; src/evaluate.py tests a run"),
        ("config", "project", "outputs= is the folder of all runs"),
        ("config", "fit_one_cycle", "scheduler=one_cycle raises the learning rate and lowers it again"),
        ("config", "trainer=cuda", "trainer=gpu trains on a GPU"),
        ("config", "model_name_or_path", "model= chooses the network, e.g. model=resnet50"),
        ("config", "config", "experiment= takes a recipe from conf/experiment, --config-dir= a folder of your own"),
    ],
)
def test_the_option_of_another_tool_is_answered_with_what_is_meant(known, command, name, words):
    assert option_line(name, known[command]) == f"there is no option {name}: {words}"


def test_an_option_of_another_choice_names_the_choice(known):
    having = [f"optimizer={name}" for name in ("adam", "adamw", "lamb", "lion", "muon")]
    assert choices_with("optimizer.betas") == having
    line = option_line("callbacks.early_stopping.patience_", known["config"])
    assert "callbacks=early_stopping" not in line
    assert option_line("scheduler.milestones", known["config"]) == (
        "there is no option scheduler.milestones: scheduler=multi_step has it"
    )


@pytest.mark.parametrize(
    ("name", "names", "found"),
    [
        ("CIFAR-10", ["cifar10", "cifar100"], ["cifar10"]),
        ("FashionMNIST", ["fashion_mnist", "mnist"], ["fashion_mnist"]),
        ("ResNet50", ["resnet50", "resnet50d"], ["resnet50"]),
        ("val_fraction", ["data.val_fraction", "data.mean"], ["data.val_fraction"]),
        ("MultiStepLR", ["multi_step", "one_cycle"], ["multi_step"]),
        ("xyz", ["abc"], []),
    ],
)
def test_the_nearest_name(name, names, found):
    assert nearest(name, names) == found

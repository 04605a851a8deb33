"""Where the user's own configuration is: what a command line says, and what is passed on."""

import sys

import pytest

from reslab.configuration import own_flags, own_folders, searchpath_override, with_home
from reslab.internals import hydra_argument_parser


@pytest.fixture
def command_line(monkeypatch):
    """A function that gives this process another command line."""
    return lambda *arguments: monkeypatch.setattr(sys, "argv", ["train.py", *arguments])


def test_the_flags_of_this_process_name_all_of_the_users_own_folders(command_line):
    """Of two --config-dir, Hydra takes the last alone."""
    path = searchpath_override("/second", "/a, b")
    command_line("seed=1", path, "--config-dir", "mine")
    assert own_flags() == ["--config-dir=mine", path]
    read = hydra_argument_parser().parse_args(own_flags())
    assert (read.config_dir, read.overrides) == ("mine", [path])
    command_line("--config-dir=first", "--config-dir=mine", "-m")
    assert own_flags() == ["--config-dir=mine"]


def test_only_the_same_command_has_the_same_main_file(command_line):
    command_line("--config-name=small", "-cp", "/mine", "-cd", "more", "seed=1")
    assert own_flags() == ["--config-dir=more"]
    assert own_flags(same_command=True) == ["--config-path=/mine", "--config-name=small", "--config-dir=more"]
    command_line("seed=1")
    assert own_flags(same_command=True) == []


def test_a_tilde_is_the_home_folder_where_one_is_named(monkeypatch):
    monkeypatch.setenv("HOME", "/home/it's me")
    typed = ["-cd", "~/a", "--config-dir=~/b", "hydra.searchpath=['file://~/c','pkg://d',file:///e]", "x=~/f"]
    taken = with_home(typed)
    assert taken[:3] == ["-cd", "/home/it's me/a", "--config-dir=/home/it's me/b"]
    assert taken[3:] == [r"hydra.searchpath=['file:///home/it\'s me/c','pkg://d','file:///e']", "x=~/f"]
    folders = ["/home/it's me/a", "/home/it's me/b", "/home/it's me/c", "/e"]
    assert [*map(str, own_folders(typed))] == [*map(str, own_folders(taken))] == folders


@pytest.mark.parametrize(
    ("argument", "folders"),
    [
        ("--config-dir=~nobody_of_this_name/x", ["~nobody_of_this_name/x"]),
        ("hydra.searchpath=['file://~nobody_of_this_name/x']", ["~nobody_of_this_name/x"]),
        ("hydra.searchpath=['file:///~/x','pkg://~/y']", ["/~/x"]),
        ("hydra.searchpath=[", []),
        ("hydra.searchpath=null", []),
    ],
)
def test_what_names_no_home_folder_stays_as_it_is(argument, folders):
    assert with_home([argument]) == [argument]
    assert [*map(str, own_folders([argument]))] == folders

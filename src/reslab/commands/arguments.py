"""The command line as Hydra takes it: options are checked, and paths are quoted."""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString, ValueType

from reslab.commands.resume import MULTIRUN, outputs_of, resumed_command_line
from reslab.commands.spelling import check_grammar, is_option, spelled_out
from reslab.configuration import (
    CONF,
    defaults,
    is_group,
    name_of,
    own_folders,
    parsed,
    quoted,
    shown,
    unquoted,
    without_plus,
)
from reslab.errors import UserError, choice_line, option_line
from reslab.machine import foreign_variables, spin_variables
from reslab.newest import is_latest, located, newest_run, not_found
from reslab.options import PATH, Kind, Schema, check_option
from reslab.processes import is_further_process
from reslab.run import Run, read_configuration
from reslab.text import for_shell
from reslab.training.options import OF_ONE_RUN, TRAINING_SCHEMA

PLACES = dict.fromkeys(("outputs", "hydra.run.dir", "hydra.sweep.dir"), PATH)  # where Hydra makes folders


def hydra_arguments_of(arguments: Sequence[str], schema: Schema) -> list[str]:
    """Return the arguments as Hydra takes them, with the settings of a run that is resumed."""
    quoted_arguments = [quote_if_needed(argument, schema.kinds) for argument in spelled_out(arguments, schema)]
    for folder in own_folders(quoted_arguments):
        if not folder.is_dir():
            raise UserError(
                f"{folder} is no folder: --config-dir and hydra.searchpath name those of your configuration"
            )
    quoted_arguments = [with_fixed_run(argument, quoted_arguments) for argument in quoted_arguments]
    for argument in quoted_arguments:
        if is_option(argument):
            check_grammar(argument, schema)
    check_places(quoted_arguments)
    check_sweep(quoted_arguments, schema)
    check_choices(quoted_arguments, schema.config_name)
    check_ignored(quoted_arguments, schema.config_name)
    if asks_for_several_runs(arguments) and "sweep.stop_on_failure" not in schema.kinds:
        raise UserError(f"-m trains several runs: {schema.config_name} takes no -m")
    found = without_plus(schema.config_name, quoted_arguments)
    return resumed_command_line(found) if schema is TRAINING_SCHEMA else found


def with_fixed_run(argument: str, arguments: Sequence[str]) -> str:
    """Replace `latest` or a folder of runs in `model.weights=` by the newest run, which may be another one later.

    `latest` is the newest run below `outputs`, as all the arguments set it.

    Raises:
        UserError: there is no run, or a later run of this very command would have other weights.
    """
    name, _, value = argument.partition("=")
    if name != "model.weights" or not unquoted(value):
        return argument
    listed = [text_of(each) for each in values_of_sweep(argument)] or [unquoted(value)]
    for asked in listed:
        place = outputs_of(arguments) if is_latest(asked) else located(asked)
        run = newest_run(place)
        if run is None and is_latest(asked):
            raise UserError(f"{name}={not_found(asked, place)}")
        if run is None or Run(asked).hydra_folder.is_dir():
            continue
        if len(listed) > 1 or ("resume=auto" in arguments and gets_new_runs(place, arguments)):
            now = for_shell(f"{name}={run.folder}")
            raise UserError(f"{argument}: {asked} would be another run later: name it, now {now}")
        return f"{name}={quoted(run.folder)}"
    return argument


def gets_new_runs(folder: str, arguments: Sequence[str]) -> bool:
    """Return whether a run that a command line begins may get its folder in this one."""
    given = {name_of(each): unquoted(each.partition("=")[2]) for each in arguments}
    named = [given[name] for name in ("hydra.run.dir", "hydra.sweep.dir") if name in given]
    own, *places = (Path(each).resolve() for each in (folder, outputs_of(arguments), *named))
    return any(own.is_relative_to(place) or place.is_relative_to(own) for place in places)


def values_of_sweep(argument: str) -> list[Any]:
    """Return the values that commas separate in an argument; none for a single value."""
    override = parsed(argument)
    values = override.value() if override is not None and override.is_choice_sweep() else None
    return list(values.list) if isinstance(values, ChoiceSweep) else []


def text_of(value: Any) -> str:
    """Return one of the values of a sweep without its quotes."""
    return value.text if isinstance(value, QuotedString) else shown(value)


def check_places(arguments: Sequence[str]) -> None:
    """Raise UserError before Hydra makes a folder in a wrong place."""
    for argument in arguments:
        name = name_of(argument)
        override = parsed(argument) if name in PLACES else None
        if override is None:
            continue
        if override.is_sweep_override():
            raise UserError(f"{argument} must be one folder; a comma in its name needs quotes")
        check_option(name, folder := override.value(), PATH)
        for path in (Path(str(folder)), *Path(str(folder)).parents):
            if os.path.isfile(path):
                raise UserError(f"{name}={folder} cannot be a folder: {path} is a file")


def asks_for_several_runs(arguments: Sequence[str]) -> bool:
    return not {*MULTIRUN, *MULTIRUN.values()}.isdisjoint(arguments)


def check_sweep(arguments: Sequence[str], schema: Schema) -> None:
    """Raise UserError for a sweep with equal jobs, and for one of what a single command shows."""
    is_sweep = asks_for_several_runs(arguments)
    if is_sweep and (alone := [argument for argument in arguments if argument in OF_ONE_RUN]):
        raise UserError(f"{OF_ONE_RUN[alone[0]]}: leave out -m")
    if not is_sweep and "experiment" not in map(name_of, arguments):
        refuse_several_paths(arguments, schema)
        return  # several values of other options are a mistake that Hydra finds
    for argument in filter(is_option, arguments):
        seen: list[Any] = []
        for value in values_of_sweep(argument):
            plain = value.text if isinstance(value, QuotedString) else value
            if (type(plain), plain) in seen:
                raise UserError(f"{argument}: {shown(plain)} stands there twice, for two equal runs: leave one out")
            seen.append((type(plain), plain))


def refuse_several_paths(arguments: Sequence[str], schema: Schema) -> None:
    """Raise UserError for a path that has a comma, which separates the values of a sweep, and does not exist."""
    for argument in arguments:
        name = name_of(argument)
        is_path = name in schema.kinds and schema.kinds[name].is_path
        if parts := [text_of(value) for value in values_of_sweep(argument)] if is_path else []:
            path = f"{name}={','.join(parts)}"
            sweep = "; -m trains a run for each" if schema is TRAINING_SCHEMA else ""
            in_quotes = for_shell(f"{name}={quoted(','.join(parts))}")
            raise UserError(f"{path} has several values: a comma in a path needs quotes, {in_quotes}{sweep}")


def check_choices(arguments: Sequence[str], config_name: str) -> None:
    """Raise UserError for a choice that is no name, e.g. `model=null`: Hydra's own error would not name the option.

    Args:
        arguments: a command line, in Hydra's grammar.
        config_name: the command's file in conf/, without its ending.
    """
    folders = [CONF, *own_folders([*sys.argv[1:], *arguments])]
    for argument in arguments:
        group = name_of(argument).lstrip("+").partition("@")[0]
        is_known = re.fullmatch(r"\w+(/\w+)*", group) and is_group(group, folders)
        override = parsed(argument) if is_known else None
        for choice in choices(override.value()) if override is not None and "=" in argument else ():
            if isinstance(choice, str | QuotedString | dict | Glob):
                continue
            known = list(defaults(config_name, []))
            if "/" not in group and group != "experiment" and group not in known:
                raise UserError(option_line(group, known))
            raise UserError(choice_line(group, shown(choice) if is_scalar(choice) else argument.partition("=")[2]))


DETAILS = {  # options that say how another one does what it does
    "data.augment.scale_aspect": "data.augment.scale",
    "data.augment.erasing_aspect": "data.augment.erasing",
    "data.augment.erasing_fill": "data.augment.erasing",
}
OFF = ("0", "0.0", "null", "None")


def check_ignored(arguments: Sequence[str], config_name: str) -> None:
    """Raise UserError for what would be ignored: a folder of images, the name of a network, details of what is off.

    What a run records is not checked again: such runs exist, and they can be repeated and resumed.
    """
    given = {name_of(argument).lstrip("+"): unquoted(argument.partition("=")[2]) for argument in arguments}
    if "folder" in given and config_name in ("config", "benchmark"):
        continues = given.get("resume", "null") not in ("null", "auto")
        place = for_shell(f"hydra.run.dir={given['folder']}")
        advice = "leave it out" if continues else f"give {place}"
        raise UserError(f"folder= follows from the place of the run: {advice}")
    if {"resume", "from"} & given.keys() or is_further_process(sys.argv):
        return
    if given.get("data.root", "null") != "null" and is_one_choice("data", given):
        name = defaults(config_name, arguments).get("data.name")
        file = CONF / "data" / f"{name}.yaml"
        if file.is_file() and "_no_files" in read_configuration(file)["defaults"]:
            root = for_shell(f"data.root={given['data.root']}")
            raise UserError(f"data={name} reads no files: data=imagefolder {root} reads your own images")
    is_augment_known = is_one_choice("data", given) and not {"data.augment", "hydra.sweeper.params"} & given.keys()
    for detail in sorted(DETAILS.keys() & given.keys()) if is_augment_known else ():
        option = DETAILS[detail]
        value = given.get(option, str(defaults(config_name, arguments).get(option)))
        if value in OFF:
            raise UserError(
                f"{detail} does nothing with {option}={'null' if value == 'None' else value}: set both or neither"
            )
    called = given.get("model.name", "")
    if re.fullmatch("[a-z0-9]\\w*", called) and is_one_choice("model", given):
        known = defaults(config_name, arguments)
        choices_of_model = {file.stem for file in (CONF / "model").glob("*.yaml")}
        is_other = called in choices_of_model and known.get("model.name") != called
        if is_other and "${.name}" not in known.values():  # timm's file chooses the network by its name
            raise UserError(
                f"model.name={called} only names a network, and would give this one the name of another: "
                f"model={called} chooses it"
            )


def is_one_choice(group: str, given: Mapping[str, str]) -> bool:
    """Return whether the files in conf/ decide a group, without a sweep over them and without another class."""
    return f"{group}._target_" not in given and re.fullmatch(r"\w*", given.get(group, "")) is not None


def choices(value: Any) -> Iterator[Any]:
    """Yield the choices of a group in the value of an override: each one of a list and of a sweep."""
    if isinstance(value, ChoiceSweep):
        value = value.list
    if not isinstance(value, list):
        yield value
    for part in value if isinstance(value, list) else ():
        yield from choices(part)


def is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def quote_if_needed(argument: str, kinds: Mapping[str, Kind]) -> str:
    """Quote a value that Hydra's grammar would refuse or read as something else.

    A path is taken as a shell hands it over, with `~` for the home folder, unless it is in quotes, a list where the
    option takes one, or several values of a sweep, which a path with a comma that exists is not. Of other options,
    `model=Äpfel` is quoted and `x=[a, b]` is not.
    """
    name, equals, value = argument.partition("=")
    kind = {**kinds, **PLACES, "from": PATH}.get(name.lstrip("+"))
    if equals and kind is not None and kind.is_path:
        return f"{name}={path_value(value, kind)}"
    if ("=" not in value and value.isascii()) or name.startswith("-") or re.search(r"['\"(\[{]", value):
        return argument
    return f"{name}={','.join(quoted(part) for part in value.split(','))}"


def path_value(value: str, kind: Kind) -> str:
    """Return the value of an option that is a path, in quotes unless Hydra reads it as it stands."""
    override = parsed(f"x={value}")
    if override is not None and (value in ("", "null") or is_syntax(value, override, kind)):
        return value
    expanded = os.path.expanduser(value)
    parts = split_at_commas(value)
    if kind.allows(["a"]) and re.fullmatch(r"\[[^\[\]]*\]", value):  # a list with parts that Hydra refuses
        return f"[{','.join(path_value(part.strip(), PATH) for part in split_at_commas(value[1:-1]))}]"
    if len(parts) > 1 and (not os.path.lexists(expanded) or all(map(os.path.lexists, parts))):
        return ",".join(path_value(part, kind) for part in parts)
    override = parsed(f"x={expanded}")
    return expanded if override is not None and override.value() == expanded else quoted(expanded)


def is_syntax(value: str, override: Override, kind: Kind) -> bool:
    """Return whether a value uses Hydra's grammar on purpose: quotes, a list, or the values of a sweep."""
    read = override.value()
    if re.fullmatch(r"'.*'|\".*\"", value, re.DOTALL):
        return isinstance(read, str)
    if override.is_sweep_override() and override.value_type != ValueType.SIMPLE_CHOICE_SWEEP:
        return True  # a function, e.g. glob(*)
    return kind.allows(["a"]) and (isinstance(read, list) or (override.is_sweep_override() and value.startswith("[")))


def split_at_commas(value: str) -> list[str]:
    """Return the parts of a value, between the commas that are not in quotes."""
    return re.findall(r"((?:'[^']*'|\"[^\"]*\"|[^,])*),", f"{value},")


def own_environment(arguments: Sequence[str]) -> dict[str, str | None]:
    """Return the environment variables that a command changes for itself; None removes one.

    In RESLAB_DATA, `~` becomes the home folder. What belongs to other processes than this one is removed, and threads
    that wait soon sleep.
    """
    root = os.environ.get("RESLAB_DATA", "")
    expanded = {"RESLAB_DATA": os.path.expanduser(root)} if root.startswith("~") else {}
    return foreign_variables(arguments) | spin_variables() | expanded

"""The command line as people type it: blanks around `=`, flags anywhere, paths without a name.

What comes out is name=value for each option, then Hydra's flags. A mistake is refused with the right words.
"""

import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from reslab.commands.resume import MULTIRUN
from reslab.configuration import CONF, defaults, name_of, parsed, quoted, with_home
from reslab.errors import UserError, nearest, option_line, plain_name
from reslab.internals import hydra_argument_parser
from reslab.options import Schema, check_option, shown
from reslab.run import Run
from reslab.text import for_shell

BESIDE_THE_CONFIGURATION = ("experiment", "from", "trust")  # options of train.py that a run does not record
TYPOGRAPHIC_DASHES = ("\u2013", "\u2014", "\u2212")  # as they are copied from a page
OPTION = r"\+{0,2}[A-Za-z_][\w.@:]*(/[A-Za-z_][\w.@:]*)*"
NUMBER = re.compile(r"-[\d.]\S*")


def spelled_out(arguments: Sequence[str], schema: Schema) -> list[str]:
    """Return each option as name=value, and Hydra's flags after them.

    Raises:
        UserError: an argument is no option, no flag and nothing that the command takes without a name.
    """
    words, flags = without_flags(with_paths(joined(arguments), schema), schema)
    for word in words:
        refuse_two_options(word, schema)
    return with_home([*named(words, schema), *flags])


# blanks


def joined(arguments: Sequence[str]) -> list[str]:
    """Join what blanks have separated, as in `optimizer.lr = 0.1`, `seed=1, 2` and `model.layers=[1, 2]`."""
    whole: list[str] = []
    for argument in map(without_blanks, arguments):
        if whole and continues(whole[-1], argument):
            whole[-1] += argument
        else:
            whole.append(argument)
    return whole


def without_blanks(argument: str) -> str:
    """Remove the blanks around the `=` of an option that is one argument, as in `"model = resnet8"`."""
    spaced = re.match(rf"\s*((?:--)?{OPTION})(\s+=\s*|=)", argument)
    return argument if spaced is None else f"{spaced[1]}={argument[spaced.end() :]}"


def continues(before: str, argument: str) -> bool:
    """Return whether an argument belongs to the one before it."""
    if "=" not in before:
        return argument.startswith("=") and re.fullmatch(r"(--|\+|\+\+)?[A-Za-z_][\w./@]*", before) is not None
    if "=" in argument or (argument.startswith("-") and not NUMBER.fullmatch(argument)):
        return False
    return before.endswith(("=", ",", "[", "(")) or argument.startswith((",", "]", ")"))


# flags


def without_flags(arguments: Sequence[str], schema: Schema) -> tuple[list[str], list[str]]:
    """Divide arguments into those of the command and Hydra's flags with their values, e.g. `--config-dir mine`.

    Hydra's own parser takes flags before or after all other arguments only.
    """
    parser = hydra_argument_parser()

    def refuse(message: str) -> NoReturn:
        is_long = "ignored explicit argument" in message  # to argparse, -model is -m
        long = next((each for each in arguments if is_long and re.match("-[A-Za-z]{2}", each)), None)
        raise UserError(message if long is None else dashes_line(long, arguments, schema))

    parser.error = refuse  # type: ignore[method-assign]
    found, unknown = parser.parse_known_intermixed_args(arguments)
    for argument in arguments:
        is_long = re.match("-[A-Za-z]{2}", argument) and f"-{argument[2:]}" in unknown  # as above, from Python 3.13 on
        if argument in unknown or is_long or argument.startswith(TYPOGRAPHIC_DASHES):
            raise UserError(dashes_line(argument, arguments, schema))
    check_config_path(found.config_path)
    words, flags = list[str](), list[str]()
    for argument in arguments:
        is_word = argument in found.overrides[len(words) : len(words) + 1]
        (words if is_word else flags).append(argument)
    return words, flags


def dashes_line(argument: str, arguments: Sequence[str], schema: Schema) -> str:
    """Say how an option that was written with dashes is written here, e.g. `--model resnet18`."""
    flag, equals, value = argument.partition("=")
    name = flag.lstrip("".join(("-", *TYPOGRAPHIC_DASHES)))
    if f"-{name}" in MULTIRUN or f"--{name}" in MULTIRUN:
        return f"{argument} begins with a typographic dash: type -m"
    if name in ("help", "version", "multirun"):
        return f"{argument}: type --{name}"
    known = known_options(schema)
    if name not in known:
        return f"{argument}: options are name=value, without dashes; {option_line(name, known)}"
    following = "".join(arguments[arguments.index(argument) + 1 :][:1])
    is_value = following and not following.startswith("-") and "=" not in following
    given = value if equals else following if is_value else "true" if known[name] in (True, False) else "…"
    return f"{argument}: options are name=value, without dashes: {for_shell(f'{name}={given}')}"


def check_config_path(folder: str | None) -> None:
    if folder and not folder.startswith("pkg://") and not (Path(folder).is_absolute() and Path(folder).is_dir()):
        raise UserError(f"--config-path={folder} must be the absolute path of a folder")


# arguments without a name


def with_paths(arguments: Sequence[str], schema: Schema) -> list[str]:
    """Put `./` before the name of a file that looks like an option, if the command takes files: `~1.png`, `a=b.png`.

    Raises:
        UserError: a file has the name of a flag.
    """
    found = []
    for argument in arguments:
        may_be_file = schema.unnamed and is_like_option(argument) and exists(argument)
        is_file = may_be_file and name_of(argument).lstrip("~") not in known_options(schema)
        path = f"./{argument}" if is_file else argument
        if is_file and argument.startswith("-"):
            raise UserError(
                f"{argument} begins with a dash, as flags do: type {for_shell(path)} for the file of this name"
            )
        found.append(path)
    return found


def is_like_option(argument: str) -> bool:
    return os.sep not in argument and (argument.startswith(("-", "~", "+")) or "=" in argument)


def is_option(word: str) -> bool:
    """Return whether a word is `name=value` or `~name`. The folder of a job, `sweep/0_seed=1`, is none."""
    if word.startswith("~"):
        return "/" not in word
    name, equals, _ = word.partition("=")
    return bool(equals and re.fullmatch(OPTION, name)) and not ("/" in name and exists(word))


def refuse_two_options(word: str, schema: Schema) -> None:
    """Raise UserError for two options in one argument: `"model=resnet8 seed=1"`, `model=resnet8,seed=1`."""
    value = word.partition("=")[2]
    second = re.search(rf"[\s,]\s*({OPTION})=", value)
    if second and second[1] in known_options(schema) and not re.search(r"['\"\[({]", value) and not exists(value):
        parts = for_shell(word[: -len(value)] + value[: second.start()]), for_shell(value[second.start(1) :])
        raise UserError(f"{word}: {' and '.join(parts)} are two arguments, in Python two strings")


def named(words: Sequence[str], schema: Schema) -> list[str]:
    """Give the arguments without a name the names of the options that they are for."""
    options = [word for word in words if is_option(word)]
    plain = [os.path.expanduser(word) for word in words if not is_option(word)]
    given = {name_of(option) for option in options}
    for name in schema.unnamed:
        # The mean of several networks is asked for by name: checkpoint=[a,b].
        if plain and name != "checkpoint" and schema.kinds[name].allows(["a"]):
            options, values = take_values(options, name)
            options.append(f"{name}=[{','.join([*values, *map(quoted, plain)])}]")
            plain = []
        elif plain and name not in given:
            options.append(f"{name}={quoted(plain.pop(0))}")
    for word in plain:
        if schema.unnamed and schema.unnamed[0] in given and not exists(word):
            raise UserError(f"{word}: {schema.unnamed[0]}= is given already: leave one of them out")
        raise UserError(plain_line(word, words[words.index(word) + 1 :] if word in words else (), schema))
    return options


def take_values(options: Sequence[str], name: str) -> tuple[list[str], list[str]]:
    """Divide options into the others and the values of those with a name: `images=a.png b.png` is one list."""
    others = [option for option in options if name_of(option) != name]
    values = [option.partition("=")[2] for option in options if name_of(option) == name]
    return others, [value[1:-1] if re.fullmatch(r"\[.*\]", value) else quoted(value) for value in values]


def plain_line(word: str, following: Sequence[str], schema: Schema) -> str:
    """Say what a word that is not name=value may be meant for, given those that follow it."""
    known = known_options(schema)
    rest, given, value = "".join(following[:1]).partition("=")
    if meant := [each for each in known if each.rpartition(".")[2] == f"{word}_{rest}"]:  # max epochs=3
        return f"{word} {rest}={value}: a name has no blanks: {for_shell(f'{meant[0]}={value}')}"
    name, equals, _ = word.partition("=")
    if equals and name:
        return option_line(name, known)
    if word in known:
        typed = for_shell(f"{word}={rest}") if rest and not given else f"e.g. {example(word, known[word])}"
        return f"{word}: an option is name=value, {typed}"
    name, colon, value = word.partition(":")
    is_colon = colon and name in known  # as in YAML
    takes = [for_shell(f"{name}={value or rest}")] if is_colon else [*meant_for(word, known)]
    advice = " or ".join(takes) if takes else 'a value with blanks needs quotes, e.g. "data.root=my photos"'
    return f"{word}: an option is name=value; {advice}"


def example(name: str, default: object) -> str:
    """Return an option with a value, for which its default stands where no better one is known, or with a choice."""
    if choices := sorted(file.stem for file in (CONF / name).glob("[!_]*.yaml")):
        return f"{name}={choices[0]}"
    if isinstance(default, dict):
        inner = next(each for each in default if not each.startswith("_"))
        return example(f"{name}.{inner}", default[inner])
    examples = {"resume": "latest", "from": "latest", "trust": "true", "trainer.max_time": "00:12:00:00"}
    return f"{name}={examples.get(name) or shown(not default if isinstance(default, bool) else default)}"


def meant_for(word: str, known: Collection[str]) -> Iterator[str]:
    """Yield options, with their values, that a word may be for."""
    if word == "help":
        yield "--help shows them"
    elif is_folder(Run(word).hydra_folder) and "resume" in known:
        yield for_shell(f"resume={word}")
        yield for_shell(f"from={word}")
    elif is_folder(word) and "data" in known:
        yield f"data=imagefolder {for_shell(f'data.root={word}')}"
    files = (file for file in CONF.glob("*/[!_]*.yaml") if file.parent.name in known)
    groups = {file.stem: file.parent.name for file in files}
    yield from (f"{groups[choice]}={choice}" for choice in nearest(word, sorted(groups))[:1])


def known_options(schema: Schema) -> dict[str, object]:
    known = defaults(schema.config_name, [])
    return known | (dict.fromkeys(BESIDE_THE_CONFIGURATION) if "resume" in known else {})


def is_folder(path: str | Path) -> bool:
    return os.path.isdir(path)


def exists(path: str) -> bool:
    return os.path.lexists(path)


# values


def check_grammar(argument: str, schema: Schema) -> None:
    """Raise UserError for an option that Hydra's grammar refuses."""
    name, _, value = argument.partition("=")
    if parsed(argument) is not None:
        return
    known = known_options(schema)
    if name not in known and plain_name(name) in map(plain_name, known):  # data.Root
        raise UserError(option_line(name, known))
    if value.endswith(","):
        problem = "a value is missing after the comma"
    elif any(value.count(opening) != value.count(closing) for opening, closing in ("[]", "()", "{}")):
        problem = "a bracket has no partner"
    elif re.fullmatch(r"\(.*\)", value) and parsed(f"{name}=[{value[1:-1]}]") is not None:
        problem = f"a list has square brackets: {for_shell(f'{name}=[{value[1:-1]}]')}"
    elif value.count("'") % 2 or value.count('"') % 2:
        problem = "a quote has no partner"
    else:
        if name in schema.kinds:  # quotes make no number of 10^-3
            check_option(name, value, schema.kinds[name])
        problem = f"text with such characters needs quotes, for the shell too: {shlex.quote(f'{name}={quoted(value)}')}"
    raise UserError(f"{argument}: {problem}")

"""Labels files: tables and lists that say which image has which label, and optionally which split and group."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reslab.data.folders import report_similar_names, split_named
from reslab.data.images import SUFFIXES, first_few, suffix_of
from reslab.data.locating import locate_images
from reslab.data.splits import SplitName
from reslab.data.tables import COLUMNS, Column, plain_name, read_table
from reslab.errors import UserError
from reslab.text import counted, size_order

log = logging.getLogger(__name__)

PLAIN_WORDS = r"[\w -]+"  # as a regular expression, they would match the same in every path


@dataclass
class LabelledFiles:
    """The rows of labels files, one per image.

    Attributes:
        names: the path of each image within the root of the data set.
        labels: the names of their classes.
        splits: their splits; None if nothing divides them.
        groups: the names of their groups; None if there is no column of groups.
        split_words: what each split is called in the files.
        without_label: what to say of a file that has no column of labels; "" if there is none.
    """

    names: list[str]
    labels: list[str]
    splits: list[SplitName] | None
    groups: list[str] | None
    split_words: dict[SplitName, str]
    without_label: str = ""

    def rows_of(self, split: SplitName | None) -> list[int]:
        """Return the numbers of the rows of a split, sorted by path; None: of all rows."""
        rows = range(len(self.names))
        chosen = rows if split is None else [row for row in rows if self.splits and self.splits[row] == split]
        return sorted(chosen, key=self.names.__getitem__)

    def classes_of(self, split: SplitName | None) -> list[str]:
        """Return the classes that have images in a split, or any, in the order of their labels."""
        return sorted({self.labels[row] for row in self.rows_of(split)}, key=class_order)


def class_order(name: str) -> tuple[bool, int, str, str, str]:
    """Return a sorting key: numbers by size, so that label 10 is after label 9, and 10.0 after 9.0, and then names."""
    whole, _, fraction = name.partition(".")
    if not whole.isdecimal() or not (fraction or "0").isdecimal():
        return True, 0, "", "", name
    return False, *size_order(whole), fraction.rstrip("0"), name


def find_labels(name: str, root: Path) -> Path:
    """Return a labels file, which is looked for in the root of the data set and then in the working directory."""
    for path in dict.fromkeys((root / name, Path(name))):
        if path.is_file():
            return path
    places = f"{root.absolute()} or in {Path.cwd()}" if not Path(name).is_absolute() else Path(name).parent
    raise UserError(f"data.labels={name}: there is no such file in {places}")


def read_labels(files: Sequence[Path], root: Path, group: str | None = None) -> LabelledFiles:
    """Read labels files, of which each is a split if there are several.

    Args:
        files: tables with named columns (CSV, TSV, Parquet), or lists of a path and a label per line.
        root: the folder of the data set. Paths are relative to it or to the folder of their file.
        group: the name of the column of the groups, or a regular expression, which is not used here; None for a column
            that is called "group", if there is one.

    Raises:
        UserError: a file cannot be read, an image is missing, or a row contradicts another one.
    """
    parts = [read_file(file, root, group, is_one_of_several=len(files) > 1) for file in files]
    refuse_missing_groups(files, [part for part, _ in parts])
    together = LabelledFiles(
        [name for part, _ in parts for name in part.names],
        [label for part, _ in parts for label in part.labels],
        [split for part, _ in parts for split in part.splits or ()] if parts[0][0].splits else None,
        [key for part, _ in parts for key in part.groups or ()] if parts[0][0].groups else None,
        {},
        next((part.without_label for part, _ in parts if part.without_label), ""),
    )
    for part, _ in parts:
        for split, words in part.split_words.items():
            before = together.split_words.get(split)
            together.split_words[split] = f"{before}, {words}" if before else words
    where = " and ".join(map(str, files))
    report_similar_names(where, sorted(set(together.labels)))
    return each_once(together, [real for _, reals in parts for real in reals], where)


def refuse_missing_groups(files: Sequence[Path], parts: Sequence[LabelledFiles]) -> None:
    """Raise UserError if one of several files has groups and another one has none."""
    without = [file for file, part in zip(files, parts, strict=True) if part.groups is None]
    if without and len(without) < len(files):
        there = next(file for file in files if file not in without)
        raise UserError(
            f"{without[0]} has no column of groups, and {there} has one: add it, so that groups are in one split only, "
            "or remove it there"
        )


def read_file(file: Path, root: Path, group: str | None, is_one_of_several: bool) -> tuple[LabelledFiles, list[str]]:
    """Return the rows of one file, and the path of each image without links."""
    table = read_table(file)
    columns = find_columns(table, file, group)
    names, real_paths = locate_images(columns["path"].values, root, file)
    words = words_of_splits(columns.get("split"), names, file, is_one_of_several)
    if "label" in columns:
        labels = columns["label"].values
    else:
        labels = class_folders_of(names, outer=words is not None and "split" not in columns and not is_one_of_several)
        if "" in labels:
            raise UserError(
                f"{file} has no column with labels ({shown_columns(table)}), and {names[labels.index('')]} is in no "
                "class folder: name the column of the labels label"
            )
    report_columns(file, table, columns, labels)
    groups = columns["group"].values if "group" in columns else None
    splits, split_words = splits_named(words) if words else (None, {})
    without_label = (
        "" if "label" in columns else f"{file} has no column that is known as the label ({shown_columns(table)})"
    )
    return LabelledFiles(names, labels, splits, groups, split_words, without_label), real_paths


def class_folders_of(names: Sequence[str], outer: bool) -> list[str]:
    """Return the class folder of each path, below the folder of a split if `outer`; "" for a path without one."""
    parts = [name.split("/")[outer:-1] for name in names]
    return [folders[0] if folders else "" for folders in parts]


# the columns


def shown_columns(table: Sequence[Column]) -> str:
    return f"its columns: {first_few([column.name or '?' for column in table])}"


def find_columns(table: list[Column], file: Path, group: str | None) -> dict[str, Column]:
    """Return which column is the path, the label, the split and the group, as far as they are there."""
    if table[0].name is None:
        if len(table) > 2:
            raise UserError(
                f"{file} does not name its {len(table)} columns: the first line must, e.g. path,label,split"
            )
        columns = dict(zip(("path", "label"), table, strict=False))
        refuse_swapped(table, file)
    else:
        by_name = {plain_name(column.name or ""): column for column in reversed(table)}
        columns = {
            role: by_name[found]
            for role, names in COLUMNS.items()
            if (found := next((name for name in names if name in by_name), None)) is not None
        }
        if "path" not in columns:
            raise UserError(f"{file} has no column with paths ({shown_columns(table)}): name it path")
        if "label" not in columns and len(table) == 2 and len(columns) == 1:
            columns["label"] = next(column for column in table if column is not columns["path"])
        split = columns.get("split")
        if split and plain_name(split.name or "") != "split" and not all(map(split_named, split.values)):
            del columns["split"]  # its name has other meanings too
        if group is not None:
            columns.pop("group", None)
        if group is not None and (column := column_of_groups(table, file, group)):
            columns["group"] = column
    check_values(columns, file)
    return columns


def refuse_swapped(table: Sequence[Column], file: Path) -> None:
    """Raise UserError for a list that has the label before the path."""
    first, last = ([suffix_of(value) in SUFFIXES for value in column.values] for column in (table[0], table[-1]))
    if len(table) == 2 and all(last) and not any(first):
        raise UserError(
            f"{file}: the label comes before the path ({table[0].values[0]}, {table[1].values[0]}): put the path "
            "first, or name the columns in the first line, e.g. label,path"
        )


def column_of_groups(table: Sequence[Column], file: Path, group: str) -> Column | None:
    """Return the column with this name; None for a regular expression."""
    found = next((column for column in table if column.name == group), None)
    if found is None and re.fullmatch(PLAIN_WORDS, group):
        raise UserError(f"data.group={group} is no column of {file} ({shown_columns(table)})")
    return found


def check_values(columns: dict[str, Column], file: Path) -> None:
    """Raise UserError for a file without rows and for an empty value."""
    paths = columns["path"].values
    if not paths:
        raise UserError(f"{file} names no images: a labels file has a line for each image")
    for role, column in columns.items():
        if "" in column.values:
            row = column.values.index("")
            what = paths[row] or f"row {row + 1}"
            raise UserError(f"{file}: {what} has no {role} ({counted(column.values.count(''), 'empty value')})")


def report_columns(file: Path, table: Sequence[Column], columns: dict[str, Column], labels: Sequence[str]) -> None:
    """Say in the log which column was taken as what, and which ones are not used."""
    taken = [
        f"{column.name or f'value {place}'} is the {role}" for place, (role, column) in enumerate(columns.items(), 1)
    ]
    if "label" not in columns:
        taken.append("no column is known as the label, so the class folder is the label")
    used = {id(column) for column in columns.values()}
    unused = [column.name or "?" for column in table if id(column) not in used]
    more = f"; not used: {first_few(unused)}" if unused else ""
    log.info(
        "%s: %s of %s; %s%s",
        file, counted(len(labels), "row"), f"{len(set(labels)):,} classes", ", ".join(taken), more,
    )  # fmt: skip


# splits and repetitions


def words_of_splits(
    column: Column | None, names: Sequence[str], file: Path, is_one_of_several: bool
) -> list[str] | None:
    """Return what the split of each image is called, or None if nothing divides the images.

    A column says it, or the name of the file if there are several, or the outermost folders, if all of them are splits.

    Raises:
        UserError: a word stands for no split, or the name of the file for another one.
    """
    own = split_named(file.stem) if is_one_of_several else None
    if column is not None:
        words = column.values
        if unknown := [word for word in dict.fromkeys(words) if split_named(word) is None]:
            raise UserError(f"{file}: {first_few(unknown)} is no split: the splits are train, val and test")
        contradicting = ((name, word) for name, word in zip(names, words, strict=True) if split_named(word) != own)
        for name, word in contradicting if own else ():
            raise UserError(
                f"{file} is the split {own} by its name, and its column {column.name} says {word} of {name}: correct "
                "or remove the column, or give the file another name"
            )
        return words
    if is_one_of_several:
        if own is None:
            raise UserError(
                f"{file} is one of several labels files: call each train, val or test, or join them and add a column "
                "split"
            )
        return [file.stem] * len(names)
    words = [name.partition("/")[0] for name in names]
    found = {split_named(word) for word in set(words)}
    return words if len(found) > 1 and None not in found else None


def splits_named(words: Sequence[str]) -> tuple[list[SplitName], dict[SplitName, str]]:
    """Return the split of each word, and what each split is called."""
    split_of = {word: split for word in dict.fromkeys(words) if (split := split_named(word)) is not None}
    called: dict[SplitName, str] = {}
    for word, split in split_of.items():
        called[split] = f"{called[split]}, {word}" if split in called else word
    return [split_of[word] for word in words], called


def each_once(files: LabelledFiles, real_paths: Sequence[str], where: str) -> LabelledFiles:
    """Return each image once, also where links lead to it. Raise UserError for one of two labels, splits or groups."""
    first: dict[str, int] = {}
    for row, real in enumerate(real_paths):
        before = first.setdefault(real, row)
        for values in (files.labels, files.splits, files.groups) if before != row else ():
            if values and values[before] != values[row]:
                name, other = files.names[row], files.names[before]
                are = f"{name} is" if name == other else f"{other} and {name}, which are one file by a link, are"
                raise UserError(f"{where}: {are} {values[before]} and {values[row]}: remove one of the two rows")
    rows = list(first.values())
    if repeated := len(real_paths) - len(rows):
        log.warning("left out %s of %s, whose images are in other rows too", counted(repeated, "row"), where)
    return LabelledFiles(
        [files.names[row] for row in rows],
        [files.labels[row] for row in rows],
        [files.splits[row] for row in rows] if files.splits else None,
        [files.groups[row] for row in rows] if files.groups else None,
        files.split_words,
        files.without_label,
    )

"""The configurations of a sweep's jobs. Jobs that differ only in plain values share one composition by Hydra.

Hydra takes over a tenth of a second for one composition, most of which it spends on reading and merging conf/.
"""

import copy
import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import filter_overrides
from omegaconf import DictConfig, OmegaConf, open_dict

from reslab.configuration import flatten, has_prefix, override_parser, to_dict
from reslab.errors import UserError
from reslab.internals import overrides_dirname
from reslab.run import Run


@dataclass
class Job:
    """One run that is to be launched.

    Args:
        number: its place in the sweep, from 0.
        overrides: its command line, with `resume=` where its folder exists.
        compose: returns its folder and its options. It is called when one of them is needed, because the first job of a
            sweep need not wait for the others.
        saved: the configuration that an earlier start has written into the folder, if it is known already.
    """

    number: int
    overrides: list[str]
    compose: Callable[[], tuple[Path, dict[str, Any]]]
    saved: dict[str, Any] | None = None

    @functools.cached_property
    def composed(self) -> tuple[Path, dict[str, Any]]:
        return self.compose()

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return self.composed[0]

    @property
    def options(self) -> dict[str, Any]:
        """Its composed configuration as dictionaries, with its interpolations."""
        return self.composed[1]

    @property
    def processes(self) -> int:
        """How many processes it has on one machine, one for each device; 1 if only the machine can tell."""
        devices = self.options.get("trainer", {}).get("devices", 1)
        return devices if isinstance(devices, int) else len(devices) if isinstance(devices, list) else 1

    @property
    def run(self) -> Run:
        return Run(self.folder)

    @property
    def config(self) -> DictConfig:
        """The options in a form that resolves their interpolations."""
        return OmegaConf.create(self.options)

    def write_failure(self, error: str, *, interrupted: bool = False) -> None:
        """Write the error into the job's folder, with settings if it has none: reports and `resume=` need them."""
        with suppress(OSError):  # the place in which its folder was may be gone too, or the disk full
            if not self.run.has_settings:
                task = [override for override in filter_overrides(self.overrides) if not override.startswith("resume=")]
                self.run.write_settings(OmegaConf.to_yaml(self.config), task)
            self.run.fail(error, interrupted=interrupted)


class Composer:
    """Composes the jobs of one sweep.

    Args:
        config_loader: Hydra's.
        sweep: the composed configuration of the sweep, with the part `hydra`.
    """

    def __init__(self, config_loader: ConfigLoader, sweep: DictConfig) -> None:
        self.config_loader, self.sweep = config_loader, sweep
        self.parse = functools.cache(override_parser().parse_override)
        self.groups = set(sweep.hydra.runtime.choices)
        self.leaves = flatten(to_dict(sweep)).keys() - self.groups
        self.shared: dict[object, tuple[DictConfig, dict[str, Any]]] = {}  # by all that the jobs have in common

    def compose(self, number: int, overrides: Sequence[str]) -> Job:
        """Return a job in a folder of its own."""
        return Job(number, list(overrides), lambda: (self.folder(number, overrides), self.options(overrides)))

    def options(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the configuration of a job as dictionaries, with its interpolations."""
        values = self.plain_values(overrides)
        options = copy.deepcopy(self.composed(overrides, values)[1])
        for name, value in values.items():
            *groups, option = name.split(".")
            functools.reduce(dict.__getitem__, groups, options)[option] = value
        return options

    def option(self, overrides: Sequence[str], name: str, otherwise: Any = None) -> Any:
        """Return one option of a job, or `otherwise` where the job has no such option."""
        values = self.plain_values(overrides)
        return values[name] if name in values else self.composed(overrides, values)[1].get(name, otherwise)

    def folder(self, number: int, overrides: Sequence[str]) -> Path:
        """Return the folder that a job gets.

        Raises:
            UserError: the folder's name does not begin with the number, which distinguishes the jobs.
        """
        values = self.plain_values(overrides)
        config, _ = self.composed(overrides, values)
        for name, value in values.items():
            OmegaConf.update(config, name, value)
        with open_dict(config.hydra):
            config.hydra.job.id = config.hydra.job.num = number
            config.hydra.job.override_dirname = overrides_dirname(config.hydra, map(self.parse, overrides))
        name = str(config.hydra.sweep.subdir)
        if name.partition("_")[0] != str(number) or "/" in name:
            raise UserError(f"hydra.sweep.subdir={name} must be ${{hydra.job.num}}, or begin with ${{hydra.job.num}}_")
        return Path(config.hydra.sweep.dir, name)

    def composed(self, overrides: Sequence[str], values: dict[str, Any]) -> tuple[DictConfig, dict[str, Any]]:
        """Return the configuration of a job, apart from its plain values, as Hydra composes it and as dictionaries.

        Jobs with the same names of plain values and with the same other overrides share it.
        """
        if (key := self.key(overrides, values)) not in self.shared:
            config = self.config_loader.load_sweep_config(self.sweep, list(overrides))
            options = to_dict(config)
            del options["hydra"]
            self.shared[key] = config, options
        return self.shared[key]

    def key(self, overrides: Sequence[str], values: Iterable[str]) -> object:
        """Return what jobs that share a composition have in common."""
        return tuple(values), *(each for each in overrides if self.parse(each).key_or_group not in values)

    def plain_values(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Return the overrides that only set a value, by the names of the options.

        There is none if one of them is set twice, alone or with its group, because then the order counts.
        """
        parsed = [self.parse(override) for override in overrides]
        names = [each.key_or_group for each in parsed if each.key_or_group not in self.groups or is_container(each)]
        values = {each.key_or_group: each.value() for each in parsed if self.is_plain(each)}
        if any(sum(has_prefix(each, (name,)) or has_prefix(name, (each,)) for each in names) > 1 for name in values):
            return {}
        return values

    def is_plain(self, override: Override) -> bool:
        """Return whether an override only sets an option to a number, text, true, false or null."""
        sets = override.type == OverrideType.CHANGE and override.key_or_group in self.leaves
        return sets and not override.package and not is_container(override)


def is_container(override: Override) -> bool:
    return isinstance(override.value(), list | dict)

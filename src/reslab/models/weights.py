"""Published weights: torchvision's by name, or a local file."""

import errno
import json
import logging
import os
import re
import struct
import warnings
import zipfile
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.serialization import safe_globals

from reslab.configuration import CONF, shown
from reslab.errors import UserError
from reslab.models.options import MODEL, RESNET
from reslab.models.resnet import ResNet
from reslab.newest import find_checkpoint, located
from reslab.run import SETTINGS_ERRORS, Run, read_configuration

log = logging.getLogger(__name__)

StateDict = dict[str, Tensor]
SAFETENSORS = ".safetensors"
RECORD = "reslab"  # the entry of a checkpoint that says of which run it is
OF_TORCHVISION = "IMAGENET1K"  # how the names of torchvision's weights begin
LISTED_KEYS = 4  # a message names this many of the keys that do not fit; for a wrong network they are hundreds
# The entries in which training scripts save a network, the more usual ones first, and parts of the names of averages.
ENTRIES = ("state_dict", "model", "net", "network", "module", "weights", "student")
AVERAGES = ("ema", "average", "swa", "teacher", "momentum", "encoder_k")
CLASSIFIERS = ("fc.", "head.fc.")
# How files of torch.save begin: the zip archives of today, and the pickled number of versions before 1.6.
ZIP, LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
INCOMPLETE = "it is incomplete or damaged"


# Options of a ResNet that its tensors show, or that only its training depends on. The others give the same tensors
# another meaning.
SHOWN_OR_OF_TRAINING = (
    "block", "layers", "widths", "stem_width", "width_per_group", "squeeze_excitation", "classifier_bias", "dropout",
    "stochastic_depth", "zero_init_residual",
)  # fmt: skip


class DamagedFileError(Exception):
    """A file of torch.save that is incomplete, or differs from what was written."""


class Weights(NamedTuple):
    """What `model.weights` stands for.

    Attributes:
        tensors: the network's, whose names may have the prefix of a wrapper.
        trained: the options of the group `model` of the run that trained them; empty where that is not known.
    """

    tensors: StateDict
    trained: dict[str, Any]


def read_published(weights: str, name: str, stem: str | None = None) -> Weights:
    """Return the weights that `model.weights` stands for.

    Args:
        weights: the name of torchvision's weights, `IMAGENET1K_V1` or `IMAGENET1K_V2`; the path of a file: a state
            dictionary, or a checkpoint with one in an entry such as `state_dict` or `model`, written by torch.save or
            by safetensors; the folder of a run, which stands for its best checkpoint; or `zoo:<name>`.
        name: the variant whose weights torchvision is asked for, e.g. `resnet50`.
        stem: the option `model.stem`; None if it does not matter.

    Raises:
        UserError: there are no such weights, the file holds anything but tensors and plain values, or `stem` is "auto"
            and a checkpoint has been trained with a stem that its tensors do not show.
    """
    if weights.startswith(OF_TORCHVISION):
        return Weights(download_weights(name, weights), {})
    if (path := find_checkpoint(weights)) is None:
        if lost := Run(weights).lost_checkpoints:
            raise UserError(f"model.weights: {lost}")
        others = "torchvision's weights are IMAGENET1K_V1 and IMAGENET1K_V2"
        raise UserError(f"model.weights: there is no file or run {weights}; {others}")
    return read_state_dict(path, stem)


def stem_of_published(weights: str, name: str, stem: str | None = None) -> str | None:
    """Return the stem of the weights that `model.weights` stands for, without a download. Raise as `read_published`."""
    if weights.startswith(OF_TORCHVISION):
        published_entry(name, weights)
        return "imagenet"
    return stem_of(read_published(weights, name, stem).tensors)


def stem_of(state: StateDict) -> str | None:
    """Return the stem of a ResNet's weights, by the size of its first convolution; None where it has no such layer.

    A `halving` stem differs from a `cifar` one in its stride alone, which weights do not show.
    """
    prefixes = dict.fromkeys(["", *(key.partition("layer1.")[0] for key in state if "layer1." in key)])
    if any(f"{prefix}conv1.0.weight" in state for prefix in prefixes):
        return "deep"
    first = next((state[f"{prefix}conv1.weight"] for prefix in prefixes if f"{prefix}conv1.weight" in state), None)
    sizes = () if first is None else tuple(first.shape[2:])
    return "imagenet" if sizes == (7, 7) else "cifar" if sizes == (3, 3) else None


def load_weights(network: nn.Module, state: StateDict, weights: str, name: str) -> None:
    """Load published weights into a network, in place.

    The classifier keeps its initial weights where the file has another one or none, which a warning says.

    Args:
        network: a network with torchvision's or timm's parameter names.
        state: the tensors, whose names may have the prefix of a wrapper.
        weights: where they are from, for messages.
        name: the network's variant, for messages.

    Raises:
        UserError: the weights do not fit or are not finite; the message names the keys, and the network is unchanged.
    """
    own = network.state_dict()
    prefix = prefix_of(state, own)
    left_out = [key for key in state if not key.startswith(prefix)]
    state, problem = with_own_classifier(without_prefix(state, prefix, own), own)
    if problems := mismatches(state, own):
        if (other := trained_model(weights) or variant_of(state)) not in (None, name):
            raise UserError(f"{weights} has the weights of model={other}, which do not fit model={name}")
        raise UserError(f"{weights} does not fit model {name}: {listed(problems)}{stem_advice(own, state)}")
    if broken := not_finite(state):
        raise UserError(
            f"model.weights: {weights} holds weights that are not finite ({listed(broken)}): use another file"
        )
    if problem:
        log.warning("%s: %s: the network's classifier keeps its initial weights", weights, problem)
    network.load_state_dict(own | state)
    others = f"; left out: {listed(left_out)}" if left_out else ""
    log.info("loaded %s%s%s", weights, f", its tensors below {prefix.rstrip('.')}" if prefix else "", others)


def prefix_of(state: StateDict, own: StateDict) -> str:
    """Return the prefix under which most names of a network are found: that of a wrapper, or "" for none.

    Of several with equally many, such as encoder_q and encoder_k, the network itself is taken, not its average.
    """
    found = Counter[str]()
    renamed = "linear.weight" not in own
    for key in state:
        parts = (key.replace("linear.", "fc.") if renamed else key).split(".")
        for number in range(len(parts)):
            if ".".join(parts[number:]) in own:
                found["".join(f"{part}." for part in key.split(".")[:number])] += 1
    return max(found, key=lambda prefix: (found[prefix], not is_average(prefix)), default="")


def without_prefix(state: StateDict, prefix: str, own: StateDict) -> StateDict:
    """Return the tensors below a prefix, under names without it; a classifier `linear` is `fc`, if `own` has none."""
    below = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if "linear.weight" in own:
        return below
    return {("fc" + key.removeprefix("linear") if key.startswith("linear.") else key): v for key, v in below.items()}


def with_own_classifier(state: StateDict, own: StateDict) -> tuple[StateDict, str]:
    """Return the tensors, with the network's own classifier where theirs cannot be taken, and why it cannot."""
    layer = next((layer for layer in CLASSIFIERS if f"{layer}weight" in own), None)
    if layer is None:
        return state, ""
    key = f"{layer}weight"
    if key in state and len(state[key]) == len(own[key]):
        return state, ""
    if key in state:
        problem = f"its classifier has {len(state[key])} classes, not {len(own[key])}"
    else:
        has_other = any(name.startswith(layer) for name in state)
        problem = "its classifier is more than one layer" if has_other else "it has no classifier"
    kept = {name: value for name, value in state.items() if not name.startswith(layer)}
    return kept | {name: value for name, value in own.items() if name.startswith(layer)}, problem


def not_finite(state: StateDict) -> list[str]:
    """Return the names of the tensors that hold NaN or an infinity."""
    return [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]


def variant_of(state: StateDict) -> str | None:
    """Return a variant of conf/model with these weights, whatever their number of classes; None where there is none."""
    first = state.get("conv1.0.weight", state.get("conv1.weight"))
    shared = read_configuration(CONF / "model" / "_resnet.yaml")
    depths = [len({key.split(".")[1] for key in state if key.startswith(f"layer{n}.")}) for n in range(1, 10)]
    for file in sorted((CONF / "model").glob("[!_]*.yaml"), key=lambda file: (len(file.stem), file.stem)):
        model = shared | read_configuration(file)
        if list(model.get("layers", ())) != [depth for depth in depths if depth] or first is None:
            continue
        stem = stem_of(state) if model["stem"] == "auto" else model["stem"]
        options = {name: model[name] for name in RESNET} | {"stem": stem}
        with torch.device("meta"):
            made = ResNet(in_channels=first.shape[1], num_classes=1, **options).state_dict()
        if not mismatches(with_own_classifier(state, made)[0], made):
            return file.stem
    return None


def trained_model(weights: str) -> str | None:
    """Return the model that a run has trained, by its name; None where the weights are not those of a run."""
    with suppress(*SETTINGS_ERRORS):
        path = located(weights)
        run = Run(path) if os.path.isdir(path) else Run.of_checkpoint(path)
        return str(run.config["model"]["name"])
    return None


def mismatches(state: StateDict, own: StateDict) -> list[str]:
    """Describe each key of the weights `state` that does not fit a network with the state `own`."""
    optional = {key for key in own if key.endswith("num_batches_tracked")}  # absent from files older than torch 0.4
    problems = [f"missing {key}" for key in own.keys() - state.keys() - optional]
    problems += [f"unexpected {key}" for key in state.keys() - own.keys()]
    problems += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    return problems


def listed(problems: list[str]) -> str:
    """Return the first of the problems, sorted, and how many more there are."""
    more = f"; and {len(problems) - LISTED_KEYS} more" if len(problems) > LISTED_KEYS else ""
    return "; ".join(sorted(problems)[:LISTED_KEYS]) + more


def stem_advice(own: StateDict, state: StateDict) -> str:
    """Return what gives the network the first convolution of the weights."""
    first = "conv1.weight"
    if first not in own or first not in state or own[first].shape == state[first].shape:
        return ""
    (_, channels, *size), (_, own_channels, *own_size) = state[first].shape, own[first].shape
    stem = stem_of(state) if size != own_size else None
    needed = [f"model.stem={stem}"] * (stem is not None) + [f"data.channels={channels}"] * (channels != own_channels)
    return f" (the stem differs: {' and '.join(needed)} would give it that shape)" if needed else ""


def download_weights(name: str, weights: str) -> StateDict:
    """Return torchvision's weights from its cache or its site, with their checksum verified."""
    entry = published_entry(name, weights)
    try:
        state = dict(entry.get_state_dict(map_location="cpu", check_hash=True, weights_only=True))
        verify_checksums(Path(torch.hub.get_dir(), "checkpoints", Path(entry.url).name))  # torch checks downloads only
        return state
    except Exception as error:  # the network, the checksum, or a broken file in the cache
        raise UserError(
            f"cannot get {entry.url} ({describe_load_error(error)}): put the file into "
            f"{torch.hub.get_dir()}/checkpoints or give its path as model.weights"
        ) from error


def published_entry(name: str, weights: str) -> Any:
    """Return torchvision's record of weights, which has their address. Raise UserError if there are none."""
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(name)[weights]
    except (ValueError, KeyError) as error:
        raise UserError(f"torchvision has no weights {weights} for {name}") from error


def warn_of_another_function(weights: str, trained: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Warn if a network computes something else with weights than the one that was trained, although they fit.

    Args:
        weights: where they are from, for the message.
        trained: the options of the network that was trained.
        network: the options of this one, whose `stem` is not "auto".
    """
    names = [name for name in RESNET if name in trained and name in network and name not in SHOWN_OR_OF_TRAINING]
    differing = [name for name in names if trained[name] not in (network[name], "auto")]
    if differing:
        had = " ".join(f"model.{name}={shown(trained[name])}" for name in differing)
        has = " ".join(f"model.{name}={shown(network[name])}" for name in differing)
        log.warning("%s: these weights were trained with %s; with %s they compute something else", weights, had, has)


def read_state_dict(path: Path, stem: str | None = None) -> Weights:
    """Return the network's tensors in a file, under torchvision's names. Raise as `read_published`."""
    try:
        # torchvision's training scripts save their options as a Namespace, a class that only holds attributes.
        with safe_globals([Namespace]):
            content = load_tensors(path)
    except Exception as error:  # each format has its own ways to fail
        raise UserError(f"model.weights: {path} is not a file of weights ({describe_load_error(error)})") from error
    state = choose_state_dict(path, content)
    trained = recorded_options(content)
    if stem == "auto" and trained.get("stem", "auto") not in ("auto", stem_of(state)):
        # It is not chosen here: a checkpoint of the new run would not show it either.
        raise UserError(
            f"model.weights: {path} was trained with model.stem={trained['stem']}, which model.stem=auto does not "
            f"find: set model.stem={trained['stem']}"
        )
    return Weights(state, trained)


def recorded_options(content: Any) -> dict[str, Any]:
    """Return the options of a ResNet that a checkpoint of ResLab holds, without those that can be none."""
    try:
        model = dict(content[RECORD]["config"]["model"])
    except (KeyError, TypeError, IndexError, ValueError):
        return {}
    return {name: model[name] for name in RESNET if name in model and MODEL[f"model.{name}"].allows(model[name])}


def load_tensors(path: Path) -> Any:
    """Return what a file of torch.save or of safetensors holds, on the CPU: tensors and plain values.

    It can run no code. The name of a file of safetensors ends in .safetensors.

    Raises:
        OSError: the file cannot be read.
        DamagedFileError: the file of torch.save is empty, incomplete or damaged.
        Exception: torch.load and safetensors raise many kinds of errors for other files.
    """
    if not path.is_file():  # to open a pipe would wait for its other end
        raise FileNotFoundError(errno.ENOENT, "it is not a regular file" if path.exists() else "there is none")
    if path.suffix == SAFETENSORS:
        return load_safetensors(path)
    with path.open("rb") as file:
        start = file.read(len(LEGACY))
    if not start:
        raise DamagedFileError("it is empty or incomplete")
    verify_checksums(path)
    with warnings.catch_warnings(action="ignore"):  # torch warns about some of the files that it then refuses
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a file that ends too early may raise anything
            if not LEGACY.startswith(start) or isinstance(error, UnpicklingError | OSError | MemoryError):
                raise
            raise DamagedFileError(INCOMPLETE) from error


def load_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors in a file of safetensors by name; of one that `save_safetensors` wrote, what that was given.

    Raises:
        TypeError: the metadata is not what `save_safetensors` writes.
        Exception: safetensors raises several kinds of errors for other files.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dictionary
    if RECORD not in metadata:
        return tensors
    prefix = f"{RECORD}."
    recorded = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    try:
        content: dict[str, Any] = json.loads(metadata[RECORD])
        return content | {RECORD: content[RECORD] | recorded, "state_dict": weights}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"its metadata {RECORD!r} is not what ResLab writes") from error


def save_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write weights and what is known about them as a file of safetensors.

    Args:
        path: the file.
        content: "state_dict", the weights; "reslab", the record of a checkpoint, whose own tensors are written under
            names that begin with `reslab.`; and any other entries. All but the tensors is written as JSON, under the
            key "reslab" of the metadata.
    """
    record = content[RECORD]
    tensors = content["state_dict"] | {
        f"{RECORD}.{name}": value for name, value in record.items() if isinstance(value, Tensor)
    }
    plain = {name: value for name, value in content.items() if name != "state_dict"}
    plain[RECORD] = {name: value for name, value in record.items() if not isinstance(value, Tensor)}
    # A tensor of its own each: safetensors writes no views.
    own = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    path.write_bytes(save(own, {RECORD: json.dumps(plain)}))


def verify_checksums(path: Path) -> None:
    """Raise DamagedFileError unless a zip archive is complete and has its checksums, which torch.load ignores.

    Files of torch before 1.6, such as some of torchvision's weights, are no archives and have no checksums.
    """
    with path.open("rb") as file:
        if not ZIP.startswith(file.read(len(ZIP))):
            return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except MemoryError:
        raise
    except Exception as error:  # what zipfile raises depends on the place of the damage
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise DamagedFileError(INCOMPLETE) from error
    if damaged:
        raise DamagedFileError(f"the checksum of its part {damaged} is wrong")


def is_state_dict(value: Any) -> TypeGuard[StateDict]:
    """Return whether a value is a dictionary of tensors by name, with at least one."""
    named = isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    return named and len(value) > 0


def choose_state_dict(path: Path, content: Any) -> StateDict:
    """Return the content if it is a state dictionary, otherwise the entry that is one.

    Of several, the network itself is taken rather than an average of its weights, and a warning says so.

    Raises:
        UserError: no entry is a dictionary of tensors, or several are and their names do not say which is the network.
    """
    if is_state_dict(content):
        return content
    found = state_dicts_within(content)
    if not found:
        raise UserError(f"model.weights: {path} holds no dictionary of tensors, at its top or in one of its entries")
    plain = [name for name in found if not is_average(name)] or list(found)
    if len(plain) > 1:
        plain = [name for entry in ENTRIES for name in plain if entry in name.split(".")]
    names = ", ".join(found)
    if not plain:
        raise UserError(
            f"model.weights: {path} holds several dictionaries of tensors ({names}): save the network alone"
        )
    if len(found) > 1 and "reslab" not in content:  # a checkpoint of ResLab is known to have the averages there
        log.warning("%s holds several dictionaries of tensors (%s): %s is loaded", path, names, plain[0])
    return found[plain[0]]


def is_average(name: str) -> bool:
    return any(part in name.lower() for part in AVERAGES)


def state_dicts_within(content: Any) -> dict[str, StateDict]:
    """Return the state dictionaries among the entries of a dictionary; where there are none, those one level deeper.

    The keys are the names of the entries, such as `model`, or `state_dict.model` for one that is deeper.
    """
    entries = named_entries(content)
    deeper = {f"{name}.{inner}": value for name in entries for inner, value in named_entries(entries[name]).items()}
    found = ({name: value for name, value in level.items() if is_state_dict(value)} for level in (entries, deeper))
    return next(found) or next(found)


def named_entries(value: Any) -> dict[str, Any]:
    return {name: entry for name, entry in value.items() if isinstance(name, str)} if isinstance(value, dict) else {}


def describe_load_error(error: Exception) -> str:
    """Describe in one line why weights cannot be loaded.

    When weights_only=True refuses a file, torch's own message advises to load it without that protection.
    """
    if refused := re.search(r"GLOBAL ([\w.]+)|(TorchScript)", str(error)):
        return f"it holds {refused[1] or refused[2]}, which is not run: only tensors and plain values are read"
    if problem := re.search(r"WeightsUnpickler error:\s*(.+)", str(error)):
        return f"torch.save did not write it: {problem[1]}"
    if isinstance(error, SafetensorError):
        return f"{INCOMPLETE}, or safetensors did not write it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, EOFError):
        return "it is empty or incomplete"
    if isinstance(error, KeyError | IndexError | ValueError | struct.error):  # torch's reader of pickles meets text
        return "torch.save did not write it"
    return (str(error).splitlines() or [type(error).__name__])[0]

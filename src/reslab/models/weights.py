"""Published weights: torchvision's by name, or a local file."""

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reslab.errors import UserError

log = logging.getLogger(__name__)

StateDict = dict[str, Tensor]
LISTED_KEYS = 12  # of those that do not fit; a wrong network has hundreds
PREFIXES = ("module.", "net.", "network.", "_orig_mod.")  # DataParallel, Lightning modules, torch.compile


def load_weights(network: nn.Module, weights: str, name: str) -> None:
    """Load torchvision's `weights` of model `name`, or a file, into `network`.

    A classifier of another size is left as initialised, with a message.
    Raises UserError with the keys where anything else does not fit.
    """
    state = download(name, weights) if weights.startswith("IMAGENET1K") else read_state_dict(Path(weights))
    own = network.state_dict()
    for layer in ("fc", "head.fc"):
        key = f"{layer}.weight"
        if key in state and key in own and len(state[key]) != len(own[key]):
            log.warning(
                "%s: its classifier has %d classes and this one %d: the classifier starts afresh",
                weights, len(state[key]), len(own[key]),
            )  # fmt: skip
            state |= {f"{layer}.{part}": own[f"{layer}.{part}"] for part in ("weight", "bias")}
    optional = {key for key in own if key.endswith("num_batches_tracked")}  # absent from files older than torch 0.4
    problems = [f"missing {key}" for key in own.keys() - state.keys() - optional]
    problems += [f"unexpected {key}" for key in state.keys() - own.keys()]
    problems += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    ]
    if problems:
        listed = "; ".join(sorted(problems)[:LISTED_KEYS])
        more = f"; and {len(problems) - LISTED_KEYS} more" if len(problems) > LISTED_KEYS else ""
        raise UserError(f"{weights} does not fit model {name}: {listed}{more}{advice(problems)}")
    network.load_state_dict(own | state)
    log.info("loaded %s", weights)


def advice(problems: list[str]) -> str:
    if any(problem.startswith("conv1.weight is") for problem in problems):
        return " (the stem differs: model.stem=imagenet and data.channels=3 give the published ImageNet layout)"
    return ""


def download(name: str, weights: str) -> StateDict:
    """torchvision's weights, from its cache or its site, the checksum verified."""
    from torchvision.models import get_model_weights

    try:
        entry = get_model_weights(name)[weights]
    except (ValueError, KeyError) as error:
        raise UserError(f"torchvision has no weights {weights} for {name}") from error
    try:
        return dict(entry.get_state_dict(map_location="cpu", check_hash=True, weights_only=True))
    except Exception as error:  # the network, the checksum, or a broken file in the cache
        raise UserError(
            f"cannot get {entry.url} ({reason(error)}): put the file into {torch.hub.get_dir()}/checkpoints "
            "or give its path as model.weights"
        ) from error


def reason(error: Exception) -> str:
    """One line; torch's own about what weights_only=True refuses advises to run it."""
    if refused := re.search(r"GLOBAL ([\w.]+)|(TorchScript)", str(error)):
        return f"it holds {refused[1] or refused[2]}, which is not run: only tensors and plain values are read"
    if problem := re.search(r"WeightsUnpickler error:\s*(.+)", str(error)):
        return f"torch.save has not written it: {problem[1]}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_state_dict(path: Path) -> StateDict:
    """The network's tensors in a file, under torchvision's names."""
    if not path.is_file():
        raise UserError(f"model.weights: there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other pickle protocols: what is refused is told in one line
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own ways to fail
        raise UserError(f"model.weights: {path} is not a file of weights ({reason(error)})") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"model.weights: {path} holds no dictionary of tensors, at its top or under state_dict")
    return rename(state)


def rename(state: StateDict) -> StateDict:
    """Strip the prefixes that wrappers leave, and call the classifier `fc`."""
    if any(key.startswith("network.") for key in state):  # one of ResLab's checkpoints, which holds metrics too
        state = {key: value for key, value in state.items() if key.startswith("network.")}
    while state and (prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in state)), None)):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {("fc" + key.removeprefix("linear") if key.startswith("linear.") else key): v for key, v in state.items()}

"""Published weights: every kind of file loads alike, keys that do not fit are named, and no code in a file runs."""

import hashlib
import http.server
import pickle
import threading
import warnings
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from bad_images import Trap
from conftest import SHARED_DATA, needs_shared_data
from malicious import MALICIOUS
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from reslab.data.fitting import Fitting
from reslab.data.preprocessing import Preprocessing
from reslab.errors import UserError
from reslab.models.build import build_network
from reslab.models.weights import load_weights, read_published, read_state_dict, stem_of
from reslab.run import Run

Compose = Callable[..., DictConfig]
StateDict = dict[str, Tensor]
V1 = ResNet18_Weights.IMAGENET1K_V1


@pytest.fixture(autouse=True)
def warnings_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Let `caplog` hold no information, whatever level an earlier test has set."""
    caplog.set_level("WARNING", "reslab")


@pytest.fixture
def network(composed: Compose) -> nn.Module:
    return build_network(composed("model=resnet8").model, 3, 10, 32)


@pytest.fixture
def state(network: nn.Module) -> StateDict:
    """Other weights for `network`."""
    torch.manual_seed(0)
    return {
        key: torch.rand_like(value, dtype=torch.float32).to(value.dtype) for key, value in network.state_dict().items()
    }


def save(content: object, path: Path) -> str:
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return str(path)


def load(network: nn.Module, weights: str, name: str = "resnet8") -> None:
    load_weights(network, read_published(weights, name).tensors, weights, name)


def assert_equal(network: nn.Module, state: StateDict) -> None:
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".pth", ".th", ".ckpt", ".safetensors"])
def test_every_kind_of_file(composed: Compose, state: StateDict, tmp_path: Path, ending: str) -> None:
    path = save(state, tmp_path / f"weights{ending}")
    assert_equal(build_network(composed("model=resnet8", f"model.weights={path}").model, 3, 10, 32), state)


@pytest.mark.slow
@pytest.mark.parametrize("classifier", ["fc", "linear"])
@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "net.", "network.", "model.", "_orig_mod.",
        "backbone.", "resnet.", "encoder_q.", "module.encoder.",
        "module.network.", "network._orig_mod.", "_orig_mod.module.", "network._orig_mod.module.net.",
    ],
)  # fmt: skip
def test_prefixes_of_wrappers_are_removed(
    network: nn.Module, state: StateDict, tmp_path: Path, prefix: str, classifier: str
) -> None:
    wrapped = {prefix + key.replace("fc.", f"{classifier}."): value for key, value in state.items()}
    load(network, save({"state_dict": wrapped, "epoch": 3}, tmp_path / "wrapped.pth"))
    assert_equal(network, state)


def test_a_lightning_checkpoint_with_metrics(network: nn.Module, state: StateDict, tmp_path: Path) -> None:
    wrapped = {f"network.{key}": value for key, value in state.items()} | {"val_metrics.accuracy.tp": torch.ones(10)}
    load(network, save({"state_dict": wrapped, "global_step": 7}, tmp_path / "last.ckpt"))
    assert_equal(network, state)


# What training scripts save next to the network.
EXTRAS = {
    "epoch": 3,
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    "lr_scheduler": {"last_epoch": 3, "_last_lr": [0.1]},
    "args": Namespace(model="resnet8", lr=0.1, device="cuda"),
}


@pytest.mark.parametrize(
    "entry", ["model", "net", "network", "module", "weights", "teacher", "model_ema", "state_dict_ema", "anything"]
)
def test_an_entry_of_any_name_is_loaded(
    network: nn.Module, state: StateDict, tmp_path: Path, caplog: pytest.LogCaptureFixture, entry: str
) -> None:
    load(network, save({entry: state, **EXTRAS}, tmp_path / "reference.pth"))
    assert_equal(network, state)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize("outer", ["state_dict", "checkpoint"])
def test_an_entry_of_an_entry_is_loaded(network: nn.Module, state: StateDict, tmp_path: Path, outer: str) -> None:
    content = {outer: {"model": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, **EXTRAS}
    load(network, save(content, tmp_path / "nested.pth"))
    assert_equal(network, state)


@pytest.mark.parametrize(
    ("taken", "others"),
    [
        ("model", ["model_ema"]),
        ("state_dict", ["state_dict_ema"]),
        ("state_dict", ["model"]),
        ("net", ["ema", "swa_model"]),
        ("student", ["teacher"]),
        ("generator", ["generator_ema"]),
        ("model", ["statistics"]),
    ],
)
def test_the_network_is_taken_rather_than_an_average(
    network: nn.Module,
    state: StateDict,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    taken: str,
    others: list[str],
) -> None:
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    path = save({**dict.fromkeys(others, other), taken: state, **EXTRAS}, tmp_path / "several.pth")
    load(network, path)
    assert_equal(network, state)
    names = ", ".join([*others, taken])
    assert caplog.messages == [f"{path} holds several dictionaries of tensors ({names}): {taken} is loaded"]


def test_an_average_of_torch_is_loaded(network: nn.Module, state: StateDict, tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(network)
    averaged.module.load_state_dict(state)
    load(network, save({"model_ema": averaged.state_dict()}, tmp_path / "average.pth"))
    assert_equal(network, state)


def test_the_averages_in_a_checkpoint_of_reslab_are_known(tmp_path, caplog):
    tensors = {"network.fc.bias": torch.zeros(2)}
    last = {"network.fc.bias": torch.ones(2)}
    torch.save({"reslab": {}, "state_dict": tensors, "last_weights": last}, tmp_path / "a.ckpt")
    assert read_state_dict(tmp_path / "a.ckpt").tensors["network.fc.bias"].tolist() == [0, 0]
    assert caplog.messages == []


def test_several_dictionaries_of_unknown_names_are_refused(
    network: nn.Module, state: StateDict, tmp_path: Path
) -> None:
    path = save({"generator": state, "discriminator": state}, tmp_path / "several.pth")
    with pytest.raises(UserError) as raised:
        load(network, path)
    assert str(raised.value) == (
        f"model.weights: {path} holds several dictionaries of tensors (generator, discriminator): "
        "save the network alone"
    )


def test_a_file_from_before_norms_counted_batches(network: nn.Module, state: StateDict, tmp_path: Path) -> None:
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    load(network, save(old, tmp_path / "old.pth"))
    assert_equal(network, old | {key: torch.tensor(0) for key in state.keys() - old.keys()})


@pytest.mark.parametrize("classifier", ["fc", "linear"])
def test_a_classifier_of_another_size_keeps_its_initial_weights(
    composed: Compose, state: StateDict, tmp_path: Path, caplog: pytest.LogCaptureFixture, classifier: str
) -> None:
    network = build_network(composed("model=resnet8").model, 3, 7, 32)
    fresh = {key: value.clone() for key, value in network.state_dict().items() if key.startswith("fc.")}
    published = {key.replace("fc.", f"{classifier}."): value for key, value in state.items()}
    path = save(published, tmp_path / "ten.pth")
    load(network, path)
    assert_equal(network, state | fresh)
    assert caplog.messages == [
        f"{path}: its classifier has 10 classes, not 7: the network's classifier keeps its initial weights"
    ]


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ({}, "it has no classifier"),
        (
            {"fc.0.weight": torch.zeros(64, 64), "fc.2.weight": torch.zeros(8, 64)},
            "its classifier is more than one layer",
        ),
    ],
)
def test_a_backbone_is_loaded_without_a_classifier(
    network: nn.Module,
    state: StateDict,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    head: StateDict,
    problem: str,
) -> None:
    fresh = {key: value.clone() for key, value in network.state_dict().items() if key.startswith("fc.")}
    backbone = {key: value for key, value in state.items() if not key.startswith("fc.")}
    path = save(backbone | head, tmp_path / "backbone.pth")
    load(network, path)
    assert_equal(network, backbone | fresh)
    assert caplog.messages == [f"{path}: {problem}: the network's classifier keeps its initial weights"]


def test_the_encoder_is_taken_rather_than_its_average_and_a_projection_head(
    network: nn.Module, state: StateDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "reslab")
    content = {f"module.encoder_k.{key}": torch.zeros_like(value) for key, value in state.items()}
    content |= {f"module.encoder_q.{key}": value for key, value in state.items()}
    content |= {"module.queue": torch.zeros(2), "projector.0.weight": torch.zeros(2, 2)}
    path = save(content, tmp_path / "moco.pth")
    load(network, path)
    assert_equal(network, state)
    (line,) = caplog.messages
    assert line.startswith(f"loaded {path}, its tensors below module.encoder_q; left out: module.encoder_k.bn1.bias; ")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["layer1.0.conv1.weight", "bn1.running_var"])
def test_weights_that_are_not_finite_are_refused(
    network: nn.Module, state: StateDict, tmp_path: Path, value: float, key: str
) -> None:
    state[key].view(-1)[3] = value
    path = save(state, tmp_path / "diverged.pth")
    with pytest.raises(UserError) as raised:
        load(network, path)
    assert str(raised.value) == f"model.weights: {path} holds weights that are not finite ({key}): use another file"


@pytest.mark.slow
@pytest.mark.parametrize(("model", "stem"), [("resnet34", 7), ("resnet50", 3), ("preact_resnet18", 7)])
def test_the_variant_of_the_weights_is_named(composed: Compose, tmp_path: Path, model: str, stem: int) -> None:
    published = build_network(composed(f"model={model}").model, 3, 5, 224 if stem == 7 else 32).state_dict()
    path = save({f"backbone.{key}": value for key, value in published.items()}, tmp_path / "other.pth")
    with pytest.raises(UserError) as raised:
        build_network(composed("model=resnet18", f"model.weights={path}").model, 3, 10, 32)
    assert str(raised.value) == f"{path} has the weights of model={model}, which do not fit model=resnet18"


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".th"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty or incomplete"),
        (b"not weights\n", "torch.save did not write it"),
        (b"epoch,loss\n1,2\n", "torch.save did not write it"),
        (b"hello", "torch.save did not write it"),
        (b"<html>", "torch.save did not write it"),
    ],
)
def test_a_file_of_something_else_is_described_in_words(
    network: nn.Module, tmp_path: Path, content: bytes, reason: str, ending: str
) -> None:
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        load(network, str(path))
    assert str(raised.value).startswith(f"model.weights: {path} is not a file of weights ({reason}")


@pytest.mark.parametrize(("name", "classifier"), [("resnet10t", "fc"), ("resnetv2_18", "head.fc")])
def test_weights_of_timm_from_a_file(
    composed: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, classifier: str
) -> None:
    model = composed("model=timm", f"model.name={name}").model
    published = build_network(model, 3, 10, 32).state_dict()
    model.weights = save(published, tmp_path / "timm.safetensors")
    network = build_network(model, 3, 7, 32)
    fresh = {key: value for key, value in network.state_dict().items() if key.startswith(f"{classifier}.")}
    assert_equal(network, published | fresh)
    assert len(fresh[f"{classifier}.weight"]) == 7
    assert ["10 classes, not 7" in message for message in caplog.messages] == [True]


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"conv1.weight": None}, "missing conv1.weight"),
        ({"fc.bias": None}, "missing fc.bias"),
        ({"extra.weight": torch.zeros(1)}, "unexpected extra.weight"),
        (
            {"layer1.0.conv1.weight": torch.zeros(16, 16, 1, 1)},
            "layer1.0.conv1.weight is (16, 16, 1, 1), not (16, 16, 3, 3)",
        ),
        (
            {"bn1.bias": None, "layer1.0.bn1.weight": None, "a": torch.zeros(1), "bn1.weight": torch.zeros(8)},
            "bn1.weight is (8,), not (16,); missing bn1.bias; missing layer1.0.bn1.weight; unexpected a",
        ),
        (
            {"conv1.weight": torch.zeros(16, 3, 7, 7)},
            "conv1.weight is (16, 3, 7, 7), not (16, 3, 3, 3) (the stem differs: model.stem=imagenet "
            "would give it that shape)",
        ),
        (
            {"conv1.weight": torch.zeros(16, 1, 3, 3)},
            "conv1.weight is (16, 1, 3, 3), not (16, 3, 3, 3) (the stem differs: data.channels=1 would give it that "
            "shape)",
        ),
    ],
)
def test_every_key_that_does_not_fit_is_named(
    network: nn.Module, state: StateDict, tmp_path: Path, changes: dict[str, Tensor | None], problems: str
) -> None:
    changed = {key: value for key, value in (state | changes).items() if value is not None}
    path = save(changed, tmp_path / "changed.pth")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(UserError) as raised:
        load(network, path)
    assert str(raised.value) == f"{path} does not fit model resnet8: {problems}"
    assert_equal(network, before)


def test_a_run_of_another_model_is_named(network: nn.Module, state: StateDict, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir()
    save({"fc.extra": torch.zeros(1)}, checkpoint)
    (tmp_path / ".hydra").mkdir()
    for model, line in (
        ("{name: wide}", " has the weights of model=wide, which do not fit model=resnet8"),
        ("{name: resnet8}", " does not fit model resnet8: missing"),
        ("[", " does not fit model resnet8: missing"),
    ):
        (tmp_path / ".hydra" / "config.yaml").write_text(f"model: {model}")
        for given in (tmp_path, checkpoint):
            with pytest.raises(UserError, match=f"^{given}{line}") as raised:
                load(network, str(given))
            assert len(str(raised.value)) < 400


def test_a_missing_file(network: nn.Module, tmp_path: Path) -> None:
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(
            UserError, match=f"^model.weights: there is no file or run {path}; torchvision's weights are IMAGENET1K"
        ):
            load(network, str(path))


def test_weights_of_a_run_whose_checkpoints_are_missing_are_refused(tmp_path: Path) -> None:
    Run(tmp_path).finish({"steps": 80})
    line = f"model.weights: {tmp_path} has finished at step 80, and its checkpoints are missing"
    with pytest.raises(UserError, match=f"^{line}$"):
        read_published(str(tmp_path), "resnet8")


@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights\n", b"PK\x03\x04broken", b"\x80\x02}q\x00"])
def test_a_file_that_is_not_weights(network: nn.Module, tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^model.weights: {path} is not a file of weights") as raised:
        load(network, str(path))
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [1, 3, 10, 1000, 0.5, -30, -1])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_file_cut_short(network: nn.Module, state: StateDict, tmp_path: Path, kind: str, kept: float) -> None:
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 if kept == 0.5 else int(kept)])
    with pytest.raises(UserError) as raised:
        load(network, str(path))
    other = ", or safetensors did not write it" if kind == "safetensors" else ""
    reason = f"it is incomplete or damaged{other}"
    assert str(raised.value) == f"model.weights: {path} is not a file of weights ({reason})"


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.ones(3), {"epoch": 3}, {"state_dict": [1]}, {0: torch.ones(1)}, {"conv1.weight": 1.0}, None],
)
def test_a_file_without_a_state_dict(network: nn.Module, tmp_path: Path, content: object) -> None:
    path = save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=f"^model.weights: {path} holds no dictionary of tensors"):
        load(network, path)


OPEN = f"{open.__module__}.open"  # of the module io until Python 3.12, of _io since
REFUSED = {"TorchScript": "TorchScript", "another class": "decimal.Decimal"}  # where it is not the trap


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pth", ".th", ".pt", ".ckpt", ".pkl", ".bin", ".tar", ""])
@pytest.mark.parametrize("kind", MALICIOUS)
def test_no_code_in_a_file_runs(network: nn.Module, state: StateDict, tmp_path: Path, kind: str, ending: str) -> None:
    path, sprung = tmp_path / f"malicious{ending}", tmp_path / "sprung"
    MALICIOUS[kind](path, {"state_dict": state}, Trap(sprung))
    with warnings.catch_warnings(record=True) as caught, pytest.raises(UserError) as raised:
        load(network, str(path))
    reason = (
        "torch.save did not write it: Unsupported operand 149"
        if kind == "pickle, newest protocol"
        else f"it holds {REFUSED.get(kind, OPEN)}, which is not run: only tensors and plain values are read"
    )
    assert str(raised.value) == f"model.weights: {path} is not a file of weights ({reason})"
    assert caught == []
    assert not sprung.exists()


@pytest.mark.parametrize("kind", ["torch.save", "torch.save before 1.6", "pickle", "pickle, newest protocol"])
def test_the_code_in_the_files_would_run(state: StateDict, tmp_path: Path, kind: str) -> None:
    sprung = tmp_path / "sprung"
    MALICIOUS[kind](tmp_path / "malicious", {"state_dict": state}, Trap(sprung))
    loaded = torch.load(tmp_path / "malicious", weights_only=False) if "torch" in kind else None
    with (tmp_path / "malicious").open("rb") as file:
        (loaded or pickle.load(file))["trap"].close()
    assert sprung.exists()


# --- torchvision's weights by name ------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch.hub's downloads, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    return cache


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StateDict]:
    """The weights of a ResNet-18, served as by torchvision's site: the name of the file ends in its checksum."""
    torch.manual_seed(0)
    weights = torchvision.models.resnet18().state_dict()
    site = tmp_path / "site"
    site.mkdir()
    file = Path(save(weights, site / "resnet18.pth"))
    name = f"resnet18-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    file.rename(site / name)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Quiet(*args, directory=str(site)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(V1.value, "url", f"http://127.0.0.1:{server.server_port}/{name}")
    yield weights
    server.shutdown()
    server.server_close()


@pytest.fixture
def resnet18(composed: Compose) -> nn.Module:
    return build_network(composed("model=resnet18", "model.stem=imagenet").model, 3, 1000, 224)


@pytest.mark.parametrize(("name", "weights"), [("resnet20", "IMAGENET1K_V1"), ("resnet18", "IMAGENET1K_V2")])
def test_weights_that_torchvision_does_not_have(network: nn.Module, name: str, weights: str) -> None:
    with pytest.raises(UserError, match=f"^torchvision has no weights {weights} for {name}$"):
        load(network, weights, name)


@pytest.mark.slow
def test_a_download_is_loaded_and_stays_in_the_cache(resnet18: nn.Module, hub: Path, published: StateDict) -> None:
    load(resnet18, "IMAGENET1K_V1", "resnet18")
    assert_equal(resnet18, published)
    assert [path.name for path in hub.iterdir()] == [Path(V1.url).name]


@pytest.mark.parametrize("is_zip", [True, False])  # four of torchvision's files are of torch before 1.6
def test_weights_in_the_cache_are_not_downloaded(
    resnet18: nn.Module, hub: Path, monkeypatch: pytest.MonkeyPatch, is_zip: bool
) -> None:
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    weights = {key: torch.ones_like(value) for key, value in resnet18.state_dict().items()}
    torch.save(weights, hub / Path(V1.url).name, _use_new_zipfile_serialization=is_zip)
    load(resnet18, "IMAGENET1K_V1", "resnet18")
    assert_equal(resnet18, weights)


@pytest.mark.slow
def test_the_stem_is_that_of_the_weights_unless_it_is_given(composed: Compose, hub: Path, published: StateDict) -> None:
    options = "model=resnet18", "model.weights=IMAGENET1K_V1"
    network = build_network(composed(*options).model, 3, 1000, 32)
    assert network.conv1.kernel_size == (7, 7)
    assert_equal(network, published)
    with pytest.raises(UserError, match=r"conv1.weight is \(64, 3, 7, 7\), not \(64, 3, 3, 3\) .*model.stem=imagenet"):
        build_network(composed(*options, "model.stem=cifar").model, 3, 10, 32)


@pytest.mark.parametrize(
    ("stem", "image_size", "found"),
    [("imagenet", 32, "imagenet"), ("deep", 32, "deep"), ("cifar", 96, "cifar"), ("none", 96, None)],
)
def test_the_weights_of_a_checkpoint_decide_about_the_stem(
    composed: Compose, stem: str, image_size: int, found: str | None
) -> None:
    state = build_network(composed("model=resnet10", f"model.stem={stem}").model, 3, 10, image_size).state_dict()
    assert stem_of(state) == found
    if found:
        model = composed("model=resnet10", "model.weights=gone.pth").model
        assert build_network(model, 3, 10, image_size, state).state_dict().keys() == state.keys()


@pytest.mark.parametrize("recorded", ["auto", "cifar", "halving", None, ["halving"]])
def test_a_stem_that_the_weights_do_not_show_must_be_given(composed: Compose, tmp_path: Path, recorded: object) -> None:
    stem = "halving" if recorded == "halving" else "cifar"
    network = build_network(composed("model=resnet10", f"model.stem={stem}").model, 1, 10, 96)
    content = {"state_dict": network.state_dict(), "reslab": {"config": {"model": {"stem": recorded}}}}
    path = save(content, tmp_path / "a.ckpt")
    options = ("model=resnet10", f"model.weights={path}")
    if recorded == "halving":
        with pytest.raises(UserError, match=f"^model.weights: {path} was trained with model.stem=halving, which "):
            build_network(composed(*options).model, 1, 10, 96)
        options = (*options, "model.stem=halving")
    loaded = build_network(composed(*options).model, 1, 10, 96)
    assert_equal(loaded, network.state_dict())
    assert loaded.conv1.stride == network.conv1.stride


@pytest.mark.parametrize(
    ("trained", "other", "warning"),
    [
        ("resnet8_fast", "model=resnet8", "model.stem=halving; with model.stem=cifar they"),
        ("resnet20", "model=plain20", "model.shortcut=A; with model.shortcut=none they"),
        ("resnet8", "model=resnet8 model.pooling=max model.logit_scale=2.0 model.dropout=0.5",
         "model.pooling=average model.logit_scale=1.0; with model.pooling=max model.logit_scale=2.0 they"),
        ("resnet8", "model=resnet8 model.stochastic_depth=0.1", None),
    ],
)  # fmt: skip
def test_a_network_that_computes_something_else_with_the_weights_is_a_warning(
    composed: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture, trained: str, other: str, warning: str | None
) -> None:
    config = composed(f"model={trained}")
    record = {"config": OmegaConf.to_container(config, resolve=True)}
    tensors = build_network(config.model, 3, 10, 32).state_dict()
    path = save({"state_dict": tensors, "reslab": record}, tmp_path / "a.ckpt")
    build_network(composed(*other.split(), f"model.weights={path}").model, 3, 10, 32)
    expected = [f"{path}: these weights were trained with {warning} compute something else"] if warning else []
    assert caplog.messages == expected


def test_a_network_whose_classifier_is_called_linear_takes_its_own_weights() -> None:
    first, second = (nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 1), linear=nn.Linear(4, 2))) for _ in range(2))
    load_weights(first, {f"module.{name}": tensor for name, tensor in second.state_dict().items()}, "a.pth", "mine")
    assert_equal(first, second.state_dict())


@pytest.mark.parametrize("place", ["run", ".", "run/checkpoints/best.ckpt"])
def test_a_run_stands_for_its_best_weights(
    network: nn.Module, state: StateDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / ".hydra").mkdir()
    (tmp_path / "run" / ".hydra" / "config.yaml").touch()
    wrapped = {f"network.{key}": value for key, value in state.items()}
    save({"state_dict": wrapped}, tmp_path / "run" / "checkpoints" / "best.ckpt")
    load(network, place)
    assert_equal(network, state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9/resnet18-f37072fd.pth", "refused"),  # nothing listens there
        ("{site}/resnet18-f37072fd.pth", "404"),
    ],
)
def test_without_a_network(
    resnet18: nn.Module, hub: Path, published: StateDict, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    url = address.format(site=V1.url.rpartition("/")[0])
    monkeypatch.setattr(V1.value, "url", url)
    with pytest.raises(UserError, match=f"^cannot get {url} .*{reason}.*: put the file into {hub} or give its path"):
        load(resnet18, "IMAGENET1K_V1", "resnet18")


@pytest.mark.slow
def test_a_download_with_another_checksum(
    resnet18: nn.Module, hub: Path, published: StateDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, _, name = V1.url.rpartition("/")
    (tmp_path / "site" / name).rename(tmp_path / "site" / "resnet18-00000000.pth")
    monkeypatch.setattr(V1.value, "url", f"{site}/resnet18-00000000.pth")
    with pytest.raises(UserError, match="invalid hash value"):
        load(resnet18, "IMAGENET1K_V1", "resnet18")
    assert list(hub.iterdir()) == []


def test_no_code_in_the_cache_runs(resnet18: nn.Module, hub: Path, tmp_path: Path) -> None:
    torch.save({"trap": Trap(tmp_path / "sprung")}, hub / Path(V1.url).name)
    with pytest.raises(
        UserError, match=rf"\(it holds {OPEN}, which is not run: only tensors and plain values are read\)"
    ):
        load(resnet18, "IMAGENET1K_V1", "resnet18")
    assert not (tmp_path / "sprung").exists()


# --- CIFAR-10's published weights -------------------------------------------------------------------------------------


@pytest.mark.slow
@needs_shared_data
@pytest.mark.parametrize(
    ("model", "file", "right"), [("resnet20", "resnet20-12fca82f.th", 932), ("resnet56", "resnet56-4bfd9763.th", 943)]
)
def test_published_networks_classify_as_many_images_correctly_as_published(
    composed: Compose, model: str, file: str, right: int
) -> None:
    """The authors' own program counts the same on these 1,017 lossless test images."""
    shared = Path(SHARED_DATA)
    weights = shared / "published_weights" / file
    network = build_network(composed(f"model={model}", f"model.weights={weights}").model, 3, 10, 32).eval()
    subset = np.load(shared / "cifar10-lossless-subset.npz")
    images, labels = torch.from_numpy(subset["test_x"]), torch.from_numpy(subset["test_y"])
    preprocessing = Preprocessing(
        mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], channels=3, fitting=Fitting(32)
    )
    with torch.inference_mode():
        answers = network(preprocessing(images)).argmax(1)
    assert len(labels) == 1017
    assert (answers == labels).sum() == right


def flip_a_bit_of_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"fc.weight": torch.zeros(64, 64)}, path)
    flip_a_bit_of_a_weight(path)
    assert torch.load(path, weights_only=True)["fc.weight"].any()  # torch loads a number that was not saved
    with pytest.raises(UserError) as error:
        read_state_dict(path)
    part = "the checksum of its part resnet/data/0 is wrong"
    assert str(error.value) == f"model.weights: {path} is not a file of weights ({part})"


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_one_line(resnet18: nn.Module, hub: Path, published: StateDict) -> None:
    load(resnet18, "IMAGENET1K_V1", "resnet18")
    flip_a_bit_of_a_weight(hub / Path(V1.url).name)
    with pytest.raises(UserError, match=r"^cannot get .* \(the checksum of its part .* is wrong\): put the file into "):
        load(resnet18, "IMAGENET1K_V1", "resnet18")


# --- a network of the zoo ---------------------------------------------------------------------------------------------


def test_weights_of_the_zoo_go_into_a_network_of_other_classes_and_leave_its_classifier(composed, caplog):
    state = read_published("zoo:digits_resnet8", "resnet8").tensors
    network = build_network(composed("model=resnet8").model, 1, 7, 28)
    before = network.fc.weight.clone()
    load_weights(network, state, "zoo:digits_resnet8", "resnet8")
    assert torch.equal(network.conv1.weight, state["network.conv1.weight"])
    assert torch.equal(network.fc.weight, before)
    assert "its classifier has 10 classes, not 7" in caplog.text


def test_weights_of_the_zoo_for_another_network_or_other_channels_are_one_line(composed):
    state = read_published("zoo:digits_resnet8", "resnet8").tensors
    with pytest.raises(UserError, match="zoo:digits_resnet8 has the weights of model=resnet8, which do not fit model="):
        load_weights(build_network(composed("model=resnet20").model, 1, 10, 8), state, "zoo:digits_resnet8", "resnet20")
    with pytest.raises(UserError, match="channels=1 would give it that shape"):
        load_weights(build_network(composed("model=resnet8").model, 3, 10, 8), state, "zoo:digits_resnet8", "resnet8")

"""The formats: how a network is written as a file of each, and how the runtime of each reads it."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reslab.inference.export.metadata import KEYS, Metadata
from reslab.inference.export.network import ExportedNetwork, captured

Answer = Callable[[Tensor], tuple[Tensor, Tensor]]  # uint8 (N, H, W, C) -> probabilities and logits (N, num_classes)


class Loaded(NamedTuple):
    """A file as its runtime has read it.

    Attributes:
        answer: the network.
        metadata: what the file says of itself.
        runtime: the name and the version of the runtime.
    """

    answer: Answer
    metadata: Metadata
    runtime: str


@contextmanager
def quiet_conversion() -> Iterator[None]:
    """Drop warnings, and lines about the steps of a conversion. Whether it is right is shown by the comparison."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


# ONNX


def write_onnx(network: ExportedNetwork, path: Path, metadata: Metadata) -> None:
    write_model(onnx_model(network), path, metadata)


def write_model(model: Any, path: Path, metadata: Metadata) -> None:
    """Write an onnx.ModelProto with what it says of itself."""
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    path.write_bytes(model.SerializeToString())


def onnx_model(network: ExportedNetwork) -> Any:
    """Return a network as an onnx.ModelProto with the input `images` and the outputs `probabilities` and `logits`."""
    program = torch.onnx.export(
        captured(network),
        input_names=["images"],
        output_names=["probabilities", "logits"],
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model: Any = program.model_proto
    model.producer_name = "ResLab"
    graph = model.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param  # torch has a name of its own for it, e.g. s34
    for value in (*graph.input, *graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param == batch:
                side.dim_param = "batch"
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # torch's notes on its own code, more than a small network's weights
    return model


def load_onnx(path: Path) -> Loaded:
    import onnxruntime

    session = onnx_session(path)

    def answer(images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities, logits = session.run(["probabilities", "logits"], {"images": images.numpy()})
        return torch.from_numpy(probabilities), torch.from_numpy(logits)

    said = session.get_modelmeta().custom_metadata_map
    return Loaded(answer, {name: said[name] for name in KEYS}, f"ONNX Runtime {onnxruntime.__version__}")


def onnx_session(model: Path | bytes) -> Any:
    """Return a session of ONNX Runtime on the CPU, with the threads of torch: it would take all processors.

    Args:
        model: a file, or its content.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


# torch


def write_torch_export(network: ExportedNetwork, path: Path, metadata: Metadata) -> None:
    content = io.BytesIO()  # torch would warn of another ending than .pt2
    torch.export.save(captured(network), content, extra_files=dict(metadata))
    path.write_bytes(content.getvalue())


def load_torch_export(path: Path) -> Loaded:
    said: dict[str, Any] = dict.fromkeys(KEYS, "")
    with path.open("rb") as file:
        answer: Any = torch.export.load(file, extra_files=said).module()
    return Loaded(answer, said, f"torch {torch.__version__}")


def write_torchscript(network: ExportedNetwork, path: Path, metadata: Metadata) -> None:
    example = torch.zeros(2, *network.image_shape, dtype=torch.uint8)
    script = torch.jit.trace(network, (example,), check_trace=False)
    content = io.BytesIO()
    torch.jit.save(script, content, _extra_files=dict(metadata))
    path.write_bytes(content.getvalue())


def load_torchscript(path: Path) -> Loaded:
    said: dict[str, Any] = dict.fromkeys(KEYS, "")
    with path.open("rb") as file:
        answer: Any = torch.jit.load(file, _extra_files=said)
    return Loaded(answer, {name: text.decode() for name, text in said.items()}, f"torch {torch.__version__}")


Write = Callable[[ExportedNetwork, Path, Metadata], None]


class Format(NamedTuple):
    write: Write
    load: Callable[[Path], Loaded]


FORMATS = {
    "onnx": Format(write_onnx, load_onnx),
    "torch_export": Format(write_torch_export, load_torch_export),
    "torchscript": Format(write_torchscript, load_torchscript),
}

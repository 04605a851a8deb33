"""int8: a network whose convolutions and linear layers compute with 8 bits, without any training.

Post-training static quantisation by ONNX Runtime, as pairs of QuantizeLinear and DequantizeLinear (QDQ): activations as
uint8 with the range that they have on some training images, weights as int8 with one scale per output channel. The sums
of the residual branches stay in float32. Weights have 7 bits: a processor without VNNI adds two products in 16 bits,
which 8 bits would overflow. A ResNet-20 on 1,017 images of CIFAR-10 (932 right in float32) has 933 right with 7 bits,
and 922 with 8 bits, on an AMD EPYC with AVX2.
"""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from reslab.files import output_errors
from reslab.inference.export.formats import onnx_model, onnx_session, write_model
from reslab.inference.export.latency import medians
from reslab.inference.export.metadata import Metadata
from reslab.inference.export.network import ExportedNetwork

QUANTIZED = ["Conv", "Gemm", "MatMul"]
SECONDS = 10  # in which the speed is measured


class Quantizer:
    """Writes a quantised network as an ONNX file.

    Args:
        calibration: the images that the ranges of the activations are measured on, batches of uint8 (N, H, W, C).

    Attributes:
        float32: the ONNX file of the last network before it was quantised.
    """

    float32: bytes

    def __init__(self, calibration: Sequence[Tensor]) -> None:
        self.calibration = calibration

    def write(self, network: ExportedNetwork, path: Path, metadata: Metadata) -> None:
        """Write a network, as the other functions of formats.py do."""
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        model = onnx_model(network)
        self.float32 = model.SerializeToString()
        with output_errors(tempfile.gettempdir(), "TMPDIR"), tempfile.TemporaryDirectory() as folder:
            names = ("float32.onnx", "prepared.onnx", "quantized.onnx")
            float32, prepared, quantized = (str(Path(folder, name)) for name in names)
            Path(float32).write_bytes(self.float32)
            quant_pre_process(float32, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                quantized,
                calibration_reader(self.calibration),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=True,
                op_types_to_quantize=QUANTIZED,
            )
            model = onnx.load(quantized)
        model.producer_name = "ResLab"
        del model.metadata_props[:]
        write_model(model, path, metadata)

    def speeds(self, path: Path, images: Tensor) -> dict[str, dict[int, float]]:
        """Return the median milliseconds of a batch by its size, for "float32" and for the "int8" file.

        Args:
            path: the file.
            images: of the largest batch, uint8 (N, H, W, C).
        """
        sessions = {"float32": onnx_session(self.float32), "int8": onnx_session(path)}
        calls = {
            (name, size): partial(session.run, ["probabilities"], {"images": images[:size].numpy()})
            for name, session in sessions.items()
            for size in dict.fromkeys((1, len(images)))
        }
        found = medians(calls, SECONDS)
        return {name: {size: found[name, size] for other, size in found if other == name} for name in sessions}


def calibration_reader(batches: Sequence[Tensor]) -> Any:
    """Return batches as ONNX Runtime asks for them."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch.numpy()}

    return Reader()

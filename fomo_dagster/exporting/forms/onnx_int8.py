"""The form of ONNX with weights of eight bits, with what it costs in score."""

from __future__ import annotations

from pathlib import Path

from fomo_dagster.exporting.form import Export, Form, Written
from fomo_dagster.exporting.onnx_packages import EXTRA, PACKAGES

# Convolutions stay: the only one of a vision transformer, its first layer, has few weights, and
# onnxruntime computes it more slowly in integers.
_OPERATORS = ("MatMul", "Gemm", "Gather")


class IntegerOnnxForm(Form):
    """Both towers quantised dynamically by onnxruntime: weights per channel, activations as they
    come. Nothing is calibrated, so no sample changes the files."""

    name = "onnx_int8"
    description = "both towers in ONNX, int8 weights, with the loss of score"
    packages = PACKAGES
    extra = EXTRA

    def write(self, export: Export, folder: Path) -> Written:
        from fomo_dagster.exporting.onnx_converted import write_converted

        return write_converted(export, folder, self.name, _quantised)


def _quantised(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from fomo_dagster.exporting.onnx_converted import is_large

    quantize_dynamic(
        source, target, per_channel=True, weight_type=QuantType.QInt8,
        op_types_to_quantize=list(_OPERATORS), use_external_data_format=is_large(source),
    )  # fmt: skip

"""The form of ONNX in half precision: half of the bytes, with what it costs in score."""

from __future__ import annotations

from pathlib import Path

from fomo_dagster.exporting.form import Export, Form, Written
from fomo_dagster.exporting.onnx_packages import EXTRA, PACKAGES

# They lose most in half precision, and onnxruntime 1.32 dies of a segmentation fault when it fuses
# them in graphs of half precision.
_KEPT = ("LayerNormalization",)


class HalfOnnxForm(Form):
    """Both towers with weights and operations in fp16; inputs, features and layer norms stay
    fp32."""

    name = "onnx_fp16"
    description = "both towers in ONNX, fp16, with the loss of score"
    packages = PACKAGES
    extra = EXTRA

    def write(self, export: Export, folder: Path) -> Written:
        from fomo_dagster.exporting.onnx_converted import write_converted

        return write_converted(export, folder, self.name, _to_half)


def _to_half(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    from fomo_dagster.exporting.onnx_converted import save

    kept = [*DEFAULT_OP_BLOCK_LIST, *_KEPT]
    half = convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=kept)
    save(half, target)

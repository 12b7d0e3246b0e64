"""The packages that ONNX files need beside this project's dependencies."""

from __future__ import annotations

from types import MappingProxyType

EXTRA = "onnx"
PACKAGES = MappingProxyType(
    {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"}
)

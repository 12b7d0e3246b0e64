"""Sessions of onnxruntime over ONNX files, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fomo_dagster.errors import InputError


def session_of(path: Path, threads: int, *, spinning: bool = True) -> Any:
    """What runs the file at `path` on the CPU, with `threads` threads. spinning: whether these keep
    a core busy while they wait, which is faster where nothing else wants it.

    Raises `InputError` for a file that this onnxruntime cannot load.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes are private
        raise InputError(
            f"onnxruntime {onnxruntime.__version__} cannot load {path.name}: "
            f"{str(error).splitlines()[0]}"
        ) from error

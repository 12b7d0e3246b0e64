"""Towers in ONNX of lower precision, made of those in single precision, and what they lose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fomo_dagster.errors import InputError
from fomo_dagster.exporting.form import Export, Written
from fomo_dagster.exporting.onnx_files import (
    describe,
    errors_of,
    loading,
    onnx_model,
    quiet,
)
from fomo_dagster.exporting.onnx_folder import IMAGE_ENCODER, TEXT_ENCODER
from fomo_dagster.exporting.score_loss import score_loss

_LARGE_BYTES = 2**31 - 2**20  # above, protocol buffers need the weights in a file of their own


def write_converted(
    export: Export, folder: Path, name: str, convert: Callable[[Path, Path], None]
) -> Written:
    """Convert both towers (source, target) into `folder / name`, and measure what that costs.

    Raises `InputError` if onnxruntime cannot convert or load them.
    """
    source, _ = export.onnx
    place = folder / name
    place.mkdir()
    for file in (IMAGE_ENCODER, TEXT_ENCODER):
        try:
            with quiet():
                convert(source / file, place / file)
        except Exception as error:  # whatever its passes make of an operator they do not expect
            raise InputError(
                f"onnxruntime cannot make {name} of {file}: {type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else 'no reason given'}. The form onnx "
                "works"
            ) from error
    model, texts = export.subject.model, export.samples.texts
    return Written(
        place=name,
        loading=loading(name),
        errors=errors_of(model, place, export.samples),
        loss=score_loss(export.subject, onnx_model(place, model)),
        notes=describe(model, texts, place),
    )


def is_large(path: Path) -> bool:
    """Whether a model's weights are more than one file of ONNX can hold."""
    beside = path.with_name(f"{path.name}.data")
    return sum(one.stat().st_size for one in (path, beside) if one.is_file()) > _LARGE_BYTES


def save(model: Any, path: Path) -> None:
    """Write a model of onnx's, its weights in a file beside it if they are too large."""
    import onnx

    large = model.ByteSize() > _LARGE_BYTES
    onnx.save(
        model, path, save_as_external_data=large, location=f"{path.name}.data" if large else None
    )

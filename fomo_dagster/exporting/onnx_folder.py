"""What is in a folder of the forms of ONNX, for whoever writes it and whoever reads it. No PyTorch.

`image_encoder.onnx` takes images, (N, 3, size, size) fp32, and `text_encoder.onnx` rows of tokens,
(N, context length) int64; both give features of length 1. `tokenizer.json` makes tokens of texts,
and `model.json` says the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fomo_dagster.data.pixels import Preparation
from fomo_dagster.errors import DataError

IMAGE_ENCODER, TEXT_ENCODER = "image_encoder.onnx", "text_encoder.onnx"
DESCRIPTION, TOKENISER = "model.json", "tokenizer.json"


@dataclass(frozen=True)
class Description:
    """What `model.json` says.

    tokeniser: the file of the tokeniser; None where `tokenizers` has no such one. scale: the factor
    of similarities; bias: what is added to them before a sigmoid, of models that have it.
    """

    images: Preparation
    context_length: int
    tokeniser: str | None
    scale: float
    bias: float | None

    def as_data(self) -> dict[str, Any]:
        """As the file has it."""
        images = self.images
        return {
            "images": {
                "size": images.size,
                "resize_mode": images.resize_mode,
                "interpolation": images.interpolation,
                "mean": list(images.mean),
                "std": list(images.std),
            },
            "texts": {"context_length": self.context_length, "tokeniser": self.tokeniser},
            "scale": self.scale,
            "bias": self.bias,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Description:
        """The inverse of `as_data`. Raises `KeyError`, `TypeError` or `ValueError` for others."""
        images, texts, bias = data["images"], data["texts"], data["bias"]
        tokeniser = texts["tokeniser"]
        if tokeniser not in (None, TOKENISER):
            raise ValueError(f"its tokeniser is {tokeniser!r}, and not {TOKENISER}")
        return cls(
            images=Preparation(
                size=int(images["size"]),
                mean=_three(images["mean"]),
                std=_three(images["std"]),
                resize_mode=images["resize_mode"],
                interpolation=images["interpolation"],
            ),
            context_length=int(texts["context_length"]),
            tokeniser=tokeniser,
            scale=float(data["scale"]),
            bias=None if bias is None else float(bias),
        )


def read_description(folder: Path) -> Description:
    """What the folder's `model.json` says. Raises `DataError` where it is not what was written."""
    path = folder / DESCRIPTION
    try:
        return Description.from_data(json.loads(path.read_bytes()))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): export the model again"
        ) from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path} does not describe a model ({type(error).__name__}: {error}): export it again"
        ) from error


def _three(numbers: Any) -> tuple[float, float, float]:
    red, green, blue = numbers
    return float(red), float(green), float(blue)

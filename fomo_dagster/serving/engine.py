"""What encodes images and texts for a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fomo_dagster.exporting.onnx_folder import Description
from fomo_dagster.serving.batcher import Rows

IMAGES, TEXTS = "images", "texts"  # the kinds of rows
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tokens:
    """ids: (N, context length) int64. cut: the places of texts that were too long and were cut;
    None where the tokeniser does not tell."""

    ids: npt.NDArray[np.int64]
    cut: tuple[int, ...] | None


class Engine(Protocol):
    """A model that is loaded. `tokens` may be called from any thread, `encode` from one at a
    time."""

    @property
    def description(self) -> Description:
        """What its images and texts must look like, and its factor of similarities."""
        ...

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """The tokens of texts, as the evaluation had them."""
        ...

    def encode(self, kind: str, rows: Rows) -> Floats:
        """Images, (N, 3, size, size) float32, or tokens, (N, L) int64, to features of length 1,
        (N, D) float32."""
        ...

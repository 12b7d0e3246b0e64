"""The engine over a folder of ONNX files, by onnxruntime on the CPU. No PyTorch."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path

import ftfy
import numpy as np
from tokenizers import Tokenizer

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.exporting.onnx_folder import IMAGE_ENCODER, TEXT_ENCODER, read_description
from fomo_dagster.exporting.onnx_sessions import session_of
from fomo_dagster.serving.batcher import Rows
from fomo_dagster.serving.engine import IMAGES, TEXTS, Floats, Tokens


class OnnxEngine:
    """Both towers of a folder. Raises `InputError` or `DataError` for one that cannot be served."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """threads: of each tower; by default one for each core that this process may use."""
        self.description = read_description(folder)
        if self.description.tokeniser is None:
            raise InputError(
                f"{folder} has no tokenizer.json, since the model's tokeniser cannot be written as "
                "one: serve it with --engine torch"
            )
        self._tokeniser = _tokeniser_of(folder / self.description.tokeniser)
        threads = threads or len(os.sched_getaffinity(0))
        # The cores are wanted for decoding between batches.
        self._sessions = {
            kind: session_of(folder / file, threads, spinning=False)
            for kind, file in ((IMAGES, IMAGE_ENCODER), (TEXTS, TEXT_ENCODER))
        }
        self._inputs = {kind: one.get_inputs()[0].name for kind, one in self._sessions.items()}

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """As of `Engine`. Texts are mended first, as OpenCLIP does before it splits them."""
        encoded = self._tokeniser.encode_batch([mended(text) for text in texts])
        cut = tuple(place for place, one in enumerate(encoded) if one.overflowing)
        return Tokens(np.array([one.ids for one in encoded], np.int64), cut)

    def encode(self, kind: str, rows: Rows) -> Floats:
        """As of `Engine`."""
        (found,) = self._sessions[kind].run(None, {self._inputs[kind]: rows})
        features: Floats = found
        return features


def mended(text: str) -> str:
    """What OpenCLIP's `basic_clean` makes of a text: broken encodings and HTML's entities, which
    no `tokenizer.json` can mend."""
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def _tokeniser_of(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # it raises that very class
        raise DataError(f"{path} is no tokeniser ({error}): export the model again") from error

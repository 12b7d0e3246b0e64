"""What CLIP's tokeniser sees of a text, without its vocabulary and without PyTorch.

OpenCLIP's `SimpleTokenizer` cleans a text, lowers it, splits it into words and writes each word in
tokens that lead back to it. Two texts therefore have the same tokens where they have the same
words; which of them is cut, the number of bytes tells as far as it is needed, since a token stands
for at least one.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ftfy
import regex

CONTEXT_LENGTH = 77  # OpenCLIP's, where an architecture says nothing
AROUND = 2  # tokens that stand before and after a text's
WORD = regex.compile(
    r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


def words_of(text: str) -> tuple[str, ...]:
    """The words that `SimpleTokenizer` makes tokens of."""
    cleaned = html.unescape(html.unescape(ftfy.fix_text(text)))
    return tuple(WORD.findall(" ".join(cleaned.split()).lower()))


def context_length(architecture: str | Mapping[str, Any]) -> int | None:
    """How many tokens the architecture takes; None where its tokeniser is not CLIP's."""
    text: Any = (_named(architecture) if isinstance(architecture, str) else architecture).get(
        "text_cfg", {}
    )
    siglip = isinstance(architecture, str) and "siglip" in architecture.lower()
    if siglip or text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs"):
        return None
    return int(text.get("context_length", CONTEXT_LENGTH))


@cache
def _named(architecture: str) -> Mapping[str, Any]:
    """OpenCLIP's configuration of that name, without loading OpenCLIP."""
    spec = find_spec("open_clip")
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place) / "model_configs" / f"{architecture}.json"
        if path.is_file():
            configuration: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return configuration
    return {"text_cfg": {"hf_tokenizer_name": "unknown"}}

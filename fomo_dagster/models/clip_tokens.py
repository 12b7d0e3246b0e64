"""What CLIP's tokeniser makes of a text, without PyTorch, for questions before anything runs.

Like OpenCLIP's `SimpleTokenizer`, over its own vocabulary (Radford et al. 2021, arXiv 2103.00020):
a text is cleaned, lowered and split into words, and the bytes of a word are joined pair by pair,
the most frequent pair first (Sennrich et al. 2016, arXiv 1508.07909). Models use OpenCLIP's own
tokeniser.
"""

from __future__ import annotations

import gzip
import html
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import ftfy
import regex

CONTEXT_LENGTH = 77  # OpenCLIP's, where an architecture says nothing
AROUND = 2  # tokens that stand before and after a text's
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
MERGES = slice(1, 49152 - 256 - 2 + 1)  # its lines that count
ENDS = "</w>"
SPECIAL = ("<start_of_text>", "<end_of_text>")
WORD = regex.compile(
    "|".join(SPECIAL) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text. Two texts have the same tokens exactly if they have the same words."""
    cleaned = html.unescape(html.unescape(ftfy.fix_text(text)))
    return tuple(WORD.findall(" ".join(cleaned.split()).lower()))


def tokens_of(text: str) -> tuple[str, ...]:
    """The tokens of a text, as the vocabulary writes them, without the start and end tokens."""
    return tuple(token for word in words_of(text) for token in _tokens(word))


def context_length(architecture: str | Mapping[str, Any]) -> int | None:
    """How many tokens the architecture takes; None if its tokeniser is not CLIP's."""
    configuration = _named(architecture) if isinstance(architecture, str) else architecture
    text: Any = configuration.get("text_cfg", {})
    siglip = isinstance(architecture, str) and "siglip" in architecture.lower()
    if siglip or text.get("hf_tokenizer_name") or text.get("tokenizer_kwargs"):
        return None
    return int(text.get("context_length", CONTEXT_LENGTH))


@lru_cache(maxsize=1 << 16)
def _tokens(word: str) -> tuple[str, ...]:
    if word in SPECIAL:
        return (word,)
    letters, ranks = _letters(), _ranks()
    parts = [letters[byte] for byte in word.encode()]
    parts[-1] += ENDS
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        first = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if first not in ranks:
            break
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == first:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return tuple(parts)


@cache
def _letters() -> tuple[str, ...]:
    """Byte → the letter that stands for it in the vocabulary: itself, where it is printed."""
    printed = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return tuple(chr(byte if byte in printed else next(others)) for byte in range(256))


@cache
def _ranks() -> Mapping[tuple[str, ...], int]:
    """A pair of tokens → its place in the order in which pairs are joined."""
    lines = gzip.decompress((_openclip() / VOCABULARY).read_bytes()).decode().split("\n")
    return {tuple(line.split()): rank for rank, line in enumerate(lines[MERGES])}


@cache
def _named(architecture: str) -> Mapping[str, Any]:
    """OpenCLIP's configuration of that name, without loading OpenCLIP."""
    path = _openclip() / "model_configs" / f"{architecture}.json"
    if not path.is_file():
        return {"text_cfg": {"hf_tokenizer_name": "unknown"}}
    configuration: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return configuration


def _openclip() -> Path:
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent

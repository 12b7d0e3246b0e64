"""Texts to tokens as an architecture needs them. Longer texts are truncated.

Hugging Face tokenisers of OpenCLIP's own architectures come from its hub. Those of a folder of
weights come from its files alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIPTextCfg
from torch import Tensor

from fomo_dagster.errors import DataError, InputError, nearest

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_OWN_SETTINGS = ("clean", "reduction_mask", "additional_special_tokens")
_HUGGING_FACE_SETTINGS = ("clean", "strip_sep_token", "language")


def tokeniser_of(architecture: str | Mapping[str, Any], folder: Path | None) -> Any:
    """A picklable callable: texts → (N, context length), int64.

    folder: where the files of a Hugging Face tokeniser lie. Raises `DataError` for one that cannot
    be had, `InputError` if a configuration names one and there is no folder, or has settings
    that OpenCLIP's tokenisers do not.
    """
    if isinstance(architecture, str):
        return _named(architecture)
    text = architecture["text_cfg"]
    length = text.get("context_length", CLIPTextCfg.context_length)
    settings, name = text.get("tokenizer_kwargs") or {}, text.get("hf_tokenizer_name")
    known = _HUGGING_FACE_SETTINGS if name else _OWN_SETTINGS
    for key in settings:  # others would reach transformers, where some run code
        if key not in known:
            raise InputError(f"text_cfg.tokenizer_kwargs has {key!r}: {nearest(key, known)}")
    if not name:
        return _simple(length, json.dumps(settings, sort_keys=True))
    if folder is None:
        raise InputError(
            f"hf_tokenizer_name is {name!r}, a Hugging Face tokeniser, which only OpenCLIP's own "
            "architectures and folders of weights can have: give the architecture's name, or the "
            "folder"
        )
    if not any(any(folder.glob(pattern)) for pattern in _VOCABULARIES):
        raise DataError(
            f"{folder} has no vocabulary of the tokeniser {name!r} (one of "
            f"{', '.join(_VOCABULARIES)}): save it there, as its `save_pretrained` does"
        )
    mode, changed = text.get("tokenizer_mode"), max(p.stat().st_mtime_ns for p in folder.iterdir())
    return _from_files(str(folder), changed, length, mode, json.dumps(settings, sort_keys=True))


def blank_tokeniser_of(architecture: str | Mapping[str, Any]) -> Callable[[list[str]], Tensor]:
    """Texts → (N, context length) zeros: no vocabulary is needed to know how many tokens are."""
    named = isinstance(architecture, str)
    told: Any = open_clip.get_model_config(architecture) if named else architecture
    length = told["text_cfg"].get("context_length", CLIPTextCfg.context_length)
    return lambda texts: torch.zeros(len(texts), length, dtype=torch.int64)


def tokens_of(tokeniser: Any) -> int:
    """How many rows an embedding needs for the tokens of texts, and for the special ones."""
    if isinstance(tokeniser, open_clip.SimpleTokenizer):
        return int(tokeniser.vocab_size)
    inner = tokeniser.tokenizer
    unused = set(inner.all_special_ids)  # some have a hundred that no text comes to
    highest = max((i for i in inner.get_vocab().values() if i not in unused), default=0)
    return max(highest, int(tokeniser([""]).max())) + 1


# Reading a vocabulary takes longer than building a small model; tokenisers keep no state.
@lru_cache(maxsize=8)
def _named(architecture: str) -> Any:
    try:
        return open_clip.get_tokenizer(architecture)
    except Exception as error:  # some architectures fetch their tokeniser from a hub
        raise DataError(f"the tokeniser of {architecture} cannot be loaded: {error}") from error


@lru_cache(maxsize=8)
def _simple(context_length: int, settings: str) -> Any:
    return open_clip.SimpleTokenizer(context_length=context_length, **json.loads(settings))


@lru_cache(maxsize=8)
def _from_files(
    folder: str, changed: int, context_length: int, mode: str | None, settings: str
) -> Any:
    try:
        tokeniser = open_clip.tokenizer.HFTokenizer(
            folder, context_length, tokenizer_mode=mode, local_files_only=True,
            **json.loads(settings),
        )  # fmt: skip
        tokeniser([""])
    except Exception as error:  # whatever the library makes of damaged or incomplete files
        raise DataError(f"the tokeniser in {folder} cannot be used: {error}") from error
    return tokeniser

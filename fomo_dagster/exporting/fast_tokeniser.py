"""OpenCLIP's tokenisers as those of Hugging Face's `tokenizers`: one JSON file, any language.

OpenCLIP first mends texts (ftfy) and decodes HTML's entities. No `tokenizers` file can, so texts
with broken encodings or `&amp;` have other tokens.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import open_clip
from open_clip.tokenizer import basic_clean
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import RobertaProcessing

from fomo_dagster.errors import DataError, InputError

START, END = "<|startoftext|>", "<|endoftext|>"  # as transformers' CLIPTokenizer calls them
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_CLEANED_BY = {
    "_clean_lower": "lower", "_clean_whitespace": "whitespace", "_clean_canonicalize": "canonical"
}  # fmt: skip
_ONE_SPACE = normalizers.Replace(Regex(r"\s+"), " ")
_NORMALIZERS = {
    "lower": [_ONE_SPACE, normalizers.Strip(), normalizers.Lowercase()],
    "whitespace": [_ONE_SPACE, normalizers.Strip()],
    "canonical": [
        normalizers.Replace(Regex("[" + "".join(rf"\{c}" for c in string.punctuation) + "]"), ""),
        normalizers.Lowercase(), _ONE_SPACE, normalizers.Strip(),
    ],
}  # fmt: skip


def fast_tokeniser(tokenize: Any, texts: Sequence[str]) -> Tokenizer:
    """A tokeniser that gives what `tokenize`, one of OpenCLIP's, gives: ids of its context length,
    cut and padded alike. It is held against it on `texts`.

    Raises `InputError` for a tokeniser that does what `tokenizers` cannot, `DataError` if tokens
    differ nonetheless.
    """
    clean = _CLEANED_BY.get(getattr(tokenize.clean_fn, "__name__", ""))
    if clean is None:
        raise InputError(f"its tokeniser cleans texts by {tokenize.clean_fn!r}")
    simple = isinstance(tokenize, open_clip.SimpleTokenizer)
    made = _of_simple(tokenize) if simple else _of_hugging_face(tokenize)
    own = [] if made.normalizer is None else [made.normalizer]
    made.normalizer = normalizers.Sequence([*_NORMALIZERS[clean], *own])
    made.enable_truncation(tokenize.context_length)
    _check(made, tokenize, texts)
    return made


def mended(texts: Sequence[str]) -> list[str]:
    """Those of the texts that OpenCLIP changes before anything that `tokenizers` can do."""
    return [text for text in texts if basic_clean(text) != text.strip()]


def _of_simple(tokenize: open_clip.SimpleTokenizer) -> Tokenizer:
    if tokenize.reduction_fn is not None:
        raise InputError("its tokeniser shortens texts by a reduction_mask")
    if len(tokenize.all_special_ids) > 2:
        raise InputError("its tokeniser has additional_special_tokens")
    start, end = tokenize.all_special_ids
    names = {start: START, end: END}
    vocabulary = {names.get(place, token): place for token, place in tokenize.encoder.items()}
    made = Tokenizer(
        models.BPE(
            vocabulary, list(tokenize.bpe_ranks), continuing_subword_prefix="",
            end_of_word_suffix="</w>", fuse_unk=False, unk_token=END,
        )
    )  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, normalized=False) for token in (START, END)])
    made.post_processor = RobertaProcessing(
        (END, end), (START, start), trim_offsets=False, add_prefix_space=False
    )
    made.enable_padding(pad_id=0, pad_token="!", length=tokenize.context_length)
    return made


def _of_hugging_face(tokenize: Any) -> Tokenizer:
    inner = tokenize.tokenizer
    for setting in ("tokenizer_mode", "strip_sep_token"):
        if getattr(tokenize, setting):
            raise InputError(f"its tokeniser has the setting {setting}")
    backend = getattr(inner, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer) or inner.padding_side != "right":
        raise InputError(
            f"its tokeniser, {type(inner).__name__}, is none of Hugging Face's `tokenizers`, or "
            "pads on the left"
        )
    made = Tokenizer.from_str(backend.to_str())
    made.enable_padding(
        pad_id=inner.pad_token_id, pad_token=inner.pad_token, length=tokenize.context_length
    )
    return made


def _check(made: Tokenizer, tokenize: Any, texts: Sequence[str]) -> None:
    as_cleaned = [basic_clean(text) for text in texts]
    expected = tokenize(as_cleaned).tolist()
    for text, ids, encoding in zip(
        as_cleaned, expected, made.encode_batch(as_cleaned), strict=True
    ):
        if encoding.ids != ids:
            raise DataError(
                f"a tokenizer.json of the model's tokeniser has other tokens for {text!r}: "
                f"{encoding.ids} instead of {ids}"
            )

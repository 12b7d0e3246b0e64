"""Canonical hashing: equal values have equal digests on every machine and in every process."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGEST_LENGTH = 32  # hexadecimal digits, 128 bits
_PLAIN = frozenset({str, int, bool, type(None)})  # what most values are
_SEQUENCES = (list, tuple)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical(value: Any) -> Any:
    """`value` as plain JSON data: mappings with text keys, sequences, text, numbers, bool, None.

    Raises `TypeError` or `ValueError` for what has no one deterministic form (sets, objects, paths,
    functions, NaN): such a value must be made explicit before it can be part of an identity.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} cannot be part of an identity: it is not finite")
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, _SEQUENCES):
        return [one if type(one) in _PLAIN else canonical(one) for one in value]
    if type(value) is dict or isinstance(value, Mapping):  # of which the second takes its time
        for key in value:
            if not isinstance(key, str):
                raise TypeError(
                    f"key {key!r} of an identity must be text, not {type(key).__name__}"
                )
        return {
            key: one if type(one := value[key]) in _PLAIN else canonical(one)
            for key in sorted(value)
        }
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be part of an identity: it has no "
        "canonical form; give plain data"
    )


def digest_of(value: Any) -> str:
    """Digest of any plain data (see `canonical`): 32 hexadecimal digits of SHA-256."""
    text = _ENCODER.encode(canonical(value))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]


def digest_of_bytes(data: bytes) -> str:
    """Digest of bytes as they stand."""
    return hashlib.sha256(data).hexdigest()[:DIGEST_LENGTH]


def digest_of_file(path: Path) -> str:
    """Digest of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH]

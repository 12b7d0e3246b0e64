"""How text is read and compared: names that look the same are the same.

`é` can be one character or two (e and an accent, as a Mac writes file names). Text is brought into
the composed form, NFC, before it is compared. Files are still opened by their own name.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

UNSEEN = ("Cf", "Cc")  # categories of characters that nobody sees: joiners, marks of direction


def composed(text: str) -> str:
    """The text in its one composed form (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def class_name(text: str) -> str:
    """A class's name in its one form: composed, and without surrounding white space."""
    return composed(text).strip()


def visible(text: str) -> str:
    """What a person sees of a text: without zero-width characters, with any white space as one
    space."""
    shown = (c for c in composed(text) if c.isspace() or unicodedata.category(c) not in UNSEEN)
    return " ".join("".join(shown).split())


def is_text(text: str) -> bool:
    """Whether a text has no lone surrogate (half a character), which no text file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(text: str) -> str:
    """`text` with lone surrogates, which no table holds, written out (`\\udce9`)."""
    return text.encode(errors="backslashreplace").decode()


def read_json(text: str | bytes) -> Any:
    """A JSON value. Raises `ValueError` for invalid JSON, for a key given twice and for deep
    nesting."""
    try:
        return json.loads(text, object_pairs_hook=_with_keys_once)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is given twice")
    return row

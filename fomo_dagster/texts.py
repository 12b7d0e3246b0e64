"""Text as it is read and compared: names that read alike are one, and half a character is none.

`é` can be one character or two (e and an accent, as a Mac writes file names). Whatever is compared
is brought into the composed form, NFC, first; files are still opened by the name that they have.
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
    """The one form of a class's name: composed, and without white space around it."""
    return composed(text).strip()


def visible(text: str) -> str:
    """What a person sees of it: without characters of no width, any blanks as one space."""
    shown = (c for c in composed(text) if c.isspace() or unicodedata.category(c) not in UNSEEN)
    return " ".join("".join(shown).split())


def is_text(text: str) -> bool:
    """Whether it has no lone surrogate: half a character, which no file of text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(text: str) -> str:
    """`text` with lone surrogates, which no table holds, written out (`\\udce9`)."""
    return text.encode(errors="backslashreplace").decode()


def read_json(text: str | bytes) -> Any:
    """A JSON value. Raises `ValueError` for what is none, has a key twice or is nested deeply."""
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

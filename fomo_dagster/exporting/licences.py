"""What the declared licences of the data that weights were trained on ask of who passes them on.

Licences are declared as text. This reads the words that matter for passing weights on; it is no
legal advice, and does not decide whether weights are a work derived from their data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from fomo_dagster.exporting.subject import DataUse

NOT_DECLARED = "not declared"

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "forbids training on it": r"(?i:not for training|no training)",
        "forbids passing on what is derived from it": r"\bND\b|(?i:no[- ]?deriv)",
        "forbids commercial use": r"\bNC\b|(?i:non-?commercial)",
        "allows research alone": r"(?i:\bresearch|\bacademic)",
        "asks for the same licence of what is derived from it": r"\bSA\b|GPL|(?i:share-?alike)",
    }
)
_UNKNOWN = re.compile(r"\s*|not stated.*|unknown.*|various.*", re.IGNORECASE | re.DOTALL)
_IS_UNKNOWN = "does not say what is allowed"


def restrictions(licence: str) -> tuple[str, ...]:
    """What the licence says against passing weights on, a verb phrase each; empty if nothing."""
    if _UNKNOWN.fullmatch(licence):
        return (_IS_UNKNOWN,)
    return tuple(said for said, words in _WORDS.items() if re.search(words, licence))


def said_of(data: Iterable[DataUse]) -> list[str]:
    """A sentence for each restriction, with the datasets whose licence has it."""
    found: dict[str, dict[str, str]] = {}
    for one in data:
        for restriction in restrictions(one.licence):
            found.setdefault(restriction, {})[one.dataset] = one.licence or NOT_DECLARED
    order = [*_WORDS, _IS_UNKNOWN]
    return [
        "the licence of "
        + ", ".join(f"{name} ({licence})" for name, licence in sorted(found[restriction].items()))
        + f" {restriction}"
        for restriction in sorted(found, key=order.index)
    ]

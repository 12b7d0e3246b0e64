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

_NO = (
    r"\b(?:not?|never|without|cannot|except|excluding|excludes|forbids?|prohibits?) "
    r"(?:(?:be|used?|for|any|in|of|to|the|a|allow\w*|permit\w*|intended|licen[cs]ed|available|"
    r"personal|research|academic|or|model|ai|ml) )*"
)
_NOT_ALLOWED = (
    r"(?: \w+){0,2}?(?: is| are)?(?: strictly)? (?:not|no|prohibited|forbidden|excluded|disallowed|"
    r"requires?)\b"
)
_COMMERCIAL_TOO = (
    r"\b(?:research|academic|education\w*|personal|private|non ?commercial)(?: (?!only|alone)\w+)?"
    r" (?:and|or|&|as well as)(?: for)? commercial\b"
    r"|\bcommercial(?: use)? (?:and|or|&|as well as)(?: for)? "
    r"(?:research|academic|education\w*|personal|private|non ?commercial)\b"
)
_NOT_COMMERCIAL = rf"{_NO}commercial|\bcommercial(?:ly)?{_NOT_ALLOWED}"
# Names of licences that allow more than they sound.
_NAMES = r"\bacademic free\b|\beducational community\b"

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "forbids training on it": rf"{_NO}(?:train|machine learning)|\btraining{_NOT_ALLOWED}",
        "forbids passing on what is derived from it": (
            r"\bnd\b|\bno ?deriv|\bderivatives?(?: works?)?(?: is| are)? (?:not|prohib|forbid)"
        ),
        "forbids commercial use": rf"\bnc\b|\bnon ?commercial|\bnon ?profit|{_NOT_COMMERCIAL}",
        "allows research alone": r"\bresearch|\bacademic|\beducational|\bteaching",
        "asks for the same licence of what is derived from it": (
            r"\bsa\b|\b[al]?gpl|\bgfdl|\bodbl|\beupl|\bosl\b|\bcdla sharing|\bshare ?alike"
        ),
        "limits what it may be used for": r"\bopenrail|\brail\b",
    }
)
"""What is said → the words for it, in small letters with a space for each hyphen."""
_UNKNOWN = re.compile(
    r"|(?:not|un) ?(?:stated|declared|specified|known|provided).*|various.*|other|none|n a|custom|"
    r"cc|creative commons|all rights reserved|no licen[cs]e.*|see .*|\?+"
)
_IS_UNKNOWN = "does not say what is allowed"


def restrictions(licence: str) -> tuple[str, ...]:
    """What the licence says against passing weights on, a verb phrase each; empty if nothing.

    licence: free text, or a short name such as cc-by-nc-4.0.
    """
    text = re.sub(r"[\s_/\u2010-\u2015-]+", " ", licence.casefold()).strip()
    if _UNKNOWN.fullmatch(text):
        return (_IS_UNKNOWN,)
    text = re.sub(_NAMES, "", text)
    if not re.search(_NOT_COMMERCIAL, text):
        text = re.sub(_COMMERCIAL_TOO, "", text)
    return tuple(said for said, words in _WORDS.items() if re.search(words, text))


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

"""What the declared licences of the data that weights were trained on ask of who passes them on.

Licences are declared as text. This reads the words that matter for passing weights on; it is no
legal advice, and does not decide whether weights are a work derived from their data.
"""

from __future__ import annotations

import re
import unicodedata
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
_ALONE = r"research|academic|education\w*|personal|private|non ?commercial"
_COMMERCIAL_TOO = (
    rf"\b(?:{_ALONE})(?: (?!only|alone)\w+)? (?:and|or|&|as well as)(?: for)? commercial\b"
    rf"|\bcommercial(?: use)? (?:and|or|&|as well as)(?: for)? (?:{_ALONE})\b"
)
_NOT_COMMERCIAL = rf"{_NO}(?:commercial|profit)|\bcommercial(?:ly)?{_NOT_ALLOWED}"
_COMMERCIAL_ALLOWED = (
    r"(?<!non )\bcommercial(?: use)?(?: is| are)? (?:allowed|permitted)\b"
    r"(?! (?:only|with|by|up|upon|on|under|after|if)\b)"
)
_RESEARCH = r"\b(?:research|academic|educational|teaching)\b"
# Strictly the words of a refusal: in "research only, no resale" it is not research that is refused.
_NO_RESEARCH = (
    rf"\b(?:no|not for|excluding|forbids?|prohibits?) (?:{_RESEARCH} ?)+(?!only|alone)"
    rf"|{_RESEARCH}(?: use| purposes?)?(?: is| are)?(?: strictly)? "
    r"(?:not (?:allowed|permitted)|prohibited|forbidden|excluded|disallowed)\b"
)
# Names of licences that allow more than they sound.
_NAMES = r"\bacademic free\b|\beducational community\b"

_RESEARCH_ALONE = "allows research alone"
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "forbids training on it": rf"{_NO}(?:train|machine learning)|\btraining{_NOT_ALLOWED}",
        "forbids passing on what is derived from it": (
            r"\bnd\b|\bno ?deriv|\bderivatives?(?: works?)?(?: is| are)? (?:not|prohib|forbid)"
        ),
        "forbids commercial use": (
            rf"\bnc\b|\bnon ?commercial|\bnon ?profit|\b(?:personal|private) use|{_NOT_COMMERCIAL}"
        ),
        _RESEARCH_ALONE: r"\bresearch|\bacademic|\beducational|\bteaching",
        "asks for the same licence of what is derived from it": (
            r"\bsa\b|\b[al]?gpl|\bgeneral public licen|\bgfdl|\bodbl|\bopen database licen|\beupl|"
            r"\bosl\b|\bcdla sharing|\bshare ?alike|\bcopyleft"
        ),
        "limits what it may be used for": rf"\bopenrail|\brail\b|{_NO_RESEARCH}",
    }
)
"""What is said → the words for it, in small letters with a space for each hyphen."""
_LICENCE = r"(?:(?:data |dataset )?licen[cs]e:? )?"
_NOT_KNOWN = r"(?:not|un) ?(?:stated|declared|specified|known|provided|given|clear)"
_UNKNOWN = re.compile(
    rf"|{_LICENCE}(?:{_NOT_KNOWN}|various|mixed|proprietary)\b.*|no licen[cs]e.*|see .*|\?+|"
    rf"{_LICENCE}(?:other|none|n ?a|custom)(?: given| stated| licen[cs]es?)?|"
    rf"{_LICENCE}(?:tb[acd]|todo|to be (?:announced|clarified|confirmed|decided|determined))|"
    r"cc|creative commons|(?:(?:©|\(c\)|copyright)[^.;]*\b)?all rights reserved"
)
_IS_UNKNOWN = "does not say what is allowed"
# Creative Commons without hyphens or spaces: ccbync4.0, by-nc4.0.
_RUN_TOGETHER = re.compile(r"\b(?:(?:cc|by)(?:by|nc|sa|nd)*|nc|sa|nd)(?=\d|\b)")


def restrictions(licence: str) -> tuple[str, ...]:
    """What the licence says against passing weights on, a verb phrase each; empty if nothing.

    licence: free text, or a short name such as cc-by-nc-4.0.
    """
    text = unicodedata.normalize("NFKC", licence).casefold()
    text = re.sub(r"[\s_/\u2010-\u2015-]+", " ", text).strip()
    is_unknown = _UNKNOWN.fullmatch(re.sub(r"\.(?=\w\b|$)", "", text)) is not None  # n.a.
    text = _RUN_TOGETHER.sub(lambda name: re.sub("(..)", r"\1 ", name.group()), text)
    text = re.sub(_NAMES, "", text)
    allows_commerce = False
    if not re.search(_NOT_COMMERCIAL, text):
        text = re.sub(_COMMERCIAL_TOO, "", text)
        allows_commerce = re.search(_COMMERCIAL_ALLOWED, text) is not None
    read = dict.fromkeys(_WORDS, text)
    read[_RESEARCH_ALONE] = "" if allows_commerce else re.sub(_NO_RESEARCH, "", text)
    found = [said for said, words in _WORDS.items() if re.search(words, read[said])]
    return (*found, _IS_UNKNOWN) if is_unknown else tuple(found)


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

"""How often concepts occur in captions: all names are searched for in one pass.

The names make one Aho–Corasick automaton (Aho and Corasick 1975, "Efficient string matching"), so a
caption is read once however many names there are. Not covered: which captions are searched, and
what follows from the counts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from fomo_dagster.errors import InputError


def normalised(text: str) -> str:
    """Text as names and captions are compared: without case, underscores as spaces, words one space
    apart, composed characters (Unicode's NFKC)."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.replace("_", " ").split())


def count_captions(names: Iterable[str], captions: Iterable[str]) -> dict[str, int]:
    """Name → number of captions in which it occurs, as a whole word or phrase, once or more.

    A name of several words is searched for as a phrase. It must stand between word boundaries, with
    no letter or digit before or after it: "cat" is not in "cattle". Names that differ only in case
    or underscores have the same count. Memory does not grow with the captions.
    """
    names = list(names)
    automaton = _automaton()
    forms: dict[str, int] = {}
    for name in names:
        form = normalised(name)
        if form and form not in forms:
            forms[form] = len(forms)
            automaton.add_word(form, (forms[form], len(form)))
    counts = [0] * len(forms)
    if forms:
        automaton.make_automaton()
        for caption in captions:
            for number in _found(automaton, normalised(caption)):
                counts[number] += 1
    return {
        name: counts[forms[form]] if (form := normalised(name)) in forms else 0 for name in names
    }


def _automaton() -> Any:
    """An empty one; `InputError` where the library that makes them is not installed."""
    try:
        import ahocorasick
    except ModuleNotFoundError:
        raise InputError(
            "the order frequency counts captions with pyahocorasick, which is not installed: pip "
            "install 'fomo-dagster[frequency]'"
        ) from None
    return ahocorasick.Automaton()


def _found(automaton: Any, caption: str) -> set[int]:
    """The numbers of the names that stand between word boundaries in a normalised caption."""
    found = set()
    for last, (number, length) in automaton.iter(caption):
        first = last - length + 1
        before, after = caption[max(first - 1, 0) : first], caption[last + 1 : last + 2]
        if not before.isalnum() and not after.isalnum():
            found.add(number)
    return found

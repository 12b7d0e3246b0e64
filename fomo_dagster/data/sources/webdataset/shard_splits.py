"""Which shards are for training and which for testing: by their names, as `sources/splits.py` says.

A shard's name tells its split where one of its words does: `cc3m-train-0007.tar`,
`validation/00000.tar`. Where no name tells of more than training, all are for training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.data.sources.splits import SplitNames, assign, kind_of
from fomo_dagster.errors import DataError, InputError, nearest


class ShardSplits(NamedTuple):
    """of: the split of each shard by its name; without those that are left out. has_test: whether
    any is for testing. notes: see `Assignment`."""

    of: dict[str, str]
    has_test: bool = False
    notes: tuple[str, ...] = ()


def split_shards(names: Sequence[str], declared: SplitNames | None, where: str) -> ShardSplits:
    """The splits of shards by their names below the folder that all have in common.

    declared: our splits, each with patterns of names (`*-train-*.tar`); empty: all train; None: by
    the names' words. Raises `InputError` if a pattern is no shard's, and `DataError` where some
    names tell of testing and others of nothing, or two words say the same.
    """
    if declared:
        return _matched(names, declared, where)
    for name in names if declared is None else ():
        _check_word(name, where)
    words = {name: _word(name) for name in names}
    told = list(dict.fromkeys(word for word in words.values() if word is not None))
    if declared is not None or all(kind_of(word) == "train" for word in told):
        return ShardSplits(dict.fromkeys(names, "train"))
    silent = [name for name, word in words.items() if word is None]
    if silent:
        raise DataError(
            f"{where}: {len(names) - len(silent)} shards are named as splits ({', '.join(told)}) "
            f"and {len(silent)} are not ({shortlist(silent)}): say with `splits` which are for "
            "training (`splits: {train: ['*.tar']}`; `splits: {}`: all)"
        )
    splits = assign(told, None, where)
    of = {name: splits.ours[word] for name, word in words.items() if word in splits.ours}
    return ShardSplits(of, "test" in splits.of, splits.notes)


def _word(name: str) -> str | None:
    """The last word of a shard's name that says which split it is of, in lower case."""
    return next((word for word in reversed(_words(name)) if kind_of(word)), None)


def _words(name: str) -> list[str]:
    return [word.rstrip("0123456789") for word in re.split(r"[^\w]|_", name.lower())]


def _check_word(name: str, where: str) -> None:
    """Refuse a file's name that tells of training and of testing at once, as `train_val-0.tar`."""
    for first, second in pairwise(_words(name.rpartition("/")[2])):
        if kind_of(first) == "train" and kind_of(second) not in ("train", None):
            raise DataError(
                f"{where}: the shard {name!r} is called {first} and {second}: say with `splits` "
                f"which shards are for training (`splits: {{train: ['{name}']}}`; `splits: {{}}`: "
                "all)"
            )


def _matched(names: Sequence[str], declared: SplitNames, where: str) -> ShardSplits:
    of: dict[str, str] = {}
    for ours, patterns in declared.items():
        for pattern in patterns:
            matched = [name for name in names if fnmatchcase(name, pattern)]
            if not matched:
                raise InputError(f"{where} has no shard {pattern!r}; {nearest(pattern, names)}")
            both = [name for name in matched if of.get(name, ours) != ours]
            if both:
                raise InputError(f"{where}: `splits` has {both[0]!r} in both splits")
            of.update(dict.fromkeys(matched, str(ours)))
    left_out = [name for name in names if name not in of]
    notes = []
    if left_out:
        notes.append(f"{where} has {shortlist(left_out)}, in none of the declared `splits`")
    return ShardSplits(of, "test" in of.values(), tuple(notes))

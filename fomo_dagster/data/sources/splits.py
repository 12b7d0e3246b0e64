"""Which samples are for training and which for testing: by a source's own splits, or by a share.

There is one rule for folders, tables, shards and Hugging Face. A split is recognised by its usual
names, in either case: train, training, trn; test, testing, tst; and for validation val, valid,
validation, dev, eval, evaluation and the like, each also followed by set, split, data, images or a
number. The validation split becomes the test split if there is no other; otherwise it is left out.
Two names of one kind, such as `val` and `validation`, are refused unless the declaration's `splits`
says what is meant.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from fomo_dagster.data.samples import SPLITS
from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.errors import DataError, InputError, nearest

VALIDATION = "validation"
KINDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    VALIDATION: (
        "val", "vali", "valid", "validation", "validating", "validate", "dev", "devel",
        "development", "eval", "evaluation", "evaluating", "evaluate",
    ),
}  # fmt: skip
_ENDINGS = re.compile(r"(sets?|splits?|data|images?|imgs?|samples?|20\d\d|\d{1,2})$")

SplitNames = Mapping[Any, tuple[str, ...]]
"""Our splits, each with the source's that it is made of."""


@dataclass(frozen=True)
class SplitRule:
    """What a source declares of its splits."""

    names: SplitNames | None
    """Ours, each with the source's that it is made of; empty: the source has no splits; None: by
    their usual names."""
    test_share: float
    """Of each concept, held out where no split is for testing."""


@dataclass(frozen=True)
class Assignment:
    """of: our splits, each with the source's that it is made of. left_out: the source's that are in
    neither. notes: sentences about what was decided for the person who uses the dataset."""

    of: Mapping[str, tuple[str, ...]]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ours(self) -> dict[str, str]:
        """The source's split → ours, without those that are left out."""
        return {theirs: ours for ours, several in self.of.items() for theirs in several}


def kind_of(name: str) -> str | None:
    """ "train", "test" or "validation" for what is usually called so; None for any other name."""
    squeezed = re.sub(r"[\s_.-]+", "", unicodedata.normalize("NFKC", name).casefold())
    for kind, words in KINDS.items():
        if squeezed in words or _ENDINGS.sub("", squeezed) in words:
            return kind
    return None


def hinted(name: str) -> str | None:
    """What one of the name's words is called, as in `seg_train` or `trainA`; None if none is."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", unicodedata.normalize("NFKC", name))
    return kind_of(name) or next(filter(None, map(kind_of, words)), None)


def assign(names: Sequence[str], declared: SplitNames | None, where: str) -> Assignment:
    """What each of the splits `names` of a source is for; empty if none of them is a split.

    declared: our splits, each with the source's; empty: none of them is a split; None: by their
    usual names. where: the source, for messages. Raises `InputError` if a declared one is not
    there, and `DataError` where two names say the same.
    """
    if declared is not None:
        return _declared(names, declared, where) if declared else Assignment({})
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(kind_of(name) or "", []).append(name)
    others = kinds.pop("", [])
    for kind, several in kinds.items():
        if len(several) > 1:
            raise DataError(
                f"{where} has {' and '.join(map(repr, several))}, and both are called {kind}: say "
                "with the source's `splits` what each is for, such as "
                f"`splits: {{{'train' if kind == 'train' else 'test'}: [{several[0]}]}}`"
            )
    of = {kind: tuple(kinds[kind]) for kind in SPLITS if kind in kinds}
    left_out = list(others) if of or VALIDATION in kinds else []
    notes = []
    if left_out:
        notes.append(f"{where} has {shortlist(left_out)} beside its splits: left out")
    if VALIDATION in kinds:
        (validation,) = kinds[VALIDATION]
        if "test" in of:
            left_out.append(validation)
            notes.append(
                f"{where} has {validation!r} beside {of['test'][0]!r}: the former is left out "
                "(the source's `splits` can bring it into the training or the test split)"
            )
        else:
            of["test"] = (validation,)
            notes.append(f"{where} has no test split: {validation!r} is taken for it")
    return Assignment(of, tuple(left_out), tuple(notes))


def _declared(names: Sequence[str], declared: SplitNames, where: str) -> Assignment:
    there = {unicodedata.normalize("NFC", name): name for name in names}
    of = {}
    for ours, theirs in declared.items():
        missing = [name for name in theirs if unicodedata.normalize("NFC", name) not in there]
        if missing:
            raise InputError(f"{where} has no split {missing[0]!r}; {nearest(missing[0], names)}")
        of[ours] = tuple(there[unicodedata.normalize("NFC", name)] for name in theirs)
    used = {name for several in of.values() for name in several}
    above = {name.partition("/")[0] for name in used}  # of folders in folders
    within = [(inner, name) for inner in used for name in used if inner.startswith(f"{name}/")]
    if within:
        inner, outer = min(within)
        raise InputError(
            f"{where}: `splits` names {inner!r}, which is part of {outer!r}: leave one of them out"
        )
    left_out = tuple(name for name in names if name not in used | above)
    notes = []
    if left_out:
        notes.append(f"{where} has {shortlist(left_out)}, in none of the declared `splits`")
    return Assignment(
        {ours: theirs for ours, theirs in of.items() if theirs}, left_out, tuple(notes)
    )


def held_out(rows: pl.DataFrame, share: float) -> pl.Series:
    """The split ("train" or "test") of each row, from its `concept` and `key`.

    A sample is held out if the hash of its key falls below `share`. So no other sample affects it,
    and adding images moves none between the splits. One exception keeps every concept trainable:
    its sample with the highest hash is always in training.
    """
    positions = pl.Series("position", [_position(key) for key in rows["key"]], pl.Float64)
    is_held_out = (pl.col("position") < share) & (
        pl.col("position") < pl.col("position").max().over("concept")
    )
    split = pl.when(is_held_out).then(pl.lit("test")).otherwise(pl.lit("train"))
    return rows.with_columns(positions).select(split.alias("split")).to_series()


def _position(key: str) -> float:
    """Where the key's hash lies in [0, 1]."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64

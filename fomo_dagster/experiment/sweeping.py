"""What `sweep:` in an experiment file declares: the points of a grid, each with a readable name.

An axis is a dotted key of the experiment with a list of values, or a mapping from names to values.
Two keys do not belong to the experiment: `together` varies several keys at once, and `extends` the
file to inherit from. A list of such grids is all their points, one grid after the other.
`fomo_dagster.experiment.experiment_sets` turns points into experiments.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.names import SAFE_NAME

SWEEP = "sweep"
TOGETHER = "together"
EXTENDS = "extends"
MOST_MEMBERS = 256
REPLICATES, SEED_LIST, VARY = "replicates", "seeds", "vary"
OF_REPLICATES = (REPLICATES, SEED_LIST, VARY)
OF_FILES = (SWEEP, *OF_REPLICATES)
"""The keys by which a file declares several experiments, and which none of them has."""
# They change no number, or would take the name that a point is given.
NOT_SWEPT = (
    "name",
    "description",
    "owners",
    "cron_schedule",
    "cron_timezone",
    "execution",
    "release",
    "retention",
    *OF_FILES,
)
TAGS = ("name", "technique")  # the keys that say which form a mapping has
MOST_REPLICATES = 100
SEEDS = {
    "training": "seed",
    "order": "stream.seed",
    "selection": "evaluation.seed",
    "backbone": "backbone.pretraining.seed",
}
"""What replicates may differ in → the seed that decides it."""
SMALL, LARGE = 0.01, 1e6  # below and from which numbers are written with an exponent


@dataclass(frozen=True)
class Value:
    """A value of an axis.

    changes: dotted key → value. label: its part of a member's name. shown: column → what tables
    show of it.
    """

    changes: Mapping[str, Any]
    label: str
    shown: Mapping[str, Any]

    @property
    def is_of_seeds(self) -> bool:
        """Whether it changes nothing but seeds."""
        return bool(self.changes) and all(
            key in SEEDS.values() and isinstance(value, int) for key, value in self.changes.items()
        )


@dataclass(frozen=True)
class Point:
    """A combination: the value on each axis."""

    values: Mapping[str, Value]

    @property
    def label(self) -> str:
        """What the name of its member ends in."""
        return "_".join(value.label for value in self.values.values())

    @property
    def replicate(self) -> str:
        """What tells it from the points that vary nothing but seeds; empty where it varies none."""
        return "_".join(value.label for value in self.values.values() if value.is_of_seeds)

    @property
    def without_replicate(self) -> str:
        """What all replicates of it have in common of their names' ends."""
        return "_".join(value.label for value in self.values.values() if not value.is_of_seeds)

    @property
    def extends(self) -> str | None:
        """The file that it takes values from, where that is what is swept."""
        value = self.values.get(EXTENDS)
        return None if value is None else str(value.changes[EXTENDS])

    @property
    def changes(self) -> dict[str, Any]:
        """Dotted key → value, of all axes."""
        pairs = [pair for value in self.values.values() for pair in value.changes.items()]
        pairs.sort(key=lambda pair: pair[0].count("."))  # a whole mapping before what is in it
        return {key: value for key, value in pairs if key != EXTENDS}

    @property
    def shown(self) -> dict[str, Any]:
        """Column → what tables show of the point."""
        return {c: text for value in self.values.values() for c, text in value.shown.items()}


def grids_of(sweep: Any) -> list[dict[str, Any]]:
    """The grids of a `sweep` as it stands in a file; none where it is not of that form."""
    grids = sweep if isinstance(sweep, list) else [sweep]
    return grids if all(isinstance(grid, dict) for grid in grids) else []


def points_of(sweep: Any) -> list[Point]:
    """The points that a file's `sweep` declares, in the order of its values.

    Raises `InputError` for what is not of its form, for more than `MOST_MEMBERS` points, and where
    two values of an axis have one name.
    """
    grids = grids_of(sweep)
    if not grids or not all(grids):
        raise InputError(
            "sweep must map keys to lists of values, as in `optimiser.learning_rate: [1e-5, 1e-4]`,"
            f" or be a list of such mappings, not {sweep!r}"
        )
    axes = [_axes(grid) for grid in grids]
    count = sum(math.prod(map(len, grid.values())) for grid in axes)
    if count > MOST_MEMBERS:
        sizes = " + ".join("×".join(str(len(values)) for values in grid.values()) for grid in axes)
        raise InputError(
            f"sweep declares {count} experiments ({sizes}), but may have at most "
            f"{MOST_MEMBERS}: leave out values, or split it into several sweeps"
        )
    return [
        Point(dict(zip(grid, values, strict=True)))
        for grid in axes
        for values in itertools.product(*grid.values())
    ]


def with_replicates(data: dict[str, Any], points: Sequence[Point]) -> list[Point]:
    """The points, each once for every replicate that `data` declares, whose keys are taken out.

    `replicates: N` counts up from the experiment's own seed, `seeds` lists them; `vary` says which
    seeds are set to it. Raises `InputError` for what is not of this form.
    """
    is_declared = REPLICATES in data or SEED_LIST in data  # though it be as null
    number, seeds, vary = (data.pop(key, None) for key in (REPLICATES, SEED_LIST, VARY))
    if number is None and seeds is None:
        if vary is not None and not is_declared:
            raise InputError(f"{VARY} is given without {REPLICATES} or {SEED_LIST}: give one")
        return list(points)
    if number is not None and seeds is not None:
        raise InputError(f"{REPLICATES} and {SEED_LIST} are both given: leave out one")
    if number is not None:
        if not _is_whole(number) or not 1 <= number <= MOST_REPLICATES:
            raise InputError(
                f"{REPLICATES} must be a number from 1 to {MOST_REPLICATES}, not {number!r}"
            )
        first = data.get("seed", 0)
        seeds = [first + place for place in range(number)] if _is_whole(first) else [first]
    if not isinstance(seeds, list) or not seeds or not all(map(_is_whole, seeds)):
        raise InputError(f"{SEED_LIST} must be a list of whole numbers, not {seeds!r}")
    if len(set(seeds)) < len(seeds):
        raise InputError(f"{SEED_LIST} names a seed twice: {seeds}")
    named = ["training"] if vary is None else vary
    known = isinstance(named, list) and all(isinstance(n, str) and n in SEEDS for n in named)
    if not known or not named or len(set(named)) < len(named):
        raise InputError(f"{VARY} must be a list of some of {', '.join(SEEDS)}, not {vary!r}")
    axis = [
        Value({SEEDS[one]: seed for one in named}, f"seed_{_number(float(seed))}", {"seed": seed})
        for seed in seeds
    ]
    for point in points:
        if any(value.is_of_seeds for value in point.values.values()):
            raise InputError(f"sweep varies a seed, and so does {REPLICATES}: leave out one")
    return [
        Point({**point.values, REPLICATES: value}) for point in points or [Point({})]
        for value in axis
    ]  # fmt: skip


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _axes(grid: Mapping[str, Any]) -> dict[str, list[Value]]:
    keys = [key for key in grid if key != TOGETHER]
    together = grid.get(TOGETHER)
    rows = together.values() if isinstance(together, dict) else together
    if rows is not None and not all(isinstance(row, dict) and row for row in rows or [None]):
        raise InputError(
            "sweep.together must be a list of mappings, or names with a mapping each, as in "
            f"`[{{batch_size: 64, seed: 0}}, {{batch_size: 128, seed: 1}}]`, not {together!r}"
        )
    keys += dict.fromkeys(key for row in rows or () for key in row)
    for key in keys:
        top = key.partition(".")[0]
        if not all(key.split(".")) or top in NOT_SWEPT:
            raise InputError(
                f"sweep: {key!r} cannot be varied: give a dotted key that changes an "
                f"experiment's numbers (none of {', '.join(NOT_SWEPT)})"
            )
    columns = _columns(keys)
    axes = {axis: list(_values(axis, given, columns)) for axis, given in grid.items()}
    _check_apart(axes)
    return axes


def _check_apart(axes: Mapping[str, Sequence[Value]]) -> None:
    """No two axes set the same: their order would decide which value counts."""
    leaves = {
        axis: {
            leaf for value in values for key, v in value.changes.items() for leaf in _leaves(key, v)
        }
        for axis, values in axes.items()
    }
    for one, other in itertools.combinations(axes, 2):
        for a, b in itertools.product(leaves[one], leaves[other]):
            if a == b or a.startswith(f"{b}.") or b.startswith(f"{a}."):
                raise InputError(
                    f"sweep: {one!r} and {other!r} both set {max(a, b, key=len)}: leave it out of "
                    f"one, or vary the two under `{TOGETHER}`"
                )


def _leaves(key: str, value: Any) -> Iterator[str]:
    """The dotted keys that a value sets below `key`."""
    if not isinstance(value, dict) or not value:
        yield key
        return
    for name, below in value.items():
        yield from _leaves(f"{key}.{name}", below)


def _columns(keys: Iterable[str]) -> dict[str, str]:
    """Key → its last part, or all of it where another ends in the same."""
    keys = list(keys)
    last = Counter(key.rpartition(".")[2] for key in keys)
    return {key: part if last[part := key.rpartition(".")[2]] == 1 else key for key in keys}


def _values(axis: str, given: Any, columns: Mapping[str, str]) -> Iterator[Value]:
    named = given if isinstance(given, dict) else None
    values = list(given.values()) if named else given if isinstance(given, list) else [given]
    names = list(named) if named else [None] * len(values)
    if not values or (isinstance(given, dict) and not given):
        raise InputError(f"sweep.{axis} has no values: list some, or leave it out")
    seen: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        made = _value(axis, value, name, columns)
        if not SAFE_NAME.fullmatch(made.label):
            raise InputError(
                f"sweep.{axis}: {made.label!r} cannot be part of a name (letters, digits and "
                f"underscores, at most 100): name the values, as in `{axis}: {{first: …}}`"
            )
        if made.label in seen:
            if seen[made.label] == value:
                continue
            raise InputError(
                f"sweep.{axis}: {seen[made.label]!r} and {value!r} are both called "
                f"{made.label!r}: name the values, as in `{axis}: {{first: …, second: …}}`"
            )
        seen[made.label] = value
        yield made


def _value(axis: str, value: Any, name: str | None, columns: Mapping[str, str]) -> Value:
    if axis == TOGETHER:
        labels = (_label(columns[key], one) for key, one in value.items())
        shown = {columns[key]: _shown(one) for key, one in value.items()}
        return Value(value, name or "_".join(labels), {TOGETHER: name} if name else shown)
    if axis == EXTENDS:
        label = name or _safe(PurePath(str(value)).stem)
        return Value({axis: value}, label, {axis: label})
    shown = {columns[axis]: name or _shown(value)}
    return Value({axis: value}, name or _label(columns[axis], value), shown)


def _label(column: str, value: Any) -> str:
    """A mapping and text say what they are; a number needs to be told what of."""
    alone = isinstance(value, str | dict)
    return _text(value) if alone else f"{_safe(column)}_{_text(value)}"


def _shown(value: Any) -> Any:
    if value is None:
        return "null"
    return value if isinstance(value, str | int | float) else _text(value)


def _text(value: Any) -> str:
    """A value in letters, digits and underscores; for equal values the same."""
    if isinstance(value, dict):
        tags = [_safe(str(value[tag])) for tag in TAGS if tag in value]
        others = [f"{_safe(k)}_{_text(v)}" for k, v in value.items() if k not in TAGS]
        return "_".join([*tags, *others])
    if isinstance(value, list):
        return "_".join(map(_text, value))
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, int | float):
        return _number(float(value))
    return _safe(PurePath(str(value)).name)


def _number(value: float) -> str:
    if not math.isfinite(value):
        raise InputError(f"sweep: {value!r} is not a value that can be trained with")
    sign = "minus_" if value < 0 else ""
    exact = Decimal(repr(abs(value))).normalize()
    _, digits, _ = exact.as_tuple()
    if exact and not SMALL <= exact < LARGE:
        power = exact.adjusted()
        mantissa = "_".join(filter(None, (str(digits[0]), "".join(map(str, digits[1:])))))
        return f"{sign}{mantissa}e{'_' * (power < 0)}{abs(power)}"
    return sign + _safe(f"{exact:f}")


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")

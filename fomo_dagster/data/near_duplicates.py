"""Pairs of pictures whose perceptual hashes, or whose features, are near each other.

Every pair is looked at, in bounded memory: bits that may differ anywhere leave no index that would
spare much. `benchmarks/near_duplicates.py` measures the time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.progress import Progress, no_progress
from fomo_dagster.units import counted

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]
Distances = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
Similarities = npt.NDArray[np.float32]

LEAKAGE, PAST_LEAKAGE, LEARNT_LEAKAGE = "leakage", "past_leakage", "learnt_leakage"
EARLIER, WITHIN = "earlier", "within"
KINDS = {
    LEAKAGE: "a test image",
    PAST_LEAKAGE: "a test image that came after it",
    LEARNT_LEAKAGE: "a test image",
    EARLIER: "one that an earlier stage brought",
    WITHIN: "one that the stage brings before it",
}
"""Kind of pair → what the other picture is."""
_BEFORE = {
    PAST_LEAKAGE: "those that earlier stages brought",
    LEARNT_LEAKAGE: "those that the release learnt which it starts from",
}
"""Of samples that the stage does not bring: kind → what they are."""
PAIRS: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "dataset": pl.String(),
    "key": pl.String(),
    "other_dataset": pl.String(),
    "other_split": pl.String(),
    "other_key": pl.String(),
    "distance": pl.Int64(),  # in bits; null of a pair that was found by features
    "similarity": pl.Float64(),  # cosine of features; null of a pair that was found by hashes
}
NONE = 255  # a distance that no pair has
ROWS, COLUMNS = 32, 8192  # hashes that are held against each other at once: 2 MiB
FEATURE_ROWS = 512  # features that are held against `COLUMNS` others at once: 16 MiB


def nearest(
    hashes: Hashes,
    others: Hashes,
    most: int,
    *,
    first: int | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> tuple[Places, Distances]:
    """Of each of `hashes`, (N,), the place of the nearest of `others`, (M,), and its distance in
    bits; the first of equally near ones, and `NONE` where none is within `most` bits.

    first: where `hashes` stand among `others`; each is held against those before it alone. None:
    against all. on_rows: told how many more of `hashes` are done.
    """
    places = np.full(len(hashes), -1, np.int64)
    distances = np.full(len(hashes), NONE, np.uint8)
    for top in range(0, len(hashes), ROWS):
        rows = hashes[top : top + ROWS, None]  # (R, 1)
        best = np.full(len(rows), most + 1, np.uint8)
        ends = None if first is None else np.arange(first + top, first + top + len(rows))
        last = len(others) if ends is None else int(ends[-1])
        for left in range(0, last, COLUMNS):
            columns = others[left : min(left + COLUMNS, last)]
            found = np.bitwise_count(rows ^ columns)  # (R, C)
            if ends is not None and left + len(columns) > ends[0]:
                found[np.arange(left, left + len(columns)) >= ends[:, None]] = NONE
            lowest = found.min(axis=1)
            better = np.flatnonzero(lowest < best)
            if better.size:
                best[better] = lowest[better]
                places[top + better] = left + found[better].argmin(axis=1)
                distances[top + better] = lowest[better]
        on_rows(len(rows))
    return places, distances


def most_similar(
    features: Features,
    others: Features,
    least: float,
    *,
    first: int | None = None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> tuple[Places, Similarities]:
    """Of each of `features`, (N, D), L2-normalised, the place of the most similar of `others`,
    (M, D), and its cosine; -1 and 0 where none is at least `least`. first, on_rows: as of
    `nearest`."""
    places = np.full(len(features), -1, np.int64)
    cosines = np.zeros(len(features), np.float32)
    for top in range(0, len(features), FEATURE_ROWS):
        rows = features[top : top + FEATURE_ROWS]
        ends = None if first is None else np.arange(first + top, first + top + len(rows))
        last = len(others) if ends is None else int(ends[-1])
        best = np.full(len(rows), -np.inf, np.float32)
        for left in range(0, last, COLUMNS):
            right = min(left + COLUMNS, last)
            found = rows @ others[left:right].T  # (R, C)
            if ends is not None and right > ends[0]:
                found[np.arange(left, right) >= ends[:, None]] = -np.inf
            highest = found.max(axis=1)
            better = np.flatnonzero((highest > best) & (highest >= least))
            best[better] = highest[better]
            places[top + better] = left + found[better].argmax(axis=1)
            cosines[top + better] = highest[better]
        on_rows(len(rows))
    return places, cosines


def pairs_of(
    chunk: pl.DataFrame,
    earlier: pl.DataFrame,
    tests: pl.DataFrame,
    distance: int,
    *,
    late: Sequence[tuple[pl.DataFrame, pl.DataFrame]] = (),
    learnt: pl.DataFrame | None = None,
    mirrored: bool = False,
    similarity: float | None = None,
    progress: Progress = no_progress,
) -> pl.DataFrame:
    """The near duplicates (PAIRS) among samples with the columns dataset and those of HASHES, and
    `features` where similarity is given.

    Each sample of `chunk`, in its order, is paired with the nearest test image of each dataset,
    with the nearest of `earlier`, and with the nearest that comes before it in the chunk; by hashes
    and by features, each for itself. So of two alike, only the later one is a near duplicate.
    Samples without a hash have no pair. late: samples of earlier stages, and the test images that
    came after them, which are paired as those of `chunk` are. learnt: samples, without features,
    that are no longer in the stream, and are paired with test images alone. mirrored: hold mirror
    images of the samples' hashes against the others, too.
    """
    own, before = (frame.drop_nulls("hash") for frame in (chunk, earlier))
    against = [
        *_against_tests(LEAKAGE, chunk, tests),
        *itertools.chain.from_iterable(_against_tests(PAST_LEAKAGE, *pair) for pair in late),
        _Against(EARLIER, "train", own, before),
        _Against(WITHIN, "train", own, own),
    ]
    if learnt is not None:
        against[:0] = _against_tests(LEARNT_LEAKAGE, learnt, tests)
    columns = ("hash", "mirrored") if mirrored else ("hash",)
    ways = len(columns) + (similarity is not None)
    done, total = 0, ways * sum(each.own.height for each in against)

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        progress("images", done, total)

    found = [pl.DataFrame(schema=PAIRS)]
    for kind, split, own, others in against:
        first = 0 if kind == WITHIN else None
        places = np.full(own.height, -1)
        distances = np.full(own.height, NONE, np.uint8)
        for column in columns:
            hashes, among = own[column].to_numpy(), others["hash"].to_numpy()
            nearer, bits = nearest(hashes, among, distance, first=first, on_rows=on_rows)
            places = np.where(bits < distances, nearer, places)
            distances = np.minimum(bits, distances)
        near = np.flatnonzero(distances != NONE)
        rows = _rows(kind, split, own[near], others[places[near]])
        found.append(rows.with_columns(distance=pl.Series(distances[near], dtype=pl.Int64)))
        if "features" in own.columns and similarity is not None and own.height and others.height:
            places, cosines = most_similar(
                _matrix(own), _matrix(others), similarity, first=first, on_rows=on_rows
            )
            near = np.flatnonzero(places >= 0)
            rows = _rows(kind, split, own[near], others[places[near]])
            found.append(rows.with_columns(similarity=pl.Series(cosines[near], dtype=pl.Float64)))
    return pl.concat(found)


class _Against(NamedTuple):
    """Samples, and those that each is held against; all have hashes."""

    kind: str
    split: str
    own: pl.DataFrame
    others: pl.DataFrame


def _against_tests(kind: str, samples: pl.DataFrame, tests: pl.DataFrame) -> Iterator[_Against]:
    """Against the test images of each dataset by itself."""
    own = samples.drop_nulls("hash")
    for _, images in tests.drop_nulls("hash").group_by("dataset", maintain_order=True):
        yield _Against(kind, "test", own, images)


def _matrix(samples: pl.DataFrame) -> Features:
    return samples["features"].to_numpy().astype(np.float32)


def _rows(kind: str, split: str, own: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """PAIRS without how near they are."""
    return pl.DataFrame(
        {
            "kind": [kind] * own.height,
            "dataset": own["dataset"],
            "key": own["key"],
            "other_dataset": others["dataset"],
            "other_split": [split] * own.height,
            "other_key": others["key"],
            "distance": [None] * own.height,
            "similarity": [None] * own.height,
        },
        schema=PAIRS,
    )


@dataclass(frozen=True)
class Found:
    """The near duplicates of what a stage brings.

    samples: that it brings; unseen: of these, without a hash, since they cannot be decoded. pairs:
    PAIRS. unknown: what the weights that the stage starts from learnt, and nobody looked at.
    """

    samples: int
    unseen: int
    pairs: pl.DataFrame
    unknown: Sequence[str] = ()

    @cached_property
    def leaking(self) -> int:
        """Samples that are near a test image."""
        return self.count(LEAKAGE)

    @cached_property
    def leaked(self) -> int:
        """Samples that were learnt before the stage, near test images that came after them, or that
        are no longer in the stream."""
        return self.count(*_BEFORE)

    @property
    def of_before(self) -> Iterator[str]:
        """Sentences for what is wrong with what was learnt before the stage, beside what its
        earlier stages tell themselves."""
        yield from (self.sentence(kind) for kind in _BEFORE if self.count(kind))

    @property
    def said_of_unknown(self) -> str:
        """What to do about `unknown`."""
        return (
            "nobody looked for test images among what the release that it starts from learnt of "
            f"{_some(self.unknown)}: run an experiment of that stream with release.gates.data, or, "
            "if it changed since, allow leakage or start from something else"
        )

    @cached_property
    def repeated(self) -> int:
        """Samples that are near one that came before, in an earlier stage or in the same."""
        return self.count(EARLIER, WITHIN)

    @property
    def of_the_stage(self) -> pl.DataFrame:
        """The pairs of samples that the stage brings itself."""
        return self.pairs.filter(~pl.col("kind").is_in(_BEFORE))

    def count(self, *kinds: str) -> int:
        """Samples that have pairs of these kinds."""
        of = self.pairs.filter(pl.col("kind").is_in(kinds))
        return of.select("dataset", "key").n_unique() if of.height else 0

    def sentence(self, *kinds: str) -> str:
        """How many samples have pairs of these kinds, with the nearest one as an example."""
        count = self.count(*kinds)
        what = " or ".join(KINDS[kind] for kind in kinds)
        are = "is a near duplicate" if count == 1 else "are near duplicates"
        of = counted(self.samples, "sample")
        of = _BEFORE.get(kinds[0], of)
        said = f"{count:,} of {of} {are} of {what}"
        if not count:
            return said
        pair = self.nearest.filter(pl.col("kind").is_in(kinds)).row(0, named=True)
        return (
            f"{said}, such as {pair['dataset']}/{pair['key']} and {pair['other_dataset']}/"
            f"{pair['other_key']} ({how_near(pair)})"
        )

    @property
    def nearest(self) -> pl.DataFrame:
        """The pairs, those with test images first, of each kind the nearest first."""
        order = pl.col("kind").replace_strict({kind: n for n, kind in enumerate(KINDS)})
        return self.pairs.sort(
            order, "distance", 1 - pl.col("similarity"), "dataset", "key", nulls_last=True,
            maintain_order=True,
        )  # fmt: skip


def _some(names: Sequence[str]) -> str:
    """A few of them."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def how_near(pair: Mapping[str, Any]) -> str:
    """Of a row of PAIRS, in words."""
    if pair["distance"] is None:
        return f"cosine {pair['similarity']:.3f}"
    return f"{counted(pair['distance'], 'bit')} apart"

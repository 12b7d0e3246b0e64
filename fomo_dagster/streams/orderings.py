"""The orders in which a stream's concepts can arrive (FoMo-in-Flux, arXiv 2408.14471, section 3).

Here are the orders that follow from names, years and a figure of each concept. Not covered is how
the figures are computed: θ₀'s scores are evaluations, counts are in `frequency.py`, and the path
through text embeddings, an order of its own, is in `similarity.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from fomo_dagster.store.digests import digest_of
from fomo_dagster.streams.entries import parse_entry


def as_listed(entries: Iterable[str]) -> list[str]:
    """The order of the file, or of the datasets and their concepts by name."""
    return list(entries)


def random(entries: Iterable[str], seed: int) -> list[str]:
    """A seeded permutation, in which each entry's place comes from its own hash.

    So it does not depend on how the entries were listed, and a concept that joins or leaves does
    not change the order of the others.
    """
    return sorted(entries, key=lambda entry: _draw(entry, seed))


def dataset_incremental(entries: Sequence[str], seed: int) -> list[str]:
    """Dataset after dataset, in the order in which they are first listed, with each one's classes
    in `random` order."""
    return [entry for group in by_dataset(entries).values() for entry in random(group, seed)]


def time_incremental(
    entries: Sequence[str],
    years: Mapping[str, int],
    seed: int,
    *,
    interleaved: bool,
    newest_first: bool = False,
) -> list[str]:
    """Datasets (the keys of `years`) in the order of their years of publication.

    Each dataset's classes stay together in `random` order, and datasets of one year keep the order
    in which they are listed. With `interleaved`, all concepts of one year are in `random` order
    together.
    """
    groups = by_dataset(entries)
    dated = sorted(groups, key=lambda name: years[name], reverse=newest_first)  # stable
    ordered: list[str] = []
    for _, names in groupby(dated, key=lambda name: years[name]):
        of_year = [groups[name] for name in names]
        if interleaved:
            of_year = [[entry for group in of_year for entry in group]]
        for group in of_year:
            ordered += random(group, seed)
    return ordered


def by_sort_key(
    entries: Iterable[str],
    sort_keys: Mapping[str, float | None],
    seed: int,
    *,
    greatest_first: bool,
) -> list[str]:
    """By `sort_keys` (entry → figure). Equal ones are in `random` order, those without a figure
    come last.

    With θ₀'s scores, greatest first, this is the order `performance`; with counts in the captions
    of a pretraining pool, least first, `frequency`.
    """

    def place(entry: str) -> tuple[float, str]:
        sort_key = sort_keys.get(entry)
        if sort_key is None:
            return float("inf"), _draw(entry, seed)
        return -sort_key if greatest_first else sort_key, _draw(entry, seed)

    return sorted(entries, key=place)


def by_dataset(entries: Iterable[str]) -> dict[str, list[str]]:
    """The entries of each dataset, datasets and entries in the order given."""
    groups: dict[str, list[str]] = {}
    for entry in entries:
        groups.setdefault(parse_entry(entry)[0], []).append(entry)
    return groups


def _draw(entry: str, seed: int) -> str:
    return digest_of(["stream order", seed, entry])

"""The orders in which a stream's concepts can arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.store.digests import digest_of


def as_listed(entries: Sequence[str], seed: int) -> list[str]:
    """The order of the file, or of the datasets and their concepts; `seed` plays no part."""
    return list(entries)


def random(entries: Sequence[str], seed: int) -> list[str]:
    """A seeded permutation, in which each entry's place comes from a hash of its own.

    So it does not depend on how the entries were listed, and a concept that joins or leaves does
    not change the order of the others.
    """
    return sorted(entries, key=lambda entry: digest_of(["stream order", seed, entry]))


ORDERINGS: dict[str, Callable[[Sequence[str], int], list[str]]] = {
    "as_listed": as_listed,
    "random": random,
}


def order_concepts(entries: Sequence[str], order: str, seed: int) -> list[str]:
    """`entries` in the order of that name (a key of `ORDERINGS`).

    Raises `InputError` for an unknown order.
    """
    if order not in ORDERINGS:
        raise InputError(f"unknown order of a stream {order!r}: {nearest(order, ORDERINGS)}")
    return ORDERINGS[order](entries, seed)

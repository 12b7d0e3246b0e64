"""Whose turn a position is among several members with weights. Nothing is random.

Shares are exact in the long run and close to exact in any prefix. Each member goes through its own
sequence without leaving anything out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction


def whole_weights(weights: Mapping[str, float]) -> dict[str, int]:
    """The smallest whole numbers in the proportions of `weights`, by name in sorted order.

    Weights are taken as the decimals that they are written as: {a: 0.3, b: 0.7} is {a: 3, b: 7}.
    """
    exact = {name: Fraction(repr(weights[name])) for name in sorted(weights)}
    common = math.lcm(*(weight.denominator for weight in exact.values()))
    whole = [int(weight * common) for weight in exact.values()]
    divisor = math.gcd(*whole)
    return {name: weight // divisor for name, weight in zip(exact, whole, strict=True)}


def turn(weights: Sequence[int], position: int) -> tuple[int, int]:
    """Which of the members has a position, and how many turns it had before.

    The first member has ⌊n · w + 1/2⌋ of the first n positions, w being its share of all weights;
    what it leaves is shared among the others in the same way. Of n positions each of k members has
    its share within k/2 of exact, and of any sum(weights) positions in a row exactly its weight.
    """
    total = sum(weights)
    for member, weight in enumerate(weights[:-1]):
        before = _rounded(position * weight, total)
        if _rounded((position + 1) * weight, total) > before:
            return member, before
        position -= before
        total -= weight
    return len(weights) - 1, position


def counts(weights: Sequence[int], positions: int) -> list[int]:
    """How many of the first `positions` positions each member has."""
    total, had = sum(weights), []
    for weight in weights[:-1]:
        had.append(_rounded(positions * weight, total))
        positions -= had[-1]
        total -= weight
    return [*had, positions]


def _rounded(numerator: int, denominator: int) -> int:
    """To the nearest whole number, halves up, in whole numbers alone."""
    return (2 * numerator + denominator) // (2 * denominator)

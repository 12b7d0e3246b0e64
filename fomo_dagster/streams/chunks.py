"""A stream cut into the chunks of its stages.

The samples that a chunk brings are `manifests.py`'s.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise

from fomo_dagster.errors import InputError


def cut(entries: Sequence[str], stages: int) -> list[list[str]]:
    """`entries` in `stages` contiguous chunks of equal length, the first ones one longer.

    With q, r = divmod(N, T), the first r chunks have q + 1 concepts and the others q (as the
    benchmark, arXiv 2408.14471). Raises `InputError` for fewer than one stage, or more stages than
    concepts.
    """
    check_stages(len(entries), stages)
    length, longer = divmod(len(entries), stages)
    ends = accumulate(length + (stage < longer) for stage in range(stages - 1))
    return _between(entries, list(ends))


def cut_by_samples(entries: Sequence[str], samples: Sequence[int], stages: int) -> list[list[str]]:
    """`entries` in `stages` contiguous chunks of whole concepts with about as many samples each.

    samples: of each entry. With S samples in all, the cut after chunk t falls where the number of
    samples so far is nearest to t·S/T, the earlier of two equally near places; where that would
    leave a chunk without a concept, it moves to the nearest place that does not. So no chunk is
    further from S/T than one concept's samples, except those that a larger concept forces. Raises
    `InputError` as `cut`.
    """
    check_stages(len(entries), stages)
    sums = [0, *accumulate(samples)]
    cuts: list[int] = []
    for stage in range(1, stages):
        first = cuts[-1] + 1 if cuts else 1
        last = len(entries) - (stages - stage)
        aim = stage * sums[-1]  # times T, so that everything stays whole
        after = bisect_left(sums, aim, lo=first, hi=last, key=lambda value: value * stages)
        before = max(after - 1, first)
        nearer = abs(sums[before] * stages - aim) <= abs(sums[after] * stages - aim)
        cuts.append(before if nearer else after)
    return _between(entries, cuts)


def cut_at(entries: Sequence[str], positions: Sequence[int]) -> list[list[str]]:
    """`entries` cut before each of `positions`, which count from 1: where chunks 2..T begin.

    Raises `InputError` if they do not increase or would leave a chunk without a concept.
    """
    check_positions(len(entries), positions)
    return _between(entries, [position - 1 for position in positions])


def check_stages(concepts: int, stages: int) -> None:
    """Raise `InputError` if a stream of so many concepts cannot have so many stages."""
    if not 1 <= stages <= concepts:
        raise InputError(
            f"stream.stages is {stages}, and the stream has {concepts} concepts: each stage needs "
            f"at least one, so choose from 1 to {concepts}"
        )


def check_positions(concepts: int, positions: Sequence[int]) -> None:
    """Raise `InputError` if a stream of so many concepts cannot be cut at these positions."""
    for before, after in pairwise([1, *positions, concepts + 1]):
        if before >= after:
            raise InputError(
                f"stream.positions is {list(positions)}, and the stream has {concepts} concepts: "
                "positions are where stages 2, 3, … begin, so they must increase from 2 to at "
                f"most {concepts}"
            )


def _between(entries: Sequence[str], cuts: Sequence[int]) -> list[list[str]]:
    return [list(entries[start:end]) for start, end in pairwise([0, *cuts, len(entries)])]

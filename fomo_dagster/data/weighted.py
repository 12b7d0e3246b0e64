"""Several pools drawn in fixed shares; `weighted_round_robin.py` decides whose turn a position
is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fomo_dagster.data.pools import Pool, Sample
from fomo_dagster.data.weighted_round_robin import counts, turn


class WeightedPool:
    """Members drawn in proportion to whole weights; the order of the mapping breaks ties."""

    def __init__(self, members: Mapping[str, Pool], weights: Mapping[str, int]) -> None:
        self._members = list(members.values())
        self._weights = [weights[name] for name in members]

    @property
    def size(self) -> int | None:
        """All members together; None if that of one is not known."""
        sizes = [member.size for member in self._members]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def sample(self, seed: int, stage: int, position: int) -> Sample:
        """See `Pool`."""
        member, before = turn(self._weights, position)
        return self._members[member].sample(seed, stage, before)._replace(row=-1)

    def record(self, seed: int, stage: int, count: int) -> dict[str, int]:
        """The figures of all members, added up."""
        total = Counter[str]()
        drawn = counts(self._weights, count)
        for member, its_count in zip(self._members, drawn, strict=True):
            total.update(member.record(seed, stage, its_count))
        return dict(total)

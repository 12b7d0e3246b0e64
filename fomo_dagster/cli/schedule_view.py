"""How long a plan takes on a number of slots, for people and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from fomo_dagster.cli.output import Terminal, say
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.graph.run.schedule import Schedule, Work, schedule, works_of
from fomo_dagster.units import counted, duration


@dataclass(frozen=True, kw_only=True)
class ScheduleView:
    """The schedule of a plan.

    on_devices: the works that hold slots. assumed_seconds: kind of what was never computed here →
    what each is taken to need.
    """

    schedule: Schedule
    on_devices: Sequence[Work]
    assumed_seconds: dict[str, float]

    @classmethod
    def of(cls, nodes: Sequence[Node], planned: Sequence[Planned], slots: int) -> ScheduleView:
        """Raises `InputError` for an asset that needs more devices than there are slots."""
        works = works_of(nodes, planned)
        assumed = {work.key: work.seconds for work in works if not work.is_known}
        return cls(
            schedule=schedule(works, slots),
            on_devices=[work for work in works if work.devices],
            assumed_seconds={e.kind: assumed[e.asset] for e in planned if e.asset in assumed},
        )

    @property
    def is_known(self) -> bool:
        """Whether there is any estimate of what needs a device, if anything does."""
        return not self.on_devices or any(work.is_known for work in self.on_devices)

    @property
    def bottleneck(self) -> Work | None:
        """What takes longest in the longest chain."""
        path = self.schedule.critical_path if self.is_known else ()
        return max(path, key=lambda work: work.seconds, default=None)

    def print(self, console: Console | None = None) -> None:
        """How long it takes, what it comes to, what holds the rest up, what nobody knows."""
        console, found = console or Terminal(), self.schedule
        slots, chain = counted(found.slots, "slot"), found.critical_path
        if not (found.seconds or self.assumed_seconds):
            say(console, f"{slots}: nothing to compute")
        elif not self.is_known:
            needy = sum(work.devices > 0 for work in chain)
            say(
                console,
                f"{slots}: no estimate, because nothing that needs a device was computed here yet; "
                f"{counted(len(self.on_devices), 'asset')} need one, {needy} of them in the "
                "longest chain",
            )
        else:
            used = f", {found.utilisation:.0%} of their time used" if self.on_devices else ""
            say(console, f"{slots}: about {duration(found.seconds)}{used}")
            say(
                console,
                f"work on devices: {duration(found.work_seconds)}; longest chain: "
                f"{duration(found.critical_seconds)}, {counted(len(chain), 'asset')}",
            )
        if (longest := self.bottleneck) is not None:
            share = longest.seconds / found.critical_seconds
            say(
                console,
                f"held up most by {longest.key}: {duration(longest.seconds)}, {share:.0%} of the "
                "longest chain",
            )
        if self.assumed_seconds:
            say(console, f"never computed here: {self._assumed}")

    @property
    def _assumed(self) -> str:
        if not self.is_known:
            return ", ".join(self.assumed_seconds)
        kinds: dict[float, list[str]] = {}
        for kind, seconds in self.assumed_seconds.items():
            kinds.setdefault(seconds, []).append(kind)
        return "; ".join(
            f"{', '.join(named)} (taken as {f'{duration(s)} each' if s else 'no time'})"
            for s, named in kinds.items()
        )

    def as_data(self) -> dict[str, Any]:
        """The same as JSON data. Without any estimate, seconds and shares are null."""
        found, longest = self.schedule, self.bottleneck

        def known(number: float) -> float | None:
            return number if self.is_known else None

        bottleneck = longest and {
            "asset": longest.key,
            "seconds": longest.seconds,
            "share": longest.seconds / found.critical_seconds,
        }
        return {
            "slots": found.slots,
            "estimated_seconds": known(found.seconds),
            "work_seconds": known(found.work_seconds),
            "utilisation": known(found.utilisation),
            "critical_path": {
                "seconds": known(found.critical_seconds),
                "assets": [work.key for work in found.critical_path],
            },
            "bottleneck": bottleneck,
            "assumed_seconds": {kind: known(s) for kind, s in self.assumed_seconds.items()},
        }

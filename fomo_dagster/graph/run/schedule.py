"""Which of the assets that are ready starts first, and how long all of them take side by side.

Both follow from a plan's estimates. Assets hold as many slots as they need devices, and what needs
no device starts as soon as it is ready: cores, memory and disks are taken to be enough for that.
"""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.plan import Planned
from fomo_dagster.units import counted

UNIT = 1.0  # seconds of what needs a device, where nobody knows of anything that does


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run does for one asset.

    after: other works, all of which must have ended. yields_to: a work before which it never goes:
    of an evaluation, the last training of its experiment. is_known: whether `seconds` was measured
    rather than assumed.
    """

    key: str
    seconds: float
    devices: int = 0
    after: tuple[str, ...] = ()
    yields_to: str | None = None
    is_known: bool = True


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How works go on a number of slots.

    seconds: from the start of the first to the end of the last. work_seconds: what they hold slots
    for, all slots together. critical_path: the works that the longest chain has to wait for, in
    order; those that take no time are left out.
    """

    slots: int
    seconds: float
    work_seconds: float
    critical_path: tuple[Work, ...]
    starts: Mapping[str, float]

    @property
    def critical_seconds(self) -> float:
        """What no number of slots makes shorter."""
        return sum(work.seconds for work in self.critical_path)

    @property
    def utilisation(self) -> float:
        """The share of the slots' time that is used, from 0 to 1."""
        return self.work_seconds / (self.slots * self.seconds) if self.seconds else 0.0


def works_of(nodes: Sequence[Node], planned: Iterable[Planned]) -> list[Work]:
    """The works of a plan of `nodes`, in their order, so that each stands after those it waits for.

    What was never computed here takes as long as half of what needs a device does, or no time if it
    needs none.
    """
    entries = {entry.asset: entry for entry in planned}
    devices = {node.key: _devices(node) if entries[node.key].compute else 0 for node in nodes}
    measured = [
        entry.estimated_seconds
        for entry in entries.values()
        if devices[entry.asset] and entry.estimated_seconds is not None
    ]
    typical = statistics.median(measured) if measured else UNIT
    last_trainings = {
        node.experiment: (node.stage, node.key)
        for node in nodes
        if node.stage is not None and node.makes_weights and devices[node.key]
    }
    works = []
    for node in nodes:
        entry, yields_to = entries[node.key], None
        if node.experiment in last_trainings and node.stage is not None and not node.makes_weights:
            stage, key = last_trainings[node.experiment]
            yields_to = key if node.stage < stage else None
        seconds = entry.estimated_seconds
        assumed = typical if devices[node.key] else 0.0
        works.append(
            Work(
                key=node.key,
                seconds=assumed if seconds is None else seconds,
                devices=devices[node.key],
                after=tuple(
                    key for key in dict.fromkeys((*node.follows, *entry.made_by)) if key in entries
                ),
                yields_to=yields_to,
                is_known=seconds is not None,
            )
        )
    return works


def _devices(node: Node) -> int:
    return 0 if node.needs is None else node.needs.devices


def remaining_seconds(works: Sequence[Work]) -> dict[str, float]:
    """Key → seconds of the longest chain that begins with the work, its own included.

    works: as of `works_of`.
    """
    return {key: seconds for key, (seconds, _) in _longest_chains(works).items()}


def _longest_chains(works: Sequence[Work]) -> dict[str, tuple[float, str | None]]:
    """Key → seconds of the longest chain that begins with the work, and what comes next in it."""
    chains: dict[str, tuple[float, str | None]] = {}
    following: dict[str, tuple[float, str | None]] = {}
    for work in reversed(works):
        seconds, follower = following.get(work.key, (0.0, None))
        chains[work.key] = (work.seconds + seconds, follower)
        for key in work.after:
            if key not in following or following[key][0] <= chains[work.key][0]:
                following[key] = (chains[work.key][0], work.key)
    return chains


def priorities(works: Sequence[Work], slots: int) -> dict[str, float]:
    """Key → priority, each another one. Of works that are ready, the highest starts first.

    That is the longest remaining chain, so that chains start early and evaluations fill the gaps.
    Evaluations never go before trainings of their experiment. Of equals, the first in the plan goes
    first. On one slot no order is faster than another, and the plan's stays: stage by stage, and
    experiment by experiment.
    """
    order = list(works)
    if slots > 1:
        remaining = remaining_seconds(works)

        def rank(work: Work) -> tuple[float, bool]:
            seconds, other = remaining[work.key], work.yields_to
            if other is None or seconds < remaining[other]:
                return -seconds, False
            return -remaining[other], True

        order.sort(key=rank)
    return {work.key: float(len(order) - place) for place, work in enumerate(order)}


def priorities_of_all(nodes: Sequence[Node], slots: int) -> dict[str, float]:
    """As `priorities`, where nothing was planned: as if all of it were to be computed, and whatever
    needs a device took equally long."""
    everything = [
        Planned(
            asset=node.key, kind=node.kind, stage=node.stage, compute=(node.key,), hits=(),
            current=False, reasons=(), samples=None, estimated_seconds=None,
        )
        for node in nodes
    ]  # fmt: skip
    return priorities(works_of(nodes, everything), slots)


def schedule(works: Sequence[Work], slots: int) -> Schedule:
    """What happens if whatever is ready, and fits, starts by `priorities`.

    Raises `InputError` for a work that needs more devices than there are slots.
    """
    for work in works:
        if work.devices > slots:
            raise InputError(
                f"{work.key} needs {work.devices} devices at once (execution.processes), and this "
                f"is a schedule for {counted(slots, 'slot')}: allow as many, or lower "
                "execution.processes"
            )
    starts = _starts(works, slots)
    return Schedule(
        slots=slots,
        seconds=max((starts[work.key] + work.seconds for work in works), default=0.0),
        work_seconds=sum(work.seconds * work.devices for work in works),
        critical_path=_critical_path(works),
        starts=starts,
    )


def _starts(works: Sequence[Work], slots: int) -> dict[str, float]:
    priority, of_key = priorities(works, slots), {work.key: work for work in works}
    followers: defaultdict[str, list[str]] = defaultdict(list)
    for work in works:
        for key in work.after:
            followers[key].append(work.key)
    awaited = {work.key: len(work.after) for work in works}
    starts: dict[str, float] = {}
    running: list[tuple[float, str]] = []
    waiting: list[tuple[float, str]] = []  # for slots
    now, free = 0.0, slots

    def start(key: str) -> None:
        starts[key] = now
        heapq.heappush(running, (now + of_key[key].seconds, key))

    def is_ready(key: str) -> None:
        if of_key[key].devices:
            heapq.heappush(waiting, (-priority[key], key))
        else:
            start(key)

    for work in works:
        if not work.after:
            is_ready(work.key)
    while running or waiting:
        too_wide = []
        while waiting and free:
            place, key = heapq.heappop(waiting)
            if of_key[key].devices > free:
                too_wide.append((place, key))
            else:
                free -= of_key[key].devices
                start(key)
        for entry in too_wide:
            heapq.heappush(waiting, entry)
        now = running[0][0]
        while running and running[0][0] <= now:
            ended = heapq.heappop(running)[1]
            free += of_key[ended].devices
            for key in followers[ended]:
                awaited[key] -= 1
                if not awaited[key]:
                    is_ready(key)
    return starts


def _critical_path(works: Sequence[Work]) -> tuple[Work, ...]:
    chains, of_key = _longest_chains(works), {work.key: work for work in works}
    key = max(chains, key=lambda key: chains[key][0], default=None)
    path = []
    while key is not None:
        path.append(of_key[key])
        key = chains[key][1]
    return tuple(work for work in path if work.seconds)

"""What a graph is planned and materialised with: the context of its nodes, slots and launching."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fomo_dagster.errors import FomoError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.keys import step_of
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.clusters import Cluster, LocalCluster
from fomo_dagster.graph.run.devices import Claim
from fomo_dagster.graph.run.pending import Pending, Place
from fomo_dagster.home import Home
from fomo_dagster.progress import Callbacks, Channel
from fomo_dagster.stopping import Stop
from fomo_dagster.store.heads import Head

if TYPE_CHECKING:
    from fomo_dagster.distributed.process_group import ProcessGroup

_IS_MAKING = " is making "


def ignore_node(node: Node) -> None:
    """Tells nobody."""


def ignore_failure(asset: str, error: FomoError) -> None:
    """Tells nobody."""


def ignore_head(head: Head, seconds: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What work belongs to.

    id: for others to know. channel: how processes that are launched for work tell what they do;
    None: none can be. cluster: what computes. priorities: of assets that wait for the same devices,
    the greatest goes first. pending: the steps that may be about to want one. stop: how others ask
    this work to stop. begins: told of an asset whenever an artifact of it is about to be made.
    finished: told of each asset that was materialised, with the seconds that it took this time.
    failed: told of each that could not be.
    """

    id: str = ""
    channel: Channel | None = None
    cluster: Cluster = field(default_factory=LocalCluster)
    priorities: Mapping[str, float] = field(default_factory=dict)
    pending: Pending = field(default_factory=Pending)
    stop: Stop = field(default_factory=Stop)
    begins: Callable[[Node], None] = ignore_node
    finished: Callable[[Head, float], None] = ignore_head
    failed: Callable[[str, FomoError], None] = ignore_failure

    @cached_property
    def priorities_by_step(self) -> Mapping[str, float]:
        """The priorities, by the names of the assets' steps."""
        return {step_of(key): priority for key, priority in self.priorities.items()}


class RunContext(NodeContext):
    """One piece of work on a graph.

    graph: what exists and how it is declared. The others are as in `NodeContext`.
    """

    def __init__(
        self,
        graph: Graph,
        home: Home,
        *,
        callbacks: Callbacks | None = None,
        processes: int = 1,
        group: ProcessGroup | None = None,
        run: Run | None = None,
    ) -> None:
        super().__init__(
            home,
            graph.sources,
            graph.code_versions,
            callbacks=callbacks,
            processes=processes,
            group=group,
        )
        self.graph = graph
        self.run = run or Run()
        self._places: dict[str, Place] = {}

    def claim(self, node: Node) -> Claim:
        """A claim on the devices that making `node` takes.

        Who waits for a device may hold the lease of what it makes. So who holds a device must never
        wait for the making of something that takes one.
        """
        return Claim(
            node.needs or Needs(),
            self.run.cluster.lender(self.home.leases),
            f"process {os.getpid()}, which{_IS_MAKING}{node.key}{self._in_run}",
            self._waits_for_device,
            self._place_of(node),
        )

    def waits_for_maker(self, process: str) -> None:
        """As in `NodeContext`; nothing is left free meanwhile for what waits."""
        for place in self._places.values():
            place.leave()
        super().waits_for_maker(process)

    def _place_of(self, node: Node) -> Place:
        step = step_of(node.key)
        if step not in self._places:
            self._places[step] = Place(step, self.run.priorities_by_step, self.run.pending)
        return self._places[step]

    @property
    def _in_run(self) -> str:
        return f" in run {self.run.id.partition('-')[0]}" if self.run.id else ""

    def _waits_for_device(self, holders: Sequence[str]) -> None:
        self.callbacks.waiting(f"a device, taken by {'; '.join(map(self._named, holders))}")

    def _named(self, holder: str) -> str:
        """What the note of a claim says, to this run."""
        if not self._in_run or not holder.endswith(self._in_run):
            return holder
        return f"{holder.removesuffix(self._in_run).partition(_IS_MAKING)[2]} of this run"

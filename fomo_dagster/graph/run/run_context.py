"""What a graph is planned and materialised with: the context of its nodes, slots and launching."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fomo_dagster.graph.build.builder import Graph
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.node import Node
from fomo_dagster.home import Home
from fomo_dagster.progress import Callbacks, Channel
from fomo_dagster.store.heads import Head
from fomo_dagster.store.leases import slot

if TYPE_CHECKING:
    from fomo_dagster.distributed.process_group import ProcessGroup


def ignore_node(node: Node) -> None:
    """Tells nobody."""


def ignore_head(head: Head, seconds: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What work belongs to.

    id: for others to know. channel: how processes that are launched for work tell what they do;
    None: none can be. slots: how many trainings go on at once on this machine. begins: told of an
    asset whenever an artifact of it is about to be made. finished: told of each asset that was
    materialised, with the seconds that it took this time.
    """

    id: str = ""
    channel: Channel | None = None
    slots: int = 1
    begins: Callable[[Node], None] = ignore_node
    finished: Callable[[Head, float], None] = ignore_head


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

    def training_slot(self, node: Node) -> AbstractContextManager[bool]:
        """Holds one of this machine's slots for the training of `node`, as `leases.slot`.

        Who waits for a slot may hold the lease of what it makes. So who holds a slot must never
        wait for the making of something that takes one.
        """
        of_machine = re.sub(r"[^\w.-]", "_", socket.gethostname())
        folder = self.home.leases / "training_slots" / of_machine
        note = f"process {os.getpid()}, which is making {node.key}"
        if self.run.id:
            note += f" in run {self.run.id.partition('-')[0]}"
        paths = [folder / f"slot_{number}" for number in range(self.run.slots)]
        return slot(paths, note, self._waits_for_slot)

    def _waits_for_slot(self, holders: Sequence[str]) -> None:
        self.callbacks.waiting(f"a training slot, taken by {'; '.join(holders)}")

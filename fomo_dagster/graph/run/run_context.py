"""What a graph is planned and materialised with: the context of its nodes, slots and launching."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from fomo_dagster.graph.build.builder import Graph
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.facts import Facts, facts_of
from fomo_dagster.graph.core.node import Node
from fomo_dagster.home import Home
from fomo_dagster.progress import Channel, Progress, Steps, ignore_steps, no_progress
from fomo_dagster.store.heads import Head
from fomo_dagster.store.leases import slot

if TYPE_CHECKING:
    from fomo_dagster.distributed.process_group import ProcessGroup


class RunContext(NodeContext):
    """One piece of work on a graph.

    graph: what exists and how it is declared.
    finished: told of each asset that was materialised, with the seconds that it took this time.
    slots: how many trainings go on at once on this machine.
    run: the run that this work belongs to, for others to know.
    channel: how processes that are launched for work tell what they do; None: none can be.
    The others are as in `NodeContext`.
    """

    def __init__(
        self,
        graph: Graph,
        home: Home,
        *,
        processes: int = 1,
        progress: Progress = no_progress,
        waiting: Callable[[str], None] | None = None,
        finished: Callable[[Head, float], None] | None = None,
        warn: Callable[[str], None] | None = None,
        steps: Steps = ignore_steps,
        group: ProcessGroup | None = None,
        channel: Channel | None = None,
        slots: int = 1,
        run: str = "",
    ) -> None:
        super().__init__(
            home,
            graph.sources,
            graph.code_versions,
            processes=processes,
            progress=progress,
            waiting=waiting,
            warn=warn,
            steps=steps,
            group=group,
        )
        self.graph = graph
        self.finished = finished
        self.channel = channel
        self.slots = slots
        self.run = run

    def facts_for(self, node: Node) -> dict[str, Facts]:
        """The facts that a node's recipes are made from; see `facts` for what it raises."""
        keys = node.inputs
        if node.takes_what_is_there:
            heads = {key: self.heads.read(key) for key in keys}
            return {key: facts_of(head) for key, head in heads.items() if head}
        return {key: self.facts(key) for key in keys}

    def training_slot(self, node: Node) -> AbstractContextManager[bool]:
        """Holds one of this machine's slots for the training of `node`, as `leases.slot`.

        Who waits for one may hold the lease of what it makes; so who holds one must never wait for
        the making of what takes one.
        """
        of_machine = re.sub(r"[^\w.-]", "_", socket.gethostname())
        folder = self.home.leases / "training_slots" / of_machine
        note = f"process {os.getpid()}, which is making {node.key}"
        if self.run:
            note += f" in run {self.run.partition('-')[0]}"
        paths = [folder / f"slot_{number}" for number in range(self.slots)]
        return slot(paths, note, self._waits_for_slot)

    def _waits_for_slot(self, holders: Sequence[str]) -> None:
        if self._waiting is not None:
            self._waiting(f"a training slot, taken by {'; '.join(holders)}")

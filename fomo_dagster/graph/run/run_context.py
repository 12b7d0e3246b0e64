"""Where nodes are made: the home folder, the heads of what is there, and how work is executed."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from fomo_dagster.data.index import Index
from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.graph.core.node import ONLY, Facts, Node
from fomo_dagster.home import Home
from fomo_dagster.progress import Progress, Steps, ignore_steps, no_progress
from fomo_dagster.store.artifacts import Artifact, Make
from fomo_dagster.store.heads import Head
from fomo_dagster.store.leases import slot
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.texts import as_text

if TYPE_CHECKING:
    from fomo_dagster.distributed.process_group import ProcessGroup
    from fomo_dagster.graph.build.builder import Graph
    from fomo_dagster.graph.run.launching import Channel

T = TypeVar("T")

PLACED_SHARDS = "placed_shards.parquet"  # name and digest of tars that an index in place knows


class RunContext:
    """One piece of work on a graph. Sources are looked at once in its life.

    graph: what exists and how it is declared.
    processes: how many may share work that is parallel, such as sharding.
    group: the processes that train together, of which this is one; None: it is alone.
    finished: told of each asset that was materialised, with the seconds that it took this time.
    waiting: told what this process waits for.
    steps: told of the steps of trainings.
    slots: how many trainings go on at once on this machine.
    run: the run that this work belongs to, for others to know.
    channel: how processes that are launched for work tell what they do; None: none can be.
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
        self.graph = graph
        self.home = home
        self.store = home.store
        self.heads = home.heads
        self.processes = processes
        self.progress = progress
        self.slots = slots
        self.run = run
        self._waiting = waiting
        self.finished = finished
        self.warn = warn
        self.steps = steps
        self.channel = channel
        self._group = group
        self._observed: dict[str, Facts] = {}
        self._memory: tuple[object, Any] = (None, None)

    @property
    def group(self) -> ProcessGroup:
        """The processes that train together, of which this is one."""
        from fomo_dagster.distributed.process_group import SINGLE_PROCESS

        return self._group or SINGLE_PROCESS

    def facts_for(self, node: Node) -> dict[str, Facts]:
        """The facts that a node's recipes are made from; see `facts` for what it raises."""
        keys = node.inputs
        if node.takes_what_is_there:
            heads = {key: self.heads.read(key) for key in keys}
            return {
                key: Facts(head.data_version, head.facts) for key, head in heads.items() if head
            }
        return {key: self.facts(key) for key in keys}

    def facts(self, key: str) -> Facts:
        """The facts of an upstream asset as it is now: a fresh look at a source, or its head.

        Raises `InputError` where it was never materialised, or as something else than what is
        declared now: numbers are never made from what another declaration left behind.
        """
        if key in self.graph.sources:
            return self.observe(key)
        head = self._head(key)
        return Facts(head.data_version, head.facts)

    def observe(self, key: str) -> Facts:
        """Look at a source, once; what is to be said of it goes to `warn`."""
        if key not in self._observed:
            self._observed[key] = self.graph.sources[key].observe(self)
            self.say(self._observed[key].details.get("warnings", ()))
        return self._observed[key]

    def say(self, warnings: Iterable[str]) -> None:
        """Hand what a person should hear to `warn`, where there is one."""
        if self.warn is not None:
            for warning in warnings:
                self.warn(as_text(warning))

    def cached(self, what: object, build: Callable[[], T]) -> T:
        """`build()`, or its result where it was the last thing asked for, such as a model."""
        if self._memory[0] != what:
            self._memory = (None, None)
            self._memory = (what, build())
        result: T = self._memory[1]
        return result

    def artifact(self, key: str, name: str = ONLY) -> Artifact:
        """An upstream asset's artifact; raises where it is gone or was damaged since."""
        head = self.heads.read(key)
        if head is None:
            raise InputError(f"{key} was never materialised: materialise it first")
        if name not in head.artifacts:
            raise StoreError(f"{key} has no artifact {name!r}: {sorted(head.artifacts)}")
        kind, digest = head.artifacts[name]
        artifact = self.store.open(kind, digest)
        if artifact is None:
            raise StoreError(f"the artifact of {key} ({kind} {digest}) is gone: materialise {key}")
        return artifact

    def index(self, dataset: str) -> Index:
        """The index of a dataset's shards, which may lie where the dataset is declared to be."""
        artifact = self.artifact(f"shards/{dataset}")
        if PLACED_SHARDS not in artifact.manifest["files"]:
            return Index(artifact.folder)
        from fomo_dagster.data.webdataset.indexed import PlacedIndex

        digests = dict(pl.read_parquet(artifact.path(PLACED_SHARDS)).iter_rows())
        source = self.observe(f"sources/{dataset}").details["source"]
        return PlacedIndex(artifact.folder, source.places(digests))

    def indexes(self, datasets: Iterable[str]) -> dict[str, Index]:
        """The indexes of several datasets' shards, by dataset."""
        return {dataset: self.index(dataset) for dataset in sorted(datasets)}

    def get_or_make(
        self,
        recipe: Recipe,
        make: Make,
        claim: Callable[[], AbstractContextManager[bool]] | None = None,
    ) -> Artifact:
        """The artifact of a recipe; once it is safe, its training's resume point goes.

        claim: as in `Store.get_or_make`.
        """
        claim = claim or (lambda: nullcontext(False))
        artifact = self.store.get_or_make(recipe, make, self.waits_for_maker, claim)
        shutil.rmtree(self.resume_folder(recipe), ignore_errors=True)
        return artifact

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

    def waits_for_maker(self, process: str) -> None:
        """Tell that another process, by its number, is making what this one wants."""
        if self._waiting is not None:
            self._waiting(f"process {process}, which is making the same")

    def resume_folder(self, recipe: Recipe) -> Path:
        """Where a training keeps its resume point; it outlives the process."""
        return self.home.resume_points / recipe.digest

    def _head(self, key: str) -> Head:
        head = self.heads.read(key)
        if head is None:
            raise InputError(f"{key} was never materialised: materialise it first")
        if head.code_version != self.graph.code_versions[key]:
            raise InputError(
                f"{key} was last materialised under another declaration than the present one: "
                "materialise it first, or everything that is out of date together"
            )
        return head

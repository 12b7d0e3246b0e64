"""What nodes are made with: the home folder, the sources, the current heads, and how work reports
its progress."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.experiment.retention import restoring
from fomo_dagster.graph.core.facts import NOTHING, ONLY, Details, Facts, facts_of
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.home import Home
from fomo_dagster.paths import named
from fomo_dagster.progress import Callbacks, heeding
from fomo_dagster.store.artifacts import Artifact, Make
from fomo_dagster.store.heads import Head
from fomo_dagster.store.notes import note_of
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.resume_copies import ResumeCopies
from fomo_dagster.texts import as_text

if TYPE_CHECKING:
    from fomo_dagster.distributed.process_group import ProcessGroup

T = TypeVar("T")
Observed = TypeVar("Observed", bound="Observation")

_NEVER_MADE = "{} was never made: run its experiment (`fomo run`), or materialise it first"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The result of observing a source. Kinds of sources add to it by subclasses.

    warnings: sentences for the person whose source it is. details: what nodes are told about it.
    """

    data_version: str
    warnings: tuple[str, ...] = ()
    details: Details = NOTHING

    @property
    def shown(self) -> Mapping[str, Shown]:
        """What a person sees of it, by title."""
        return {}

    def of(self, kind: type[Observed]) -> Observed:
        """Itself, as the kind that its source brings."""
        if not isinstance(self, kind):
            raise TypeError(f"{self!r} is no {kind.__name__}")
        return self


@dataclass(frozen=True, kw_only=True)
class SourceNode:
    """Something outside that is only observed: a dataset's images, or a file of weights."""

    key: str
    observe: Callable[[NodeContext], Observation]


class NodeContext:
    """What a node may use while it is made. Sources are observed once in its life.

    sources: by key. code_versions: of every node, as it is declared now. callbacks: whom work
    reports to. processes: how many may share parallel work, such as sharding. group: the processes
    that train together, of which this is one; None: it is alone.
    """

    def __init__(
        self,
        home: Home,
        sources: Mapping[str, SourceNode],
        code_versions: Mapping[str, str],
        *,
        callbacks: Callbacks | None = None,
        processes: int = 1,
        group: ProcessGroup | None = None,
    ) -> None:
        self.home = home
        self.store = home.store
        self.heads = home.heads
        self.callbacks = heeding(callbacks or Callbacks())
        self.processes = processes
        self._sources = sources
        self._code_versions = code_versions
        self._group = group
        self._observed: dict[str, Observation] = {}
        self._memory: tuple[object, Any] = (None, None)
        self._answers: dict[Hashable, Any] = {}

    @property
    def group(self) -> ProcessGroup:
        """The processes that train together, of which this is one."""
        from fomo_dagster.distributed.process_group import SINGLE_PROCESS

        return self._group or SINGLE_PROCESS

    def facts(self, key: str) -> Facts:
        """The facts of an upstream asset as it is now: a fresh look at a source, or its head.

        Raises `InputError` if it was never materialised, or was materialised under another
        declaration: numbers are never made from what another declaration left behind.
        """
        if key in self._sources:
            observed = self.observe(key)
            return Facts(observed.data_version, observed.details)
        return facts_of(self._head(key))

    def facts_there(self, keys: Iterable[str]) -> dict[str, Facts]:
        """The facts of those of some assets that were ever materialised, as whatever they were."""
        heads = {key: self.heads.read(key) for key in keys}
        return {key: facts_of(head) for key, head in heads.items() if head}

    def observe(self, key: str) -> Observation:
        """Observe a source, once; what is to be said of it goes to `warn`."""
        if key not in self._observed:
            with named(key):
                self._observed[key] = self._sources[key].observe(self)
            self.say(self._observed[key].warnings)
        return self._observed[key]

    def say(self, warnings: Iterable[str]) -> None:
        """Report what the user should hear."""
        for warning in warnings:
            self.callbacks.warn(as_text(warning))

    def cached(self, what: object, build: Callable[[], T]) -> T:
        """`build()`, or its result where it was the last thing asked for, such as a model."""
        if self._memory[0] != what:
            self._memory = (None, None)
            self._memory = (what, build())
        result: T = self._memory[1]
        return result

    def once(self, what: Hashable, build: Callable[[], T]) -> T:
        """`build()`, or what it gave before: for small answers to what many nodes ask."""
        if what not in self._answers:
            self._answers[what] = build()
        result: T = self._answers[what]
        return result

    def artifact(self, key: str, name: str = ONLY) -> Artifact:
        """An upstream asset's artifact; raises if it is gone or was damaged since."""
        head = self.heads.read(key)
        if head is None:
            raise InputError(_NEVER_MADE.format(key))
        if name not in head.artifacts:
            raise StoreError(f"{key} has no artifact {name!r}: {sorted(head.artifacts)}")
        kind, digest = head.artifacts[name]
        artifact = self.store.open(kind, digest)
        if artifact is None:
            day = note_of(self.store.places.cleaned(kind, digest)).day
            if day is not None:
                raise StoreError(
                    f"the artifact of {key} ({kind} {digest}) was cleaned on {day}: "
                    f"{restoring(head.experiment or 'EXPERIMENT')} makes it again"
                )
            raise StoreError(
                f"the artifact of {key} ({kind} {digest}) is gone: `fomo run` of an experiment "
                "with it makes it again"
            )
        return artifact

    def get_or_make(
        self,
        recipe: Recipe,
        make: Make,
        claim: Callable[[], AbstractContextManager[bool]] | None = None,
        *,
        takes_long: bool = False,
    ) -> Artifact:
        """The artifact of a recipe. Once it is safe, its training's resume point is removed.

        claim, takes_long: as in `Store.get_or_make`.
        """
        claim = claim or (lambda: nullcontext(False))
        artifact = self.store.get_or_make(
            recipe, make, self.waits_for_maker, claim, takes_long=takes_long
        )
        shutil.rmtree(self.resume_folder(recipe), ignore_errors=True)
        return artifact

    def waits_for_maker(self, process: str) -> None:
        """Report that a process, by its number and its host, is making what this asset wants; where
        it is this one, another asset of the same run is."""
        maker = "another asset of this run" if process == str(os.getpid()) else f"process {process}"
        self.callbacks.waiting(f"{maker}, which is making the same")

    def resume_copies(self, recipe: Recipe) -> ResumeCopies | None:
        """Where a training keeps copies of its resume point for other machines; None where there is
        no remote."""
        remote = self.store.remote
        return remote.resume_copies(recipe.digest) if remote is not None else None

    def resume_folder(self, recipe: Recipe) -> Path:
        """Where a training keeps its resume point; it outlives the process."""
        return self.home.resume_points / recipe.digest

    def _head(self, key: str) -> Head:
        head = self.heads.read(key)
        if head is None:
            raise InputError(_NEVER_MADE.format(key))
        if head.code_version != self._code_versions[key]:
            raise InputError(
                f"{key} is out of date: its configuration changed. Run its experiment again "
                "(`fomo run`), or materialise everything that is out of date"
            )
        return head

"""The one resource that assets need: workshops on the engine's graph."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
from pydantic import Field

from fomo_dagster.graph.build import Graph
from fomo_dagster.graph.workshop import Workshop
from fomo_dagster.home import Home
from resources.pipes import PipesChannel

SECONDS_BETWEEN_LINES = 10.0


class WorkshopOpener(Protocol):
    """What assets need: Dagster's resource below, or a command that shows progress itself."""

    def open(self, graph: Graph, context: Any) -> Workshop:
        """A workshop on `graph`, for the step whose context it is."""


class Workshops(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens workshops. Nothing is read or written while Dagster loads it."""

    home: str = Field(description="The home folder, FOMO_HOME.")
    remote_store: str | None = Field(
        default=None, description="An fsspec URL that the artifact store mirrors, FOMO_STORE."
    )
    processes: int = Field(
        default_factory=lambda: os.cpu_count() or 1, description="Processes that write shards."
    )

    @classmethod
    def of(cls, home: Home) -> "Workshops":
        """The resource of a home."""
        return cls(home=str(home.root), remote_store=home.remote_url)

    def open(self, graph: Graph, context: Any) -> Workshop:
        """A workshop that tells its progress to the step's log."""
        log = context.log
        waiting: Callable[[str], None] = lambda holder: log.info(  # noqa: E731
            f"waiting for process {holder}, which is making the same artifact"
        )
        return Workshop(
            graph,
            Home(Path(self.home), self.remote_store),
            processes=self.processes,
            progress=_LoggedProgress(log),
            waiting=waiting,
            warn=log.warning,
            channel=PipesChannel(context),
        )


class _LoggedProgress:
    """Progress as a line in the log every few seconds."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self._log.info(f"{what}: {done} of {total}" + (f", {detail}" if detail else ""))

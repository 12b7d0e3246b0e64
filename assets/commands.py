"""What jobs need of the command line, which builds on the assets: reading a project anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fomo_dagster.graph.run.plan import Planned

if TYPE_CHECKING:
    import dagster as dg


class Run(Protocol):
    """Brings an experiment up to date in a run of its own, as `fomo run` does."""

    def __call__(
        self,
        name_or_path: str,
        overrides: Sequence[str],
        instance: dg.DagsterInstance,
        command: str = "",
    ) -> None:
        """command: what the run is said to come from; by default `fomo run`, as one types it."""


class Plan(Protocol):
    """Plans an experiment, as `fomo plan` does."""

    def __call__(self, name_or_path: str, overrides: Sequence[str]) -> Sequence[Planned]:
        """The assets in the order in which they would be made."""


@dataclass(frozen=True)
class Commands:
    """The commands that jobs run. Both take experiments and overrides as a person types them, and
    raise `FomoError` for what is wrong with them."""

    run: Run
    plan: Plan

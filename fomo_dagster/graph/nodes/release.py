"""The node of a release name: what is live, and what happened before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.graph.core.facts import ONLY, Facts, FactsByKey
from fomo_dagster.graph.core.keys import RELEASES, release_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Bullets, Shown
from fomo_dagster.releases.history import history_frame, licences_said
from fomo_dagster.releases.records import LIVE, History, ReleaseLog
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

NAME = "name.txt"
NO_WEIGHTS = "nothing"  # what an alias stands for that nothing has


@dataclass(frozen=True, kw_only=True)
class ReleaseNode(Node):
    """A name, for Dagster to show what happened to it.

    What happens is no function of anything, and stands in the records. So the artifact is the name
    alone, and what is shown is as of the last time that the asset was materialised: by a run with a
    candidate that changed, or by what moves the name. Its data version is of what each alias stands
    for then, by which Dagster knows when what follows one is out of date.
    """

    kind: ClassVar[str] = "release"
    group: ClassVar[str] = RELEASES
    name: str
    candidate_keys: tuple[str, ...]

    @classmethod
    def of(cls, name: str, candidate_keys: tuple[str, ...]) -> ReleaseNode:
        """candidate_keys: of all stages that may go live under the name."""
        return cls(key=release_key(name), name=name, candidate_keys=candidate_keys)

    @property
    def description(self) -> str:
        return f"What is live as {self.name}, and what happened before."

    @property
    def inputs(self) -> tuple[str, ...]:
        return ()

    @property
    def comes_after(self) -> tuple[str, ...]:
        return self.candidate_keys

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"name": self.name}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        return {ONLY: Recipe(self.kind, self.version, self.declared, {})}

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        (folder / NAME).write_text(self.name)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Any], context: NodeContext
    ) -> Facts:
        return Facts(version_of(ReleaseLog(context.home, self.name).read()))

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        return shown_of(ReleaseLog(context.home, self.name).read())


def version_of(history: History) -> str:
    """The data version of a name: the weights that are live, and those of all other aliases."""
    return digest_of({alias: weights_called(alias, history) for alias in (LIVE, *history.aliases)})


def weights_called(alias: str, history: History) -> str:
    """The data version of the weights that an alias stands for."""
    number = history.called(alias)
    candidate = None if number is None else history.release(number).candidate
    return NO_WEIGHTS if candidate is None else candidate.checkpoint


def shown_of(history: History) -> dict[str, Shown]:
    """What a person sees of a history, by title."""
    aliases = {alias: history.shown(number) for alias, number in history.aliases.items()}
    licences = tuple(licences_said(history))
    return {
        "live": history.live_shown,
        **aliases,
        **({"licences": Bullets(licences)} if licences else {}),
        "history": history_frame(history),
    }

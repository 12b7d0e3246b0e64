"""What a node of the graph is: an asset's identity and how it is made, without any orchestrator.

A node's identity is computed from its upstream nodes' *facts*. Materialising uses the facts of what
exists (heads); planning uses the facts of what would exist. Both go through `Node.settled`, so a
plan cannot disagree with a run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.facts import (
    Details,
    Facts,
    FactsByKey,
    declare_details,
    facts_of,
    identity,
)
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.settling import settled
from fomo_dagster.graph.core.shown import Check, Checked, Shown
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.files import skipped_where_refused
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.experiment.execution import Execution
    from fomo_dagster.experiment.gallery import LoadedGallery


@dataclass(frozen=True, kw_only=True)
class Node(ABC):
    """One asset. `key` is its asset key, parts joined by `/`."""

    kind: ClassVar[str]
    group: ClassVar[str] = ""
    """The group that it is shown in; empty: that of its experiment."""
    tools: ClassVar[frozenset[str]] = frozenset()
    """The formats and libraries that it is shown to be of."""
    input_changes: ClassVar[Mapping[str, str]] = {}
    """Role of an input → what a plan says where that input is another."""
    parameter_changes: ClassVar[Mapping[str, str]] = {}
    """Parameter of a recipe → the same, where its values would say nothing to a person."""
    makes_weights: ClassVar[bool] = False
    """Whether what making it took counts as the cost of an experiment's weights."""
    ends_experiment: ClassVar[bool] = False
    """Whether all that an experiment's scores are made of is made before it."""
    takes_what_is_there: ClassVar[bool] = False
    """Whether inputs that were never materialised are left out instead of refused."""
    fetched_by_plans: ClassVar[bool] = False
    """Whether a plan fetches it from a shared store, to know its content: small tables."""
    parallel_over_artifacts: ClassVar[bool] = False
    version: ClassVar[int] = 1
    """Raised when the component's numbers change; part of every recipe of the kind."""

    details: ClassVar[type[Details]] = Details
    """What it tells others beside its data version."""

    key: str
    experiment: str | None = None
    stage: int | None = None

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            declare_details(cls.kind, cls.details)

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Keys of the nodes whose facts decide this one's identity."""

    @property
    def comes_after(self) -> tuple[str, ...]:
        """Keys of nodes that are made before it where they are made at all, since what they do
        outside the graph may decide `outside_facts`."""
        return ()

    @property
    def is_made_in_pieces(self) -> bool:
        """Whether it is up to date only after it was materialised several times."""
        return False

    def is_settled(self, facts: FactsByKey, context: NodeContext) -> bool:
        """Whether what it comes after can no longer decide anything. facts: as of `recipes`."""
        return False

    @property
    def follows(self) -> tuple[str, ...]:
        """Keys of all that is made before it."""
        return tuple(dict.fromkeys((*self.inputs, *self.comes_after)))

    def input_facts(self, context: NodeContext) -> dict[str, Facts]:
        """The facts of the inputs, which its recipes are made from; raises as `context.facts`."""
        if self.takes_what_is_there:
            facts = context.facts_there(self.inputs)
        else:
            facts = {key: context.facts(key) for key in self.inputs}
        return facts | self.outside_facts(context)

    def outside_facts(self, context: NodeContext) -> dict[str, Facts]:
        """The facts of what decides its identity and is no asset, by keys that no asset has."""
        return {}

    @property
    @abstractmethod
    def declared(self) -> Mapping[str, Any]:
        """The declaration's part of this node's identity, for its code version."""

    @abstractmethod
    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        """Artifact name → recipe, given the facts of every key in `inputs`."""

    def settled(self, facts: FactsByKey, context: NodeContext) -> dict[str, Recipe]:
        """The recipes by which it is made here: `recipes`, or earlier ones that something is left
        of."""
        return {
            name: settled(recipe, self.key, name, context)
            for name, recipe in self.recipes(facts).items()
        }

    @abstractmethod
    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any] | None:
        """Write the artifact's files into `folder`; may return figures of what it cost."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What the asset is, in a sentence."""

    @property
    def parallelism(self) -> Execution | None:
        """How several processes make it, where they do: all of them one artifact together, or one
        artifact each where `parallel_over_artifacts`. None: the process that materialises it."""
        return None

    @property
    def galleries(self) -> tuple[LoadedGallery, ...]:
        """What it asks beside what its experiment declares; a process that makes it is told."""
        return ()

    @property
    def needs(self) -> Needs | None:
        """What making an artifact of it takes; None: so little that it is made at once, by whoever
        comes to it."""
        return None

    def needs_of(self, name: str) -> Needs | None:
        """What making one of its artifacts takes."""
        return self.needs

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        """The facts that making these recipes will give; exact unless images are unreadable."""
        return Facts(identity(recipes))

    def known(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts | None:
        """The facts of these very recipes, if they were made before and still exist."""
        head = context.heads.read(self.key)
        if head is not None and head.digest == identity(recipes):
            return facts_of(head)
        store = context.store
        find = store.find if self.fetched_by_plans else store.find_here
        artifacts = {}
        for name, recipe in recipes.items():
            artifact = None
            with skipped_where_refused():  # what is fetched needs a place
                artifact = find(recipe)
            if artifact is None:
                return None
            artifacts[name] = artifact
        return self.facts_of_made(recipes, artifacts, context)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        """The facts of what was made or found."""
        return self.predict(recipes, context)

    @property
    def table_names(self) -> tuple[str, ...]:
        """The tables that `tables` has rows for."""
        return ()

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        """(table, rows) that this asset contributes to the tables."""
        yield from ()

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        """What the user should hear before it is made, from the facts of its inputs."""
        yield from ()

    def warnings(self, artifacts: Mapping[str, Artifact]) -> Iterator[str]:
        """What the user should hear about what was made."""
        yield from ()

    def reason(self, role: str) -> str:
        """What a plan says if the input of this role changed."""
        return self.input_changes.get(role, f"{role} changed")

    @property
    def checks(self) -> tuple[Check, ...]:
        """The checks on what was made."""
        return ()

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        """The results of `checks`."""
        yield from ()

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        """What a person sees of what was made, by title."""
        return {}

    def follow_up(self, outcome: Outcome, context: NodeContext) -> Iterator[str]:
        """Do what is to be done once it is materialised, which must bear to be done again; gives
        what the user should hear of it."""
        yield from ()

    def is_followed_up(self, context: NodeContext) -> bool:
        """Whether that was done: a process may have been killed before. Asked of what is otherwise
        as it should be."""
        return True

    @property
    def stages_told(self) -> tuple[int, ...]:
        """The stages that `over_stages` has numbers of, in order; empty if it has none."""
        return ()

    def over_stages(
        self, outcome: Outcome, context: NodeContext
    ) -> Mapping[int, Mapping[str, float]]:
        """Stage → its numbers by name, to be drawn as one history, without those undefined."""
        return {}

    def samples(self, facts: FactsByKey) -> int | None:
        """Samples that making it works through, for estimates; None if there are none."""
        return None

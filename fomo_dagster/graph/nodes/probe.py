"""The node of θ₀'s scores on the datasets of a stream, which its order follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.facts import Details, FactsByKey
from fomo_dagster.graph.core.keys import MANIFESTS
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Check, Checked
from fomo_dagster.graph.nodes.evaluation import EvaluationDetails, EvaluationNode
from fomo_dagster.store.artifacts import Artifact

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, kw_only=True)
class ProbeNode(EvaluationNode):
    """θ₀ on a stream's datasets. If an experiment evaluates them at stage 0 with the same settings,
    the artifacts are the same. It states no rows: the experiment's stage 0 does."""

    kind: ClassVar[str] = "probe"
    details: ClassVar[type[Details]] = EvaluationDetails
    group: ClassVar[str] = MANIFESTS

    @property
    def description(self) -> str:
        return "θ₀'s scores on the stream's datasets, which the order follows."

    @property
    def table_names(self) -> tuple[str, ...]:
        return ()

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        yield from ()

    @property
    def checks(self) -> tuple[Check, ...]:
        return ()

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        yield from ()

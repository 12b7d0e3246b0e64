"""What the nodes of weights share: nothing downstream is made from weights that are not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Check, Checked
from fomo_dagster.graph.work.checkpoints import WEIGHTS

FINITE_WEIGHTS = Check("finite_weights", "No weight is infinite or not a number.", blocking=True)
NAMED_AT_MOST = 20


@dataclass(frozen=True, kw_only=True)
class WeightsNode(Node):
    """A node whose artifact has a file of weights."""

    @property
    def checks(self) -> tuple[Check, ...]:
        return (FINITE_WEIGHTS,)

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        from fomo_dagster.models.finite import not_finite

        bad = not_finite(outcome.artifacts[ONLY].path(WEIGHTS))
        details = {"not_finite": ", ".join(bad[:NAMED_AT_MOST]) or "none"}
        yield Checked(FINITE_WEIGHTS.name, not bad, "error", details)

"""The node of a budget in memory-adjusted FLOPs: what steps cost, and how many a stage has.

The number of steps identifies it. If a cost is counted differently later and gives the same steps,
nothing is trained again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.mixture import AnyMixture
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.experiment.weights_folder import described
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.work.budgets import MemoryAdjusted, budget_row, case_of, full_finetuning
from fomo_dagster.graph.work.counted_costs import parameters_of
from fomo_dagster.methods.declaration import Method
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.training.cost_case import CostCase

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

BUDGET = "budget.json"  # a row of the experiment's method, and one of full fine-tuning


@dataclass(frozen=True, kw_only=True)
class BudgetDetails(Details):
    """steps: of each stage."""

    steps: int


@dataclass(frozen=True, kw_only=True)
class BudgetNode(Node):
    """How many steps each stage of an experiment has."""

    kind: ClassVar[str] = "budget"
    details: ClassVar[type[Details]] = BudgetDetails
    tools: ClassVar[frozenset[str]] = frozenset({"pytorch"})
    fetched_by_plans: ClassVar[bool] = True  # all trainings depend on it

    total: float
    """Memory-adjusted GFLOPs of all stages."""
    stages: int
    architecture: Any
    settings: TrainingSettings
    method: Method
    mixture: AnyMixture
    selection: AnyOnlineSelection | None

    @property
    def description(self) -> str:
        return "What a step costs by count, and how many steps the budget gives each stage."

    @property
    def inputs(self) -> tuple[str, ...]:
        return ()

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"mafs": self.total, "stages": self.stages, **parameters_of(self._case)}

    @property
    def _case(self) -> CostCase:
        return case_of(
            self.architecture, self.settings, self.method, self.mixture, self.stages,
            self.selection,
        )  # fmt: skip

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        return {ONLY: Recipe(self.kind, self.version, self.declared)}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        """As it was counted before; otherwise it counts, which takes seconds and nothing from the
        store."""
        return self.known(recipes, context) or _facts(self._steps(context))

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        own, _ = json.loads(artifacts[ONLY].path(BUDGET).read_text())
        return _facts(own["steps_per_stage"])

    @property
    def needs(self) -> Needs:
        return Needs()

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        self._steps(context)  # raises where it buys none
        rows = []
        for label, case in (
            ("this experiment", self._case), ("full fine-tuning", full_finetuning(self._case))
        ):  # fmt: skip
            cost = MemoryAdjusted.of(case, context.home.cache)
            rows.append(budget_row(label, case, cost, self.total, self.stages))
        (folder / BUDGET).write_text(json.dumps(rows, indent=1))

    def _steps(self, context: NodeContext) -> int:
        cost = MemoryAdjusted.of(self._case, context.home.cache)
        return cost.steps(self.total, self.stages)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        import polars as pl

        rows = pl.DataFrame(json.loads(outcome.artifacts[ONLY].path(BUDGET).read_text()))
        own = rows.row(0, named=True)
        return {
            **{name: own[name] for name in ("steps_per_stage", "samples_per_stage")},
            **{name: round(own[name], 4) for name in ("gigaflops_per_step", "memory_multiplier")},
            "methods": rows[[c.name for c in rows if c.null_count() < rows.height]],
        }


def budget_of(experiment: Experiment, backbone: Backbone, stages: int) -> BudgetNode | None:
    """The node of an experiment whose budget is one of memory-adjusted FLOPs; None of others."""
    total = experiment.budget.mafs
    if total is None or stages == 0:
        return None
    return BudgetNode(
        key=f"{experiment.name}/budget",
        experiment=experiment.name,
        total=total,
        stages=stages,
        architecture=described(backbone).architecture,
        settings=experiment,
        method=experiment.method,
        mixture=experiment.mixture,
        selection=experiment.selection,
    )


def _facts(steps: int) -> Facts:
    return Facts(digest_of(["budget", steps]), BudgetDetails(steps=steps))

"""The node of a comparison: by how much methods differ at their last stages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.comparison import LoadedComparison
from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.keys import COMPARISONS
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Bullets, Shown
from fomo_dagster.graph.nodes.evaluation import EvaluationDetails
from fomo_dagster.graph.nodes.summaries.scores import ScoresNode
from fomo_dagster.home import Home
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.tables.members import Members, members_of

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.tables.comparisons import Compared

ROWS = {"comparisons": "comparisons.parquet", "comparison_pairs": "pairs.parquet"}  # by table
REMARKS = "remarks.json"


@dataclass(frozen=True, kw_only=True)
class OfComparison(Node):
    """What is made for a file of `comparisons/`."""

    group: ClassVar[str] = COMPARISONS
    loaded: LoadedComparison

    @property
    def experiments(self) -> tuple[str, ...]:
        """All that it is about."""
        return tuple(member.experiment.name for member in self.loaded.members)


@dataclass(frozen=True, kw_only=True)
class ComparisonNode(OfComparison):
    """Methods against a baseline, which is the first of them."""

    kind: ClassVar[str] = "comparison"
    # 1 gave no width to intervals of replicates that agree by chance; 2 took what rounding leaves
    # of equal scores for a difference, the first method's roles for those of all, and too little
    # width for few replicates.
    version: ClassVar[int] = 3
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "duckdb"})
    methods: Mapping[str, Members]
    evaluation_keys: Mapping[str, str]
    """Experiment → its last evaluation."""
    roles: Mapping[str, Mapping[str, str]]
    """Experiment → dataset → adaptation or held_out."""

    @classmethod
    def of(cls, loaded: LoadedComparison, scores: Mapping[str, ScoresNode]) -> ComparisonNode:
        """scores: of each experiment."""
        last = {name: len(node.evaluation_keys) - 1 for name, node in scores.items()}
        methods = {}
        for method, replicates in loaded.methods.items():
            rows = [scores[one.experiment.name].overview for one in replicates]
            methods[method] = {
                label: replace(member, stage=last[member.experiment])
                for label, member in members_of(method, rows).items()
            }
        return cls(
            key=f"{COMPARISONS}/{loaded.name}",
            loaded=loaded,
            methods=methods,
            evaluation_keys={name: node.evaluation_keys[-1] for name, node in scores.items()},
            roles={name: node.roles for name, node in scores.items()},
        )

    @property
    def description(self) -> str:
        baseline, *others = self.methods
        return f"{', '.join(others)} against {baseline}: differences of scores with intervals."

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.evaluation_keys.values())

    @property
    def declared(self) -> Mapping[str, Any]:
        metrics = self.loaded.declared.metrics
        roles = self.roles[next(iter(next(iter(self.methods.values())).values())).experiment]
        others = {name: own for name, own in self.roles.items() if own != roles}
        return {
            **({"metrics": metrics} if metrics else {}),
            **({"roles_of_others": others} if others else {}),
            "methods": [
                [
                    method,
                    [
                        {"replicate": label, "experiment": one.experiment, "stage": one.stage}
                        for label, one in members.items()
                    ],
                ]
                for method, members in self.methods.items()
            ],
            "roles": roles,
            "margin": self.loaded.declared.margin,
            "common": self.loaded.declared.common,
        }

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs = {
            name: facts[key].of(EvaluationDetails).evaluations
            for name, key in self.evaluation_keys.items()
        }
        return {ONLY: Recipe(self.kind, self.version, self.declared, inputs)}

    def reason(self, role: str) -> str:
        return "evaluations changed"

    def compared(self, home: Home) -> Compared:
        """What was predicted, compared. Raises `InputError` as `tables.comparisons.compared`."""
        from fomo_dagster.tables.comparisons import compared

        declared = self.loaded.declared
        return compared(
            home, self.methods, margin=declared.margin, common=declared.common,
            metrics=declared.metrics,
        )  # fmt: skip

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        found = self.compared(context.home)
        for frame, file in zip((found.rows, found.pair_rows), ROWS.values(), strict=True):
            frame.write_parquet(folder / file)
        (folder / REMARKS).write_text(json.dumps(found.remarks))

    @property
    def table_names(self) -> tuple[str, ...]:
        return tuple(ROWS)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        for table, file in ROWS.items():
            rows = read_parquet(artifacts[ONLY].path(file))
            yield table, rows.with_columns(comparison=pl.lit(self.loaded.name))

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        import polars as pl

        from fomo_dagster.tables.comparisons import shown_p

        def for_people(file: str) -> pl.DataFrame:
            rows = read_parquet(outcome.artifacts[ONLY].path(file))
            of_tests = [name for name in ("p", "corrected_p") if name in rows.columns]
            return rows.with_columns(  # two decimals would make nothing of them
                pl.col(of_tests).map_elements(shown_p, return_dtype=pl.String)
            )

        remarks = json.loads(outcome.artifacts[ONLY].path(REMARKS).read_text())
        return {
            "comparison": for_people(ROWS["comparisons"]),
            "all_pairs_over_datasets": for_people(ROWS["comparison_pairs"]),
            "remarks": Bullets(tuple(remarks)),
        }

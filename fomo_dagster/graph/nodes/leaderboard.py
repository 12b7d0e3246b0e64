"""The node of the leaderboard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.keys import LEADERBOARD
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Picture, Shown
from fomo_dagster.graph.nodes.summaries.scores import PATHS, SCORES, ScoresNode
from fomo_dagster.metrics import with_all_scores
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class LeaderboardNode(Node):
    """All experiments side by side, as far as each was scored."""

    kind: ClassVar[str] = "leaderboard"
    group: ClassVar[str] = LEADERBOARD
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "duckdb"})
    takes_what_is_there: ClassVar[bool] = True
    score_keys: tuple[str, ...]
    method_of: Mapping[str, str] = field(default_factory=dict)
    """Experiment → what it is a replicate of, for those that are one."""

    @classmethod
    def of(cls, experiments: Sequence[str], nodes: Iterable[Node]) -> LeaderboardNode:
        """nodes: of the graph, among them the scores of those experiments that can be used."""
        scores = [node for node in nodes if isinstance(node, ScoresNode)]
        method_of = {node.experiment: node.overview["replicate_of"] for node in scores}
        return cls(
            key=LEADERBOARD,
            score_keys=tuple(f"{name}/scores" for name in experiments),
            method_of={name: method for name, method in method_of.items() if name and method},
        )

    @property
    def description(self) -> str:
        return "All experiments side by side."

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.score_keys

    @property
    def declared(self) -> Mapping[str, Any]:
        return {}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs = {key: facts[key].data_version for key in self.score_keys if key in facts}
        return {ONLY: Recipe(self.kind, self.version, {}, inputs)}

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        import polars as pl

        from fomo_dagster.plots.scores import paths_plot

        scores = pl.concat(
            with_all_scores(read_parquet(context.artifact(key).path(SCORES))).with_columns(
                experiment=pl.lit(key.rpartition("/")[0])
            )
            for key in sorted(recipe.inputs)
        )
        record_path(folder, PATHS).write_bytes(paths_plot(self._by_method(scores)))
        scores.write_parquet(folder / SCORES)

    def _by_method(self, scores: pl.DataFrame) -> pl.DataFrame:
        """The means over replicates, with their intervals, as if each method were an experiment. A
        run of its name is from before it had replicates, and counts no more."""
        import polars as pl

        from fomo_dagster.tables.replicates import means_of

        earlier = set(self.method_of.values()) - set(self.method_of)
        rows = scores.filter(~pl.col("experiment").is_in(list(earlier))).with_columns(
            experiment=pl.col("experiment").replace(self.method_of)
        )
        return means_of(rows, "experiment", "stage").sort("experiment", "stage")

    def reason(self, role: str) -> str:
        return "scores changed"

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        from fomo_dagster.tables.replicates import methods
        from fomo_dagster.tables.results import results

        found = methods(context.home.root)
        replicated = found["replicates"].max() not in (None, 1)
        paths = Picture(outcome.artifacts[ONLY].record(PATHS))
        return {
            "knowledge_accumulation_against_zero_shot_retention": paths,
            "leaderboard": results(context.home.root).leaderboard,
            **({"means_over_replicates": found} if replicated else {}),
        }

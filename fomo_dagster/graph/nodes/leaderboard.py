"""The node of the leaderboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.keys import LEADERBOARD
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Picture, Shown
from fomo_dagster.graph.nodes.summaries.scores import PATHS, SCORES
from fomo_dagster.metrics import with_all_scores
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class LeaderboardNode(Node):
    """All experiments side by side, as far as each was scored."""

    kind: ClassVar[str] = "leaderboard"
    group: ClassVar[str] = LEADERBOARD
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "duckdb"})
    takes_what_is_there: ClassVar[bool] = True
    score_keys: tuple[str, ...]

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
        record_path(folder, PATHS).write_bytes(paths_plot(scores))
        scores.write_parquet(folder / SCORES)

    def reason(self, role: str) -> str:
        return "scores changed"

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        from fomo_dagster.tables.results import results

        paths = Picture(outcome.artifacts[ONLY].record(PATHS))
        return {
            "knowledge_accumulation_against_zero_shot_retention": paths,
            "leaderboard": results(context.home.root).leaderboard,
        }

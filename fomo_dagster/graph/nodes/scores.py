"""The node of an experiment's scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.evaluation import CONCEPTS, METRICS
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext

SCORES = "scores.parquet"
HEAT_MAP = "scores_by_dataset_and_stage.png"
PATHS = "knowledge_accumulation_against_zero_shot_retention.png"


@dataclass(frozen=True, kw_only=True)
class ScoresNode(Node):
    """KA, ZS, GM, backward transfer and forgetting of every stage."""

    kind: ClassVar[str] = "scores"
    evaluation_keys: tuple[str, ...]  # stages 0..T
    chunk_keys: tuple[str, ...]  # stages 1..T
    roles: Mapping[str, str]
    since: Mapping[str, int]  # dataset → first stage that is evaluated on it, if not stage 0

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.evaluation_keys, *self.chunk_keys)

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"roles": self.roles, **({"since": self.since} if self.since else {})}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs = {
            "evaluations": [facts[key].details["evaluations"] for key in self.evaluation_keys],
            "chunks": [facts[key].details["concepts"] for key in self.chunk_keys],
        }
        return {ONLY: Recipe(self.kind, self.version, self.declared, inputs)}

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        import polars as pl

        from fomo_dagster.evaluation.scores import stage_scores
        from fomo_dagster.plots.scores import heat_map, paths_plot

        def rows(file: str) -> pl.DataFrame:
            return pl.concat(
                pl.read_parquet(context.artifact(key, dataset).path(file)).with_columns(
                    stage=pl.lit(stage, pl.Int64),
                    dataset=pl.lit(dataset),
                    role=pl.lit(role),
                )
                for stage, key in enumerate(self.evaluation_keys)
                for dataset, role in self.roles.items()
                if stage >= self.since.get(dataset, 0)
            )

        chunks = pl.DataFrame(
            [
                (stage, dataset, concept)
                for stage, concepts in enumerate(recipe.inputs["chunks"], start=1)
                for dataset, concept in concepts
            ],
            schema={"stage": pl.Int64(), "dataset": pl.String(), "concept": pl.String()},
            orient="row",
        )
        metrics = rows(METRICS)
        scores = stage_scores(metrics, rows(CONCEPTS), chunks, self.since)
        record_path(folder, PATHS).write_bytes(paths_plot(scores))
        record_path(folder, HEAT_MAP).write_bytes(heat_map(metrics))
        scores.write_parquet(folder / SCORES)

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("scores",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        scores = pl.read_parquet(artifacts[ONLY].path(SCORES))
        with_name = scores.with_columns(experiment=pl.lit(self.experiment))
        yield "scores", with_name.select(*SCHEMAS["scores"])

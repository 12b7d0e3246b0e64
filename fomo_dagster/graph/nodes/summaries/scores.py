"""The node of an experiment's scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Check, Checked, Picture, Shown
from fomo_dagster.graph.nodes.chunk import ChunkDetails
from fomo_dagster.graph.nodes.evaluation import CONCEPTS, METRICS, EvaluationDetails, percentages
from fomo_dagster.graph.nodes.summaries.summary import Evaluated, Summary
from fomo_dagster.metrics import (
    STAGE_METRICS,
    ZERO_SHOT_RETENTION,
    with_all_scores,
)
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext

SCORES = "scores.parquet"
HEAT_MAP = "scores_by_dataset_and_stage.png"
PATHS = "knowledge_accumulation_against_zero_shot_retention.png"

RETENTION_HOLDS = Check(
    "zero_shot_retention_holds",
    "ZS falls by no more than the set share in any one stage.",
)


@dataclass(frozen=True, kw_only=True)
class ScoresNode(Summary):
    """KA, ZS, GM, backward transfer and forgetting of every stage."""

    kind: ClassVar[str] = "scores"
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "duckdb"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "evaluations": "evaluations changed",
        "chunks": "the stream's chunks changed",
    }
    ends_experiment: ClassVar[bool] = True
    evaluation_keys: tuple[str, ...]  # stages 0..T
    chunk_keys: tuple[str, ...]  # stages 1..T
    roles: Mapping[str, str]
    since: Mapping[str, int]  # dataset → first stage that is evaluated on it, if not stage 0
    retention_warning: float
    """The share of ZS that a stage may lose without a warning; it changes no number."""
    overview: Mapping[str, Any]
    """The experiment's row of the table `experiments`."""

    @classmethod
    def of(cls, evaluated: Evaluated) -> ScoresNode:
        experiment = evaluated.experiment
        return cls(
            key=f"{experiment.name}/scores",
            experiment=experiment.name,
            evaluation_keys=evaluated.evaluation_keys,
            chunk_keys=evaluated.chunk_keys,
            roles=evaluated.roles,
            since=evaluated.since,
            retention_warning=experiment.evaluation.retention_warning,
            overview={
                **evaluated.overview,
                "experiment": experiment.name,
                "stages": len(evaluated.chunk_keys),
            },
        )

    @property
    def description(self) -> str:
        return "Knowledge accumulation and zero-shot retention at every stage."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.evaluation_keys, *self.chunk_keys)

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"roles": self.roles, **({"since": self.since} if self.since else {})}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs = {
            "evaluations": [
                facts[key].of(EvaluationDetails).evaluations for key in self.evaluation_keys
            ],
            "chunks": [facts[key].of(ChunkDetails).concepts for key in self.chunk_keys],
        }
        added = [metric.name for metric in STAGE_METRICS if not metric.first]
        parameters = {**self.declared, **({"metrics": added} if added else {})}
        return {ONLY: Recipe(self.kind, self.version, parameters, inputs)}

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        import polars as pl

        from fomo_dagster.evaluation.scores import stage_scores
        from fomo_dagster.plots.scores import heat_map, paths_plot

        def rows(file: str) -> pl.DataFrame:
            return pl.concat(
                read_parquet(context.artifact(key, dataset).path(file)).with_columns(
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
        return ("scores", "experiments")

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        scores = with_all_scores(read_parquet(artifacts[ONLY].path(SCORES)))
        with_name = scores.with_columns(experiment=pl.lit(self.experiment))
        yield "scores", with_name.select(*SCHEMAS["scores"])
        yield "experiments", pl.DataFrame([self.overview], schema=dict(SCHEMAS["experiments"]))

    @property
    def checks(self) -> tuple[Check, ...]:
        return (RETENTION_HOLDS,)

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        import polars as pl

        scores = read_parquet(outcome.artifacts[ONLY].path(SCORES)).sort("stage")
        retention = pl.col(ZERO_SHOT_RETENTION.name)
        before = retention.shift(1)
        falls = scores.select(
            "stage",
            fall=pl.when(before > 0).then(1 - retention / before),  # from 0 there is no falling
        ).filter(pl.col("fall") > self.retention_warning)
        stages = ", ".join(f"stage {stage}: {fall:.1%}" for stage, fall in falls.rows())
        details = {"falls": stages or "none", "limit": self.retention_warning}
        yield Checked(RETENTION_HOLDS.name, falls.is_empty(), details=details)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        artifact = outcome.artifacts[ONLY]
        scores = with_all_scores(read_parquet(artifact.path(SCORES)))
        last = scores.row(-1, named=True)
        return {
            **percentages({name: value for name, value in last.items() if name != "stage"}),
            "knowledge_accumulation_against_zero_shot_retention": Picture(artifact.record(PATHS)),
            "scores_by_dataset_and_stage": Picture(artifact.record(HEAT_MAP)),
            "stages": scores,
        }

    @property
    def stages_told(self) -> tuple[int, ...]:
        return tuple(range(len(self.evaluation_keys)))

    def over_stages(
        self, outcome: Outcome, context: NodeContext
    ) -> Mapping[int, Mapping[str, float]]:
        rows = read_parquet(outcome.artifacts[ONLY].path(SCORES)).sort("stage").to_dicts()
        return {row.pop("stage"): percentages(row) for row in rows}

"""The nodes of pretraining pools: which samples of which datasets, and in which shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.dataset import PretrainingPool
from fomo_dagster.data.weighted_round_robin import whole_weights
from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.files import LISTING, LISTING_COLUMNS, MANIFEST, STREAMED
from fomo_dagster.graph.core.keys import MANIFESTS, shards_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.chunk import shown_of_manifest
from fomo_dagster.graph.nodes.details import SampleDetails, StreamedDetails
from fomo_dagster.graph.work.indexes import indexes_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class PoolDetails(Details):
    """datasets: those of the pool."""

    datasets: list[str]


@dataclass(frozen=True, kw_only=True)
class PoolNode(Node):
    """The manifest of a pretraining pool: the training splits of its datasets, and the shards of
    streamed ones.

    If the datasets have weights, these are the recipe's parameter `weights`; how shards are
    streamed is its parameter `streamed`.
    """

    kind: ClassVar[str] = "pool"
    details: ClassVar[type[Details]] = PoolDetails
    group: ClassVar[str] = MANIFESTS
    tools: ClassVar[frozenset[str]] = frozenset({"parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "datasets": "its datasets bring other samples",
    }
    pool: PretrainingPool
    prompts: Mapping[str, str]

    @property
    def description(self) -> str:
        return "The manifest of the pretraining pool."

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(shards_key(dataset) for dataset in self.pool.names)

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"datasets": self.pool.names, "prompts": self.prompts, **self._weights}

    @property
    def _weights(self) -> dict[str, Any]:
        weights = self.pool.weights
        return {} if weights is None else {"weights": whole_weights(weights)}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        brings = []
        parameters = self._weights
        for dataset in self.pool.names:
            details = facts[shards_key(dataset)].details
            if isinstance(details, StreamedDetails):
                parameters.setdefault("streamed", {})[dataset] = details.streamed
                brings.append([dataset, facts[shards_key(dataset)].data_version, None])
                continue
            details = facts[shards_key(dataset)].of(SampleDetails)
            if not details.train:
                raise InputError(
                    f"dataset {dataset!r} of pretraining pool {self.pool.name!r} has no training "
                    "samples: take it out of the pool"
                )
            text = self.prompts[dataset] if details.wordless else None
            brings.append([dataset, digest_of(details.train), text])
        return {ONLY: Recipe(self.kind, self.version, parameters, {"datasets": brings})}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        datasets = [dataset for dataset, _, _ in recipes[ONLY].inputs["datasets"]]
        return Facts(recipes[ONLY].digest, PoolDetails(datasets=datasets))

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        import polars as pl

        from fomo_dagster.streams.entries import format_entry
        from fomo_dagster.streams.manifests import TrainingSamples, chunk_manifest, with_prompts

        streamed = recipe.parameters.get("streamed", {})
        listed = [dataset for dataset in self.pool.names if dataset not in streamed]
        indexes = indexes_of(listed, context)
        samples = {name: TrainingSamples(name, i.sample_table) for name, i in indexes.items()}
        entries = [
            format_entry(dataset, concept)
            for dataset in listed
            for concept in context.facts(shards_key(dataset)).of(SampleDetails).train
        ]
        manifest = with_prompts(chunk_manifest(entries, samples), self.prompts)
        manifest.write_parquet(folder / MANIFEST)
        if streamed:
            listings = [
                read_parquet(context.artifact(shards_key(dataset)).path(LISTING)).select(
                    pl.lit(dataset).alias("dataset"), *LISTING_COLUMNS
                )
                for dataset in sorted(streamed)
            ]
            pl.concat(listings, how="vertical_relaxed").write_parquet(folder / STREAMED)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        """Samples are counted if they are known, which those of streamed datasets are not."""
        import polars as pl

        artifact = outcome.artifacts[ONLY]
        shown = shown_of_manifest(artifact)
        parameters = artifact.manifest["recipe"]["parameters"]
        if "streamed" in parameters:
            shards = read_parquet(artifact.path(STREAMED)).group_by("dataset").len("shards")
            shown["streamed"] = shards.sort("dataset")
        if "weights" in parameters:
            weights = parameters["weights"]
            total = sum(weights.values())
            shares = [(name, 100 * weight / total) for name, weight in weights.items()]
            shown["shares"] = pl.DataFrame(shares, schema=["dataset", "percent"], orient="row")
        return shown

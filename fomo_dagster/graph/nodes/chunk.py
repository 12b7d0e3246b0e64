"""The nodes of a stream's chunks, and how the stream is cut into them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.evaluation import Prompts, Waffle
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.core.keys import MANIFESTS, shards_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.order import OrderDetails, OrderNode
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext


class Chunks(ABC):
    """How a stream is cut into chunks: where the entries of each come from."""

    @abstractmethod
    def inputs(self, number: int) -> tuple[str, ...]:
        """Keys of the nodes that decide the entries of chunk `number`, counted from 1."""

    @abstractmethod
    def declared(self, number: int) -> Mapping[str, Any]:
        """The declaration's part of it."""

    @abstractmethod
    def datasets(self, number: int) -> tuple[str, ...]:
        """The datasets that the chunk may bring samples of."""

    @abstractmethod
    def entries(self, number: int, facts: FactsByKey) -> list[str]:
        """The entries of the chunk, in order. Raises `InputError` as `streams` does."""


@dataclass(frozen=True, kw_only=True)
class CutOrder(Chunks):
    """The contiguous parts of an order, which is cut once for all its chunks."""

    order: OrderNode
    _memory: dict[tuple[str, ...], list[list[str]]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def inputs(self, number: int) -> tuple[str, ...]:
        return (self.order.key, *self._shards)

    @property
    def _shards(self) -> tuple[str, ...]:
        return tuple(map(shards_key, self.order.listing.datasets))

    def declared(self, number: int) -> Mapping[str, Any]:
        stream = self.order.stream
        return {"stages": stream.stages, "cut": stream.cut, "positions": stream.positions}

    def datasets(self, number: int) -> tuple[str, ...]:
        return self.order.listing.datasets

    def entries(self, number: int, facts: FactsByKey) -> list[str]:
        version = facts[self.order.key].data_version
        by_samples = self.order.stream.cut == "samples"
        counted = [facts[key].data_version for key in self._shards] if by_samples else []
        key = (version, *counted)
        if key not in self._memory:
            self._memory[key] = self._cut(facts)
        return self._memory[key][number - 1]

    def _cut(self, facts: FactsByKey) -> list[list[str]]:
        from fomo_dagster.streams.chunks import cut, cut_at, cut_by_samples
        from fomo_dagster.streams.entries import parse_entry

        stream, entries = self.order.stream, facts[self.order.key].of(OrderDetails).entries
        if stream.positions is not None:
            return cut_at(entries, stream.positions)
        assert stream.stages is not None
        if stream.cut == "concepts":
            return cut(entries, stream.stages)
        counts = {d: facts[shards_key(d)].of(SampleDetails).train_samples for d in self.datasets(1)}
        samples = [counts[dataset][concept] for dataset, concept in map(parse_entry, entries)]
        return cut_by_samples(entries, samples, stream.stages)


@dataclass(frozen=True, kw_only=True)
class WholeDatasets(Chunks):
    """One chunk per dataset. A chunk depends on no other, so a dataset that joins changes no
    earlier chunk."""

    order: OrderNode

    def inputs(self, number: int) -> tuple[str, ...]:
        return (shards_key(self._dataset(number)),)

    def declared(self, number: int) -> Mapping[str, Any]:
        from fomo_dagster.streams.orderings import by_dataset

        listed = by_dataset(self.order.listing.entries or ()).get(self._dataset(number))
        stream = self.order.stream
        return {
            "dataset": self._dataset(number), "listed": listed, "order": stream.order,
            "seed": stream.seed, "reverse": stream.reverse,
        }  # fmt: skip

    def datasets(self, number: int) -> tuple[str, ...]:
        return (self._dataset(number),)

    def entries(self, number: int, facts: FactsByKey) -> list[str]:
        entries = self.order.ordered(self.order.listing.concepts(facts, self.datasets(number)))
        return entries[::-1] if self.order.stream.reverse else entries

    def _dataset(self, number: int) -> str:
        names = self.order.listing.datasets
        return names[-number] if self.order.stream.reverse else names[number - 1]


@dataclass(frozen=True, kw_only=True)
class ChunkDetails(Details):
    """concepts: [dataset, concept] of what the chunk brings, in order."""

    concepts: list[list[str]]


@dataclass(frozen=True, kw_only=True)
class ChunkNode(Node):
    """The manifest of what one chunk of a stream brings."""

    kind: ClassVar[str] = "chunk"
    details: ClassVar[type[Details]] = ChunkDetails
    group: ClassVar[str] = MANIFESTS
    tools: ClassVar[frozenset[str]] = frozenset({"parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "concepts": "it brings other concepts or samples",
    }
    stream: str
    number: int
    chunks: Chunks
    prompts: Mapping[str, str]  # of the datasets that the chunk may bring samples of
    texts: Prompts | None = None  # None: every sample's own captions
    worded: tuple[str, ...] = ()  # the datasets whose samples take `texts` in their place

    @property
    def description(self) -> str:
        return "The manifest of the samples that this chunk of the stream brings."

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.chunks.inputs(self.number)

    @property
    def declared(self) -> Mapping[str, Any]:
        declared = {
            **self.chunks.declared(self.number), "number": self.number, "prompts": self.prompts
        }  # fmt: skip
        return declared | ({} if self.texts is None else {"texts": self._texts})

    @property
    def _texts(self) -> Any:
        return self.texts.model_dump() if isinstance(self.texts, Waffle) else self.texts

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        from fomo_dagster.streams.entries import parse_entry

        awaited = [key for key in self.inputs if facts[key].awaited]
        if awaited:  # parameters that no chunk that was ever made has
            inputs = {key: facts[key].data_version for key in awaited}
            return {ONLY: Recipe(self.kind, self.version, {"awaits": self.number}, inputs)}
        brings = []
        for entry in self.chunks.entries(self.number, facts):
            dataset, concept = parse_entry(entry)
            details = facts[shards_key(dataset)].of(SampleDetails)
            text: Any = self.prompts[dataset] if concept in details.wordless else None
            if dataset in self.worded:
                text = [self._texts, self.prompts[dataset]]
            brings.append([dataset, concept, details.train[concept], text])
        return {ONLY: Recipe(self.kind, self.version, {}, {"concepts": brings})}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        brings = recipes[ONLY].inputs.get("concepts", [])
        details = ChunkDetails(concepts=[[d, c] for d, c, _, _ in brings])
        return Facts(recipes[ONLY].digest, details)

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        from fomo_dagster.evaluation.prompts import templates_of
        from fomo_dagster.streams.entries import format_entry
        from fomo_dagster.streams.manifests import (
            TrainingSamples,
            chunk_manifest,
            with_prompts,
            with_texts,
        )

        entries = [format_entry(d, c) for d, c, _, _ in recipe.inputs["concepts"]]
        # All chunks of a stream are made in one go, and draw from the same datasets.
        known: dict[tuple[str, Path], TrainingSamples]
        known = context.cached(("training samples", self.stream), dict)
        samples = {}
        for dataset in sorted({d for d, _, _, _ in recipe.inputs["concepts"]}):
            index = index_of(dataset, context)
            place = (dataset, index.folder)  # datasets of the same images share the folder
            if place not in known:
                known[place] = TrainingSamples(dataset, index.sample_table)
            samples[dataset] = known[place]
        manifest = with_prompts(chunk_manifest(entries, samples), self.prompts)
        if self.texts is not None:
            worded = [dataset for dataset in self.worded if dataset in samples]
            templates = {d: templates_of(self.texts, self.prompts[d]) for d in worded}
            manifest = with_texts(manifest, templates)
        manifest.write_parquet(folder / MANIFEST)

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("chunks",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        manifest = read_parquet(artifacts[ONLY].path(MANIFEST))
        rows = (
            manifest.group_by("dataset", "concept", maintain_order=True)
            .agg(samples=pl.len().cast(pl.Int64))
            .with_row_index("position", offset=1)
            .with_columns(
                stream=pl.lit(self.stream),
                stage=pl.lit(self.number, pl.Int64),
                position=pl.col("position").cast(pl.Int64),
            )
        )
        yield "chunks", rows.select(*SCHEMAS["chunks"])

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        return shown_of_manifest(outcome.artifacts[ONLY])


def shown_of_manifest(artifact: Artifact) -> dict[str, Shown]:
    """What a person sees of a MANIFEST: how many samples of which concepts."""

    manifest = read_parquet(artifact.path(MANIFEST))
    concepts = manifest.group_by("dataset", "concept", maintain_order=True).len("samples")
    return {"samples": manifest.height, "concepts": concepts.height, "brings": concepts}

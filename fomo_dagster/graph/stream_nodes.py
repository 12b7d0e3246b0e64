"""The nodes of streams: the order of the concepts, and the chunks that it is cut into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fomo_dagster.experiment.evaluation import Prompts, Waffle
from fomo_dagster.experiment.stream import Stream
from fomo_dagster.graph.data_nodes import MANIFEST, shards_key
from fomo_dagster.graph.node import ONLY, Facts, FactsByKey, Node
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.workshop import Workshop

ORDER = "order.parquet"  # position (from 1), dataset, concept, figure
ORDER_PLOT = "order.png"


def order_key(stream: str) -> str:
    """The asset key of a stream's order."""
    return f"streams/{stream}/order"


@dataclass(frozen=True)
class Listing:
    """What a stream is made of: whole datasets, or the entries that it lists of them."""

    datasets: tuple[str, ...]
    entries: tuple[str, ...] | None = None

    def concepts(self, facts: FactsByKey, datasets: Sequence[str]) -> list[str]:
        """The entries of some of its datasets, which have training samples all.

        Raises `InputError` for a listed one that does not exist, or stands twice.
        """
        from fomo_dagster.streams.entries import entries_of, parse_entry, validate

        known = {d: list(facts[shards_key(d)].details["train"]) for d in datasets}
        if self.entries is None:
            return entries_of(datasets, known)
        listed = [entry for entry in self.entries if parse_entry(entry)[0] in known]
        validate(listed, known)
        return listed


class Ordered(NamedTuple):
    """Concepts in order, the key figure of each, and the operations that it took, where any did."""

    entries: list[str]
    figures: list[float | None]
    cost: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class OrderNode(Node):
    """A stream's concepts in their order, which here follows from names and years alone.

    It is identified by its content: what comes out in the same order changes nothing that follows.
    """

    kind: ClassVar[str] = "order"
    figure_name: ClassVar[str | None] = None
    """What the key figure of a concept is; None where the order has none."""

    name: str
    stream: Stream
    listing: Listing
    years: Mapping[str, int] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(map(shards_key, self.listing.datasets))

    @property
    def declared(self) -> Mapping[str, Any]:
        return {
            "listed": self.listing.entries,
            "datasets": self.listing.datasets,
            **self._parameters,
        }

    @property
    def _parameters(self) -> dict[str, Any]:
        stream = self.stream
        parameters: dict[str, Any] = {"order": stream.order, "reverse": stream.reverse}
        if stream.order != "as_listed":
            parameters["seed"] = stream.seed
        if stream.order == "time_incremental":
            parameters["interleaved"] = stream.interleaved
            parameters["years"] = self.years
        return parameters

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        entries = self.listing.concepts(facts, self.listing.datasets)
        self._check_cut(len(entries))
        inputs = {"concepts": entries, **self._figure_inputs(facts)}
        return {ONLY: Recipe(self.kind, self.version, self._parameters, inputs)}

    def _check_cut(self, concepts: int) -> None:
        """What cannot be cut is refused before anything is measured."""
        from fomo_dagster.streams.chunks import check_positions, check_stages

        if self.stream.positions is not None:
            check_positions(concepts, self.stream.positions)
        elif self.stream.stages is not None:
            check_stages(concepts, self.stream.stages)

    def _figure_inputs(self, facts: FactsByKey) -> dict[str, Any]:
        """Role → digest of what the key figures come from."""
        return {}

    def ordered(self, entries: Sequence[str]) -> list[str]:
        """The entries in order, before any reversal. Raises `InputError` as `orderings` does."""
        from fomo_dagster.streams import orderings

        stream = self.stream
        if stream.order == "random":
            return orderings.random(entries, stream.seed)
        if stream.order == "dataset_incremental":
            return orderings.dataset_incremental(entries, stream.seed)
        if stream.order == "time_incremental":
            return orderings.time_incremental(
                entries, self.years, stream.seed, interleaved=stream.interleaved
            )
        return orderings.as_listed(entries)

    def figures(self, entries: Sequence[str], workshop: Workshop) -> Ordered:
        """The entries in order, before any reversal."""
        ordered = self.ordered(entries)
        if self.stream.order != "time_incremental":
            return Ordered(ordered, [None] * len(ordered))
        from fomo_dagster.streams.entries import parse_entry

        return Ordered(ordered, [float(self.years[parse_entry(entry)[0]]) for entry in ordered])

    def predict(self, recipes: Mapping[str, Recipe], workshop: Workshop) -> Facts:
        entries = self.ordered(recipes[ONLY].inputs["concepts"])
        return _facts_of_order(entries[::-1] if self.stream.reverse else entries)

    def observe(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], workshop: Workshop
    ) -> Facts:
        import polars as pl

        from fomo_dagster.streams.entries import format_entry

        rows = pl.read_parquet(artifacts[ONLY].path(ORDER)).select("dataset", "concept").rows()
        return _facts_of_order([format_entry(dataset, concept) for dataset, concept in rows])

    def make(
        self, name: str, recipe: Recipe, folder: Path, workshop: Workshop
    ) -> Mapping[str, int]:
        import polars as pl

        from fomo_dagster.plots.stream import stream_plot
        from fomo_dagster.streams.entries import parse_entry

        entries, figures, cost = self.figures(recipe.inputs["concepts"], workshop)
        if self.stream.reverse:
            entries, figures = entries[::-1], self._reversed(figures)
        names = [parse_entry(entry) for entry in entries]
        order = pl.DataFrame(
            {
                "position": range(1, len(entries) + 1),
                "dataset": [dataset for dataset, _ in names],
                "concept": [concept for _, concept in names],
                "figure": figures,
            },
            schema_overrides={"position": pl.Int64, "figure": pl.Float64},
        )
        order.write_parquet(folder / ORDER)
        (folder / ORDER_PLOT).write_bytes(stream_plot(order, self.shown_name))
        return cost

    @property
    def shown_name(self) -> str | None:
        """What the figure of a concept is, for people; None where the order has none."""
        return "year" if self.stream.order == "time_incremental" else self.figure_name

    def _reversed(self, figures: list[float | None]) -> list[float | None]:
        """The figures of the reversed order; a concept keeps its own."""
        return figures[::-1]

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("orders",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        order = pl.read_parquet(artifacts[ONLY].path(ORDER))
        yield "orders", order.with_columns(stream=pl.lit(self.name)).select(*SCHEMAS["orders"])


def _facts_of_order(entries: list[str]) -> Facts:
    return Facts(digest_of(["stream", entries]), {"entries": entries})


class Chunks(ABC):
    """How a stream falls into chunks: where each one's entries come from."""

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
    """The contiguous parts of an order; it is cut once for all its chunks."""

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

        stream, entries = self.order.stream, facts[self.order.key].details["entries"]
        if stream.positions is not None:
            return cut_at(entries, stream.positions)
        assert stream.stages is not None
        if stream.cut == "concepts":
            return cut(entries, stream.stages)
        counts = {d: facts[shards_key(d)].details["train_samples"] for d in self.datasets(1)}
        samples = [counts[dataset][concept] for dataset, concept in map(parse_entry, entries)]
        return cut_by_samples(entries, samples, stream.stages)


@dataclass(frozen=True, kw_only=True)
class WholeDatasets(Chunks):
    """A chunk a dataset, which depends on no other: one that joins changes no earlier chunk."""

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
class ChunkNode(Node):
    """The manifest of what one chunk of a stream brings."""

    kind: ClassVar[str] = "chunk"
    stream: str
    number: int
    chunks: Chunks
    prompts: Mapping[str, str]  # of the datasets that the chunk may bring samples of
    texts: Prompts | None = None  # None: every sample's own captions
    worded: tuple[str, ...] = ()  # the datasets whose samples take `texts` in their place

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
            details = facts[shards_key(dataset)].details
            text: Any = self.prompts[dataset] if concept in details["wordless"] else None
            if dataset in self.worded:
                text = [self._texts, self.prompts[dataset]]
            brings.append([dataset, concept, details["train"][concept], text])
        return {ONLY: Recipe(self.kind, self.version, {}, {"concepts": brings})}

    def predict(self, recipes: Mapping[str, Recipe], workshop: Workshop) -> Facts:
        brings = recipes[ONLY].inputs.get("concepts", [])
        return Facts(recipes[ONLY].digest, {"concepts": [[d, c] for d, c, _, _ in brings]})

    def make(self, name: str, recipe: Recipe, folder: Path, workshop: Workshop) -> None:
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
        known: dict[Path, TrainingSamples]
        known = workshop.remembered(("training samples", self.stream), dict)
        samples = {}
        for dataset in sorted({d for d, _, _, _ in recipe.inputs["concepts"]}):
            index = workshop.index(dataset)
            if index.folder not in known:
                known[index.folder] = TrainingSamples(dataset, index.sample_table)
            samples[dataset] = known[index.folder]
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

        manifest = pl.read_parquet(artifacts[ONLY].path(MANIFEST))
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

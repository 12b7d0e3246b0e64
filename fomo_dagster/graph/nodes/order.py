"""The node of a stream's order: its concepts, one after another. Orders that measure something
first are in `measured_orders.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.stream import Stream
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.keys import MANIFESTS, shards_key, stream_of
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Check, Checked, Picture, Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext

ORDER = "order.parquet"  # position (from 1), dataset, concept, figure
ORDER_PLOT = "order.png"
NAMED_AT_MOST = 5  # datasets that one remark names
AS_IN_THE_BENCHMARK = Check(
    "as_in_the_benchmark",
    "If the benchmark's release ships an order of this kind, the stream follows that one.",
)


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

        known = {d: list(facts[shards_key(d)].of(SampleDetails).train) for d in datasets}
        if self.entries is None:
            return entries_of(datasets, known)
        listed = [entry for entry in self.entries if parse_entry(entry)[0] in known]
        validate(listed, known)
        return listed


class Ordered(NamedTuple):
    """Concepts in order, each one's key figure, and the operations that it took, if any."""

    entries: list[str]
    sort_keys: list[float | None]
    cost: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class OrderDetails(Details):
    """entries: of the stream, in order."""

    entries: list[str]


@dataclass(frozen=True, kw_only=True)
class OrderNode(Node):
    """A stream's concepts in their order, which here follows from names and years alone.

    It is identified by its content: if the same order comes out, nothing that follows changes.
    """

    kind: ClassVar[str] = "order"
    details: ClassVar[type[Details]] = OrderDetails
    group: ClassVar[str] = MANIFESTS
    tools: ClassVar[frozenset[str]] = frozenset({"parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "concepts": "the stream has other concepts",
        "accuracies": "θ₀ has other accuracies",
        "pool": "the pretraining pool brings other captions or samples",
        "checkpoint": "the weights are others",
    }
    figure_name: ClassVar[str | None] = None
    """What the key figure of a concept is; None if the order has none."""

    stream: Stream
    listing: Listing
    years: Mapping[str, int] = field(default_factory=dict)
    of_benchmark: tuple[str, ...] = ()
    """Those of its datasets that the benchmark's released streams order, too."""

    @property
    def description(self) -> str:
        return "The stream's concepts in the order in which they arrive."

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
        if stream.turned:
            parameters["direction"] = stream.direction
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

        try:
            if self.stream.positions is not None:
                check_positions(concepts, self.stream.positions)
            elif self.stream.stages is not None:
                check_stages(concepts, self.stream.stages)
        except InputError as error:
            raise InputError(f"{self.key}: {error}") from error

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
                entries, self.years, stream.seed, interleaved=stream.interleaved,
                newest_first=stream.turned,
            )  # fmt: skip
        return orderings.as_listed(entries)

    def sort_keys(self, entries: Sequence[str], context: NodeContext) -> Ordered:
        """The entries in order, before any reversal."""
        ordered = self.ordered(entries)
        if self.stream.order != "time_incremental":
            return Ordered(ordered, [None] * len(ordered))
        from fomo_dagster.streams.entries import parse_entry

        return Ordered(ordered, [float(self.years[parse_entry(entry)[0]]) for entry in ordered])

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        entries = self.ordered(recipes[ONLY].inputs["concepts"])
        return _facts_of_order(entries[::-1] if self.stream.reverse else entries)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        from fomo_dagster.streams.entries import format_entry

        rows = read_parquet(artifacts[ONLY].path(ORDER)).select("dataset", "concept").rows()
        return _facts_of_order([format_entry(dataset, concept) for dataset, concept in rows])

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, int]:
        import polars as pl

        from fomo_dagster.plots.stream import stream_plot
        from fomo_dagster.streams.entries import parse_entry

        entries, sort_keys, cost = self.sort_keys(recipe.inputs["concepts"], context)
        if self.stream.reverse:
            entries, sort_keys = entries[::-1], self._reversed(sort_keys)
        names = [parse_entry(entry) for entry in entries]
        order = pl.DataFrame(
            {
                "position": range(1, len(entries) + 1),
                "dataset": [dataset for dataset, _ in names],
                "concept": [concept for _, concept in names],
                "figure": sort_keys,
            },
            schema_overrides={"position": pl.Int64, "figure": pl.Float64},
        )
        order.write_parquet(folder / ORDER)
        record_path(folder, ORDER_PLOT).write_bytes(stream_plot(order, self.shown_name))
        return cost

    @property
    def shown_name(self) -> str | None:
        """What the figure of a concept is, for people; None if the order has none."""
        return "year" if self.stream.order == "time_incremental" else self.figure_name

    def _reversed(self, sort_keys: list[float | None]) -> list[float | None]:
        """The figures of the reversed order; a concept keeps its own."""
        return sort_keys[::-1]

    @property
    def not_as_released(self) -> str | None:
        """A sentence that the benchmark's release ships an order of this kind but this one is
        computed; None if it ships none, or has none of these datasets."""
        from fomo_dagster.data.benchmark.streams import FOLDER, released_files

        stream = self.stream
        files = released_files(stream.order, interleaved=stream.interleaved)
        if files is None or not self.of_benchmark:
            return None
        named = ", ".join(self.of_benchmark[:NAMED_AT_MOST])
        more = ", …" if len(self.of_benchmark) > NAMED_AT_MOST else ""
        return (
            f"{self.key}: order: {stream.order} is computed here and is not the benchmark's order "
            f"of its datasets ({named}{more}), which the release ships as {files}: to compare with "
            f"its results, name such a file of {FOLDER} as stream.file"
        )

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        if self.not_as_released is not None:
            yield self.not_as_released

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("orders",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        order = read_parquet(artifacts[ONLY].path(ORDER))
        yield (
            "orders",
            order.with_columns(stream=pl.lit(stream_of(self.key))).select(*SCHEMAS["orders"]),
        )

    @property
    def checks(self) -> tuple[Check, ...]:
        return () if self.not_as_released is None else (AS_IN_THE_BENCHMARK,)

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        if self.not_as_released is not None:
            details = {"differences": self.not_as_released}
            yield Checked(AS_IN_THE_BENCHMARK.name, passed=False, details=details)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        artifact, figure = outcome.artifacts[ONLY], self.shown_name
        order = read_parquet(artifact.path(ORDER))
        return {
            "datasets_by_position_in_the_stream": Picture(artifact.record(ORDER_PLOT)),
            "concepts": order.height,
            "datasets": order["dataset"].n_unique(),
            **({} if figure is None else {"figure": figure}),
            "order": order if figure is not None else order.drop("figure"),
        }


def _facts_of_order(entries: list[str]) -> Facts:
    return Facts(digest_of(["stream", entries]), OrderDetails(entries=entries))

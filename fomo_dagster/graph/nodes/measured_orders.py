"""Orders that measure something first: θ₀'s scores, its text embeddings, or a pool's captions.

Their content is known once they were made, or from the store. A plan before that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.core.facts import Facts, FactsByKey, identity
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import CONCEPTS, EvaluationDetails
from fomo_dagster.graph.nodes.order import Ordered, OrderNode
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class MeasuredOrder(OrderNode):
    """What such orders share: their content is predicted if it was made before."""

    fetched_by_plans: ClassVar[bool] = True  # all the rest depends on it

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        known = self.known(recipes, context)
        return known or Facts(identity(recipes), awaited=self.key)


@dataclass(frozen=True, kw_only=True)
class PerformanceOrder(MeasuredOrder):
    """By θ₀'s zero-shot score of each concept: accuracy, or recall@5 for retrieval; easy first
    unless the stream's direction says otherwise.

    Concepts without test samples have no score and come last.
    """

    figure_name: ClassVar[str | None] = "zero-shot score of θ₀ (%)"
    probe_key: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*super().inputs, self.probe_key)

    def _figure_inputs(self, facts: FactsByKey) -> dict[str, Any]:
        return {"accuracies": facts[self.probe_key].of(EvaluationDetails).evaluations}

    def sort_keys(self, entries: Sequence[str], context: NodeContext) -> Ordered:
        from fomo_dagster.streams.entries import format_entry
        from fomo_dagster.streams.orderings import by_sort_key

        scores: dict[str, float | None] = {}
        for dataset in self.listing.datasets:
            concepts = read_parquet(context.artifact(self.probe_key, dataset).path(CONCEPTS))
            for concept, value in concepts.select("concept", "value").rows():
                scores[format_entry(dataset, concept)] = value
        easy_first = not self.stream.turned
        ordered = by_sort_key(entries, scores, self.stream.seed, greatest_first=easy_first)
        return Ordered(ordered, [scores.get(entry) for entry in ordered])


@dataclass(frozen=True, kw_only=True)
class FrequencyOrder(MeasuredOrder):
    """By how many captions of a pretraining pool name the concept; rare ones first unless the
    stream's direction says otherwise."""

    version: ClassVar[int] = 2  # 1 began with the frequent ones
    figure_name: ClassVar[str | None] = "captions of the pretraining pool"
    pool_key: str
    execution: Execution

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*super().inputs, self.pool_key)

    @property
    def needs(self) -> Needs:
        return Needs()

    def _figure_inputs(self, facts: FactsByKey) -> dict[str, Any]:
        return {"pool": facts[self.pool_key].data_version}

    def sort_keys(self, entries: Sequence[str], context: NodeContext) -> Ordered:
        from fomo_dagster.graph.work.opened_pools import pool_captions
        from fomo_dagster.streams.entries import parse_entry
        from fomo_dagster.streams.frequency import count_captions
        from fomo_dagster.streams.orderings import by_sort_key

        names = {entry: parse_entry(entry)[1] for entry in entries}
        captions = pool_captions(self.pool_key, context, self.execution)
        counts = count_captions(names.values(), captions)
        sort_keys = {entry: float(counts[name]) for entry, name in names.items()}
        frequent_first = self.stream.turned
        ordered = by_sort_key(entries, sort_keys, self.stream.seed, greatest_first=frequent_first)
        return Ordered(ordered, [sort_keys[entry] for entry in ordered])


@dataclass(frozen=True, kw_only=True)
class SimilarityOrder(MeasuredOrder):
    """Always to the concept left whose prompt θ₀ embeds nearest; see `streams/similarity.py`."""

    figure_name: ClassVar[str | None] = "similarity to the one before"
    checkpoint_key: str
    backbone: Backbone
    execution: Execution
    precision: str
    prompts: Mapping[str, str]

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*super().inputs, self.checkpoint_key)

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    @property
    def _parameters(self) -> dict[str, Any]:
        return {
            **super()._parameters,
            "starts": self.stream.starts,
            "prompts": self.prompts,
            "precision": self.precision,
        }

    def _figure_inputs(self, facts: FactsByKey) -> dict[str, Any]:
        return {"checkpoint": facts[self.checkpoint_key].data_version}

    def sort_keys(self, entries: Sequence[str], context: NodeContext) -> Ordered:
        import numpy as np

        from fomo_dagster.streams.orderings import random
        from fomo_dagster.streams.similarity import most_similar_path

        by_entry, flops = self._embeddings(context)
        names = sorted(entries)  # so that no listing decides between equals
        place = {entry: number for number, entry in enumerate(names)}
        starts = [place[entry] for entry in random(names, self.stream.seed)[: self.stream.starts]]
        embeddings = np.stack([by_entry[entry] for entry in names]).astype(np.float32, copy=False)
        path = most_similar_path(embeddings, starts)
        ordered = [names[number] for number in path.places]
        return Ordered(ordered, [None, *path.similarities], flops)

    def _embeddings(self, context: NodeContext) -> tuple[dict[str, Any], Mapping[str, int]]:
        """Entry → θ₀'s embedding of its prompt, for all concepts of the stream's datasets; and what
        they cost."""
        from fomo_dagster.evaluation.prompts import class_texts
        from fomo_dagster.graph.work.text_embeddings import text_embeddings
        from fomo_dagster.streams.entries import format_entry

        checkpoint = context.artifact(self.checkpoint_key)
        encoder = partial(
            encoder_of, self.backbone, checkpoint, self.precision, self.execution, context
        )
        embeddings: dict[str, Any] = {}
        flops: Counter[str] = Counter()
        for dataset, prompt in self.prompts.items():
            # All classes, as an evaluation of the dataset has them, so that it shares the artifact.
            concepts = context.facts(shards_key(dataset)).of(SampleDetails).concepts
            rows, of_texts = text_embeddings(
                class_texts(concepts, (prompt,)), 1, checkpoint=checkpoint,
                precision=self.precision, encoder=encoder, context=context,
            )  # fmt: skip
            flops.update(of_texts)
            for concept, row in zip(concepts, rows.numpy(), strict=True):
                embeddings[format_entry(dataset, concept)] = row
        return embeddings, flops

    def _reversed(self, sort_keys: list[float | None]) -> list[float | None]:
        """The similarity to the one before is a step's, and the steps go the other way."""
        return [None, *sort_keys[:0:-1]]

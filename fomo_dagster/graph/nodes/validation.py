"""Validation: a share of a dataset's training samples in place of its test split.

Such a dataset is a view of another one's shards under its own name, so a figure measured on
training samples is never mistaken for one of the test split. No image is stored twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.experiment.evaluation import Validation
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey, facts_of
from fomo_dagster.graph.core.keys import DATASETS, shards_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.shards import expected_samples, facts_of_samples
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext


def view_of(dataset: str, validation: Validation) -> str:
    """The name of a dataset's validation view."""
    return f"{dataset}_{validation.name}"


def viewed_by(view: str, validation: Validation) -> str:
    """The dataset that a view of this name shows."""
    return view.removesuffix(f"_{validation.name}")


@dataclass(frozen=True, kw_only=True)
class ValidationNode(Node):
    """The view of a dataset; `shards_key` of its name is its key, as if it were a dataset."""

    kind: ClassVar[str] = "validation"
    details: ClassVar[type[Details]] = SampleDetails
    group: ClassVar[str] = DATASETS
    tools: ClassVar[frozenset[str]] = frozenset({"parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "concepts": "it brings other concepts or samples",
    }
    of: str
    dataset: Dataset
    validation: Validation

    @property
    def description(self) -> str:
        return "Training samples held out in place of the dataset's test split."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (shards_key(self.of),)

    @property
    def declared(self) -> Mapping[str, Any]:
        return self.validation.model_dump(mode="json", exclude={"name"})

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        details = facts[shards_key(self.of)].of(SampleDetails)
        # All classes stay there to choose from, those with test samples alone among them.
        inputs = {
            "samples": digest_of(details.train or details.test),
            "concepts": details.concepts,
        }
        return {ONLY: Recipe(self.kind, self.version, self.declared, inputs)}

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        import polars as pl

        from fomo_dagster.data.index import Index, write_index

        shards = context.artifact(shards_key(self.of))
        there = f"../../{shards.kind}/{shards.digest}/"  # beside this artifact, in the same store
        places = pl.lit(there) + pl.col("shard")
        index = Index(shards.folder)
        write_index(self._split(index.samples).with_columns(shard=places), folder, index.decoding)

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        known = self.known(recipes, context)
        if known is not None:
            return known
        expected = expected_samples(self.of, self.dataset, context)
        return self._facts(self._split(expected), recipes)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        from fomo_dagster.data.index import Index

        return self._facts(Index(artifacts[ONLY].folder).sample_table, recipes)

    def _split(self, samples: pl.DataFrame) -> pl.DataFrame:
        from fomo_dagster.data.validation import validation_split

        return validation_split(samples, self.validation.share, self.validation.seed)

    @staticmethod
    def _facts(samples: pl.DataFrame, recipes: Mapping[str, Recipe]) -> Facts:
        return facts_of_samples(samples, recipes[ONLY].inputs["concepts"])

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        found = facts_of(outcome.head).of(SampleDetails)
        return {
            "training_samples": sum(found.train_samples.values()),
            "validation_samples": found.test_samples,
        }

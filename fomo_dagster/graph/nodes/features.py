"""The node of the image features of a split of a dataset, which is there where an experiment looks
for near duplicates, or chooses what it keeps of earlier chunks, by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.files import FEATURES
from fomo_dagster.graph.core.keys import DATASETS, features_key, shards_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.hashes import Split
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

PRECISION = "fp32"  # one for all experiments, which share the features


@dataclass(frozen=True, kw_only=True)
class FeaturesNode(Node):
    """θ₀'s features of the images of a split; identified by its content."""

    kind: ClassVar[str] = "features"
    group: ClassVar[str] = DATASETS
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "samples": "the split has other samples",
        "checkpoint": "the weights are others",
    }
    name: str
    split: Split
    backbone: Backbone
    checkpoint_key: str
    execution: Execution

    @classmethod
    def of(
        cls, name: str, split: Split, backbone: Backbone, checkpoint_key: str, execution: Execution
    ) -> FeaturesNode:
        """Those of a split of a dataset, or of a view of one."""
        return cls(
            key=features_key(checkpoint_key, name, split), name=name, split=split,
            backbone=backbone, checkpoint_key=checkpoint_key, execution=execution,
        )  # fmt: skip

    @property
    def description(self) -> str:
        return f"Features of the {self.split} images of {self.name}, by {self.backbone.name}."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.checkpoint_key, shards_key(self.name))

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"split": self.split, "precision": PRECISION}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        details = facts[shards_key(self.name)].of(SampleDetails)
        inputs = {
            "checkpoint": facts[self.checkpoint_key].data_version,
            "samples": details.test if self.split == "test" else digest_of(details.train),
        }
        return {ONLY: of_pixels(Recipe(self.kind, self.version, self.declared, inputs))}

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.models.devices import device_of
        from fomo_dagster.training.meter import Meter

        meter = Meter(device_of(self.execution.device))
        checkpoint = context.artifact(self.checkpoint_key)
        encoder = encoder_of(
            self.backbone, checkpoint, PRECISION, self.execution, context, pixels_of(recipe)
        )
        index = index_of(self.name, context)
        rows = index.rows(self.split)
        found = encoder.images(self.name, rows, index, blank_where_unreadable=True).numpy()
        rows.select("key").with_columns(
            features=pl.Series(found, dtype=pl.Array(pl.Float32, found.shape[1]))
        ).write_parquet(folder / FEATURES)
        architecture = encoder.model.architecture
        flops = encoding_flops(architecture, context.home.cache, images=rows.height)
        return {"samples": rows.height, **flops, **meter.costs()}

    def samples(self, facts: FactsByKey) -> int | None:
        details = facts[shards_key(self.name)].of(SampleDetails)
        return details.test_samples if self.split == "test" else sum(details.train_samples.values())

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        return {"images": read_parquet(outcome.artifacts[ONLY].path(FEATURES), ["key"]).height}

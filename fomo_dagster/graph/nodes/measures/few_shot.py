"""The node of linear probes and nearest class means after a stage; one artifact per dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.evaluation import FewShot
from fomo_dagster.graph.core.facts import FactsByKey
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode
from fomo_dagster.graph.nodes.measures.measure import Measure
from fomo_dagster.graph.nodes.pixels import of_pixels
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

CHOSEN = "chosen.parquet"  # C of each linear probe


@dataclass(frozen=True, kw_only=True)
class FewShotNode(Measure):
    """Accuracies with a few training images of each class, on frozen features."""

    kind: ClassVar[str] = "few_shot"

    @classmethod
    def wanted(cls, evaluation: EvaluationNode) -> bool:
        return evaluation.settings.few_shot is not None

    @property
    def settings(self) -> FewShot:
        """What the experiment asks for."""
        assert self.evaluation.settings.few_shot is not None
        return self.evaluation.settings.few_shot

    @property
    def description(self) -> str:
        return (
            f"Linear probes and nearest class means on frozen features, with the weights that "
            f"stage {self.stage} deploys."
        )

    @property
    def declared(self) -> Mapping[str, Any]:
        return {
            name: self._parameters(name) | {"role": self.evaluation.roles[name]}
            for name in self.datasets
        }

    def _parameters(self, name: str) -> dict[str, Any]:
        return {**self.evaluated(name), "few_shot": self.settings.model_dump(mode="json")}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        """Datasets without training split have none; raises `InputError` if none has one."""
        recipes = {}
        for name in self.datasets:
            train = facts[shards_key(name)].of(SampleDetails).train
            if train:
                inputs = {
                    "checkpoint": facts[self.evaluation.checkpoint_key].data_version,
                    "train": digest_of(train),
                    **self.of_dataset(name, facts),
                }
                recipe = Recipe(self.kind, self.version, self._parameters(name), inputs)
                recipes[name] = of_pixels(recipe)
        if not recipes:
            raise InputError(
                f"{self.key}: none of {', '.join(self.datasets)} has a training split: give one to "
                "a classification dataset that is evaluated, or leave out evaluation.few_shot"
            )
        return recipes

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        from fomo_dagster.evaluation.few_shot import remarks_of

        for name in self.datasets:
            details = facts[shards_key(name)].of(SampleDetails)
            said = remarks_of(name, details.train_samples, details.concepts, self.settings)
            if said is not None:
                yield said

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.evaluation.few_shot import Labelled, drawn_images, few_shot_results
        from fomo_dagster.evaluation.results import metrics_frame
        from fomo_dagster.models.devices import device_of
        from fomo_dagster.training.meter import Meter

        meter = Meter(device_of(self.execution.device))
        encoder, index = self.encoder(recipe, context), index_of(name, context)
        flops: Counter[str] = Counter()
        concepts = context.facts(shards_key(name)).of(SampleDetails).concepts
        places = {concept: place for place, concept in enumerate(concepts)}

        def labelled(images: pl.DataFrame, *, kept: bool = False) -> Labelled:
            classes = images["concept"].replace_strict(places, return_dtype=pl.Int64).to_numpy()
            if images.is_empty():
                return Labelled(shots.features[:0], classes)
            features = self.image_features(name, images, encoder, flops, context, kept=kept)
            return Labelled(features, classes)

        drawn = drawn_images(index.rows("train"), self.settings)
        few = drawn.filter(pl.col("shot").is_not_null())
        shots = labelled(few)
        choosing = labelled(drawn.filter(pl.col("shot").is_null()))
        test = labelled(self.test_images(name, context), kept=True)
        values, chosen = few_shot_results(
            shots, few["shot"].to_numpy(), choosing, test, self.settings
        )
        metrics_frame(name, "classification", values).write_parquet(folder / METRICS)
        chosen.write_parquet(folder / CHOSEN)
        samples = drawn.height + len(test.classes)
        return {"samples": samples, **flops, **meter.costs()}

    def samples(self, facts: FactsByKey) -> int | None:
        most = max(self.settings.shots) + self.settings.choosing_images
        total = 0
        for name in self.datasets:
            train = facts[shards_key(name)].of(SampleDetails).train_samples
            if train:
                total += sum(min(size, most) for size in train.values())
                total += self.test_samples(name, facts)
        return total

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        import polars as pl

        chosen = [
            read_parquet(artifact.path(CHOSEN)).select(pl.lit(name).alias("dataset"), pl.all())
            for name, artifact in outcome.artifacts.items()
        ]
        return {**super().shown(outcome, context), "chosen_C": pl.concat(chosen)}

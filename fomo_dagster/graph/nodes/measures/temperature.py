"""The node of the temperatures after a stage; one artifact per temperature that is shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.evaluation import Temperature
from fomo_dagster.graph.core.facts import FactsByKey
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Picture, Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode
from fomo_dagster.graph.nodes.measures.measure import Measure
from fomo_dagster.graph.nodes.pixels import of_pixels
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.evaluation.temperature import Encoded
    from fomo_dagster.graph.core.context import NodeContext

RELIABILITY = "reliability.parquet"  # dataset, scaled, and the columns of `reliability`
BEFORE = "before.parquet"  # the metrics without the fitted temperature
DIAGRAMS = "reliability.png"  # in the record


@dataclass(frozen=True, kw_only=True)
class TemperatureNode(Measure):
    """Temperatures that fit a stage's weights, and how calibrated they are with them."""

    kind: ClassVar[str] = "temperature"
    input_changes: ClassVar[Mapping[str, str]] = {
        **Measure.input_changes,
        "datasets": "test splits or classes changed",
    }

    @classmethod
    def wanted(cls, evaluation: EvaluationNode) -> bool:
        return evaluation.settings.temperature is not None

    @property
    def settings(self) -> Temperature:
        """What the experiment asks for."""
        assert self.evaluation.settings.temperature is not None
        return self.evaluation.settings.temperature

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Name → the datasets that share a temperature."""
        groups: dict[str, tuple[str, ...]] = {}
        for name in sorted(self.datasets):
            role = self.evaluation.roles[name]
            group = {"stage": "all", "role": role, "dataset": name}[self.settings.shared_by]
            groups[group] = (*groups.get(group, ()), name)
        return groups

    @property
    def description(self) -> str:
        return f"The temperature that fits the weights that stage {self.stage} deploys."

    @property
    def declared(self) -> Mapping[str, Any]:
        roles = {name: self.evaluation.roles[name] for name in self.datasets}
        return {"roles": roles, **{group: self._parameters(group) for group in self.groups}}

    def _parameters(self, group: str) -> dict[str, Any]:
        names = self.groups[group]
        return {
            "temperature": self.settings.model_dump(mode="json", exclude={"shared_by"}),
            "datasets": {name: self.evaluation.parameters(name) for name in names},
        }

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        checkpoint = facts[self.evaluation.checkpoint_key].data_version
        return {
            group: of_pixels(
                Recipe(
                    self.kind,
                    self.version,
                    self._parameters(group),
                    {
                        "checkpoint": checkpoint,
                        "datasets": {name: self.of_dataset(name, facts) for name in names},
                    },
                )
            )
            for group, names in self.groups.items()
        }

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.evaluation.calibration import reliability
        from fomo_dagster.evaluation.results import metrics_frame
        from fomo_dagster.evaluation.temperature import (
            OF_PROBABILITIES,
            fold_temperatures,
            scaled_metrics,
        )
        from fomo_dagster.models.devices import device_of
        from fomo_dagster.plots.reliability import reliability_plot
        from fomo_dagster.training.meter import Meter

        meter = Meter(device_of(self.execution.device))
        encoder, flops = self.encoder(recipe, context), Counter[str]()
        encoded = {d: self._encoded(d, encoder, flops, context) for d in self.groups[name]}
        temperatures = fold_temperatures(list(encoded.values()), self.settings.folds)
        metrics, before, bins = [], [], []
        for dataset, of in encoded.items():
            unscaled = of.classified()
            found = {m.name: m.compute(unscaled) for m in OF_PROBABILITIES}
            there = {name: value for name, value in found.items() if value is not None}
            before.append(metrics_frame(dataset, "classification", there))
            metrics.append(
                metrics_frame(dataset, "classification", scaled_metrics(of, temperatures))
            )
            for scaled, one in ((False, unscaled), (True, of.classified(temperatures))):
                curve = reliability(one.confidences, one.ranks == 0)
                bins.append(curve.with_columns(dataset=pl.lit(dataset), scaled=pl.lit(scaled)))
        pl.concat(metrics).write_parquet(folder / METRICS)
        pl.concat(before).write_parquet(folder / BEFORE)
        pl.concat(bins).write_parquet(folder / RELIABILITY)
        panels = {
            dataset: {
                label: pl.concat(bins).filter(dataset=dataset, scaled=scaled)
                for label, scaled in (("as it is", False), ("with the fitted temperature", True))
            }
            for dataset in encoded
        }
        record_path(folder, DIAGRAMS).write_bytes(reliability_plot(panels))
        samples = sum(len(of.targets) for of in encoded.values())
        return {"samples": samples, **flops, **meter.costs()}

    def _encoded(
        self, name: str, encoder: Encoder, flops: Counter[str], context: NodeContext
    ) -> Encoded:
        """A dataset's test images and classes; what they cost is added to `flops`."""
        images = self.test_images(name, context)
        features = self.image_features(name, images, encoder, flops, context, kept=True)
        return self.encoded(name, images, features, encoder, flops, context)

    def encoded(
        self, name: str, images: pl.DataFrame, features: npt.NDArray[np.float32],
        encoder: Encoder, flops: Counter[str], context: NodeContext,
    ) -> Encoded:  # fmt: skip
        """The dataset with the features of its images, (N, D); `flops` as of `class_embeddings`."""
        from fomo_dagster.evaluation.temperature import Encoded, folds_of

        concepts = context.facts(shards_key(name)).of(SampleDetails).concepts
        places = {concept: place for place, concept in enumerate(concepts)}
        return Encoded(
            images=features,
            classes=self.class_embeddings(name, encoder, flops, context),
            targets=images["concept"].replace_strict(places).cast(int).to_numpy(),
            folds=folds_of(images["key"].to_list(), self.settings.folds, self.settings.seed),
            scale=encoder.model.scale,
        )

    def metrics(self, artifacts: Mapping[str, Artifact]) -> pl.DataFrame:
        import polars as pl

        return pl.concat(read_parquet(artifact.path(METRICS)) for artifact in artifacts.values())

    def samples(self, facts: FactsByKey) -> int | None:
        return sum(self.test_samples(name, facts) for name in self.datasets)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        import polars as pl

        frames = [
            read_parquet(artifact.path(METRICS)).join(
                read_parquet(artifact.path(BEFORE)).select(
                    "dataset", pl.col("metric") + "_scaled", before="value"
                ),
                on=["dataset", "metric"], how="left", maintain_order="left",
            )
            for artifact in outcome.artifacts.values()
        ]  # fmt: skip
        metrics = pl.concat(frames).select("dataset", "metric", "before", "value", "samples")
        fitted = metrics.filter(metric="temperature").select("dataset", "value")
        diagrams = {
            f"reliability_{name}": Picture(artifact.record(DIAGRAMS))
            for name, artifact in outcome.artifacts.items()
        }
        return {
            **{f"temperature_{d}": round(value, 4) for d, value in fitted.iter_rows()},
            **diagrams,
            "metrics": metrics,
            "computed_now": ", ".join(outcome.computed) or "none",
        }

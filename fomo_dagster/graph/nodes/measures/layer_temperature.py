"""The node of the weights of all layers after a stage; one artifact per weights that are shared."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.evaluation import LayerTemperature
from fomo_dagster.experiment.weights_folder import described
from fomo_dagster.graph.core.facts import FactsByKey
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Picture, Shown
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode
from fomo_dagster.graph.nodes.measures.temperature import DIAGRAMS, TemperatureNode
from fomo_dagster.graph.work.counted_costs import encoding_flops, layers_of
from fomo_dagster.graph.work.indexes import evaluated_index
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.evaluation.layer_temperature import EncodedLayers
    from fomo_dagster.graph.core.context import NodeContext

COMPARED = "compared.parquet"  # dataset, metric, as_it_is, with_temperature, with_layers


@dataclass(frozen=True, kw_only=True)
class LayerTemperatureNode(TemperatureNode):
    """Weights of the logits of every layer that fit a stage's weights, beside one temperature."""

    kind: ClassVar[str] = "layer_temperature"

    @classmethod
    def wanted(cls, evaluation: EvaluationNode) -> bool:
        return evaluation.settings.layer_temperature is not None

    @property
    def settings(self) -> LayerTemperature:
        """What the experiment asks for."""
        assert self.evaluation.settings.layer_temperature is not None
        return self.evaluation.settings.layer_temperature

    @property
    def description(self) -> str:
        return (
            f"Votes of all layers of the image tower that fit the weights that stage {self.stage} "
            "deploys."
        )

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        """Raises `InputError` for a tower whose layers give no features."""
        yield from super().remarks(facts, context)
        backbone = self.evaluation.backbone
        try:
            layers_of(described(backbone).architecture, context.home.cache)
        except InputError as error:
            raise InputError(f"backbone {backbone.name!r}: {error}") from error
        except Exception:  # fake tensors do not run every tower; the real one is looked at later
            return

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.evaluation.calibration import reliability
        from fomo_dagster.evaluation.layer_temperature import (
            compared_metrics,
            fold_weights,
            stacked_metrics,
        )
        from fomo_dagster.evaluation.results import metrics_frame
        from fomo_dagster.evaluation.temperature import fold_temperatures
        from fomo_dagster.models.devices import device_of
        from fomo_dagster.plots.reliability import reliability_plot
        from fomo_dagster.training.meter import Meter

        meter = Meter(device_of(self.execution.device))
        encoder, flops = self.encoder(recipe, context), Counter[str]()
        every = {d: self._layers(d, encoder, flops, context) for d in self.groups[name]}
        one = (1.0,)
        temperatures = fold_temperatures([of.last for of in every.values()], self.settings.folds)
        weights = fold_weights(list(every.values()), self.settings.folds)
        metrics, compared, panels = [], [], {}
        for dataset, of in every.items():
            ways = {
                "as it is": (of.last, one),
                "with temperature": (of.last, temperatures),
                "with layers": (of.weighted(weights), one),
            }
            rows = stacked_metrics(of, weights)
            metrics.append(metrics_frame(dataset, "classification", rows))
            values = {way: compared_metrics(*told) for way, told in ways.items()}
            compared += [
                {"dataset": dataset, "metric": metric}
                | {way.replace(" ", "_"): values[way].get(metric, (None,))[0] for way in ways}
                for metric in values["as it is"]
            ]
            found = {way: encoded.classified(by) for way, (encoded, by) in ways.items()}
            panels[dataset] = {
                way: reliability(it.confidences, it.ranks == 0) for way, it in found.items()
            }
        pl.concat(metrics).write_parquet(folder / METRICS)
        pl.DataFrame(compared).write_parquet(folder / COMPARED)
        record_path(folder, DIAGRAMS).write_bytes(reliability_plot(panels))
        samples = sum(len(of.last.targets) for of in every.values())
        flops.update(self._encoding_flops(every, encoder, context))
        return {"samples": samples, **flops, **meter.costs()}

    def _layers(
        self, name: str, encoder: Encoder, flops: Counter[str], context: NodeContext
    ) -> EncodedLayers:
        """As `_encoded`, by every layer."""
        from fomo_dagster.evaluation.layer_temperature import EncodedLayers

        images = self.test_images(name, context)
        index = evaluated_index(name, encoder.pixels, self.execution, context)
        layers = encoder.image_layers(name, images, index).numpy()
        return EncodedLayers(
            layers, self.encoded(name, images, layers[-1], encoder, flops, context)
        )

    def _encoding_flops(
        self, every: Mapping[str, EncodedLayers], encoder: Encoder, context: NodeContext
    ) -> Mapping[str, int]:
        """Of each image, and of one more of every batch for each layer but the last."""
        images = 0
        for of in every.values():
            layers, count, _ = of.layers.shape
            images += count + (layers - 1) * math.ceil(count / encoder.batch_size)
        return encoding_flops(encoder.model.architecture, context.home.cache, images=images)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        import polars as pl

        artifacts = outcome.artifacts.items()
        compared = pl.concat(read_parquet(of.path(COMPARED)) for _, of in artifacts)
        weights = self.metrics(outcome.artifacts).filter(
            pl.col("metric").str.starts_with("layer_weight_")
        )
        diagrams = {f"reliability_{name}": Picture(of.record(DIAGRAMS)) for name, of in artifacts}
        return {
            **diagrams,
            "metrics": compared,
            "weights": weights.select("dataset", layer="metric", weight="value"),
            "computed_now": ", ".join(outcome.computed) or "none",
        }

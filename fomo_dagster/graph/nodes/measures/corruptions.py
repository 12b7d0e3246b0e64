"""The node of accuracies on corrupted images after a stage; one artifact per dataset and kind of
corruption, so that another kind computes itself alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.evaluation import Corruption, Corruptions
from fomo_dagster.graph.core.facts import FactsByKey
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode, percentages
from fomo_dagster.graph.nodes.measures.measure import Measure
from fomo_dagster.graph.nodes.pixels import of_pixels
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.graph.work.indexes import evaluated_index
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl
    from PIL import Image

    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class CorruptionsNode(Measure):
    """Accuracies on test images that are corrupted in several ways."""

    kind: ClassVar[str] = "corruptions"
    input_changes: ClassVar[Mapping[str, str]] = {
        **Measure.input_changes,
        "frost": "the photographs of frost changed",
    }

    @classmethod
    def wanted(cls, evaluation: EvaluationNode) -> bool:
        return evaluation.settings.corruptions is not None

    @property
    def settings(self) -> Corruptions:
        """What the experiment asks for."""
        assert self.evaluation.settings.corruptions is not None
        return self.evaluation.settings.corruptions

    @property
    def description(self) -> str:
        return f"Accuracies on corrupted images, with the weights that stage {self.stage} deploys."

    @property
    def declared(self) -> Mapping[str, Any]:
        roles = {name: self.evaluation.roles[name] for name in self.datasets}
        return {"roles": roles, **{name: self._parameters(*of) for name, of in self._parts.items()}}

    @property
    def _parts(self) -> dict[str, tuple[str, Corruption]]:
        """Artifact → dataset and kind of corruption."""
        kinds = self.settings.kinds
        return {f"{name}/{kind}": (name, kind) for name in self.datasets for kind in kinds}

    def _parameters(self, name: str, kind: Corruption) -> dict[str, Any]:
        corruption = {
            "kind": kind,
            "severities": list(self.settings.severities),
            "seed": self.settings.seed,
        }
        return {**self.evaluation.parameters(name), "corruption": corruption}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        checkpoint = {"checkpoint": facts[self.evaluation.checkpoint_key].data_version}
        return {
            part: of_pixels(
                Recipe(
                    self.kind,
                    self.version,
                    self._parameters(name, kind),
                    {**checkpoint, **self.of_dataset(name, facts), **self._photographs(kind)},
                )
            )
            for part, (name, kind) in self._parts.items()
        }

    def _photographs(self, kind: Corruption) -> dict[str, Any]:
        """The input of a recipe that photographs are; nothing for kinds that need none."""
        if kind != "frost":
            return {}
        return {"frost": [digest_of_file(path) for path in self._paths]}

    @cached_property
    def _paths(self) -> list[Path]:
        from fomo_dagster.evaluation.corruptions import photographs_of

        assert self.settings.frost_pictures is not None
        return photographs_of(self.settings.frost_pictures)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import numpy as np

        from fomo_dagster.evaluation.corruptions import ACCURACY, corrupted, opened, random_of
        from fomo_dagster.evaluation.ranking import ranking
        from fomo_dagster.evaluation.results import metrics_frame, percent
        from fomo_dagster.models.devices import device_of
        from fomo_dagster.training.meter import Meter

        meter = Meter(device_of(self.execution.device))
        dataset, kind = self._parts[name]
        encoder, flops = self.encoder(recipe, context), Counter[str]()
        index = evaluated_index(dataset, encoder.pixels, self.execution, context)
        images = self.test_images(dataset, context)
        concepts = context.facts(shards_key(dataset)).of(SampleDetails).concepts
        places = {concept: place for place, concept in enumerate(concepts)}
        targets = images["concept"].replace_strict(places).cast(int).to_numpy()
        classes = self.class_embeddings(dataset, encoder, flops, context)

        photographs = opened(self._paths) if kind == "frost" else []

        def altered(severity: int, key: str, picture: Image.Image) -> Image.Image:
            random = random_of(self.settings.seed, kind, severity, key)
            return corrupted(picture, kind, severity, random, photographs)

        values = {}
        for severity in self.settings.severities:
            features = encoder.images(dataset, images, index, altered=partial(altered, severity))
            found = ranking(features.numpy(), classes, targets, np.arange(len(concepts)))
            values[ACCURACY.format(kind, severity)] = percent(found.ranks == 0), len(targets)
        metrics_frame(dataset, "classification", values).write_parquet(folder / METRICS)
        samples = len(targets) * len(values)
        flops.update(encoding_flops(encoder.model.architecture, context.home.cache, images=samples))
        return {"samples": samples, **flops, **meter.costs()}

    def metrics(self, artifacts: Mapping[str, Artifact]) -> pl.DataFrame:
        """Those of all artifacts, and of each dataset their mean."""
        import polars as pl

        from fomo_dagster.evaluation.corruptions import MEAN_ACCURACY
        from fomo_dagster.evaluation.results import metrics_frame

        rows = pl.concat(
            read_parquet(artifact.path(METRICS)).with_columns(dataset=pl.lit(self._parts[part][0]))
            for part, artifact in artifacts.items()
        )
        means = []
        for (dataset,), of in rows.group_by("dataset", maintain_order=True):
            mean = math.fsum(of["value"]) / len(of)
            value = {MEAN_ACCURACY: (mean, of["samples"][0])}
            means.append(metrics_frame(str(dataset), "classification", value))
        return pl.concat([rows, *means])

    def samples(self, facts: FactsByKey) -> int | None:
        each = sum(self.test_samples(name, facts) for name in self.datasets)
        return each * len(self.settings.kinds) * len(self.settings.severities)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        from fomo_dagster.evaluation.corruptions import MEAN_ACCURACY

        means = self.metrics(outcome.artifacts).filter(metric=MEAN_ACCURACY)
        named = {
            f"{MEAN_ACCURACY}_{dataset}": value
            for dataset, value in means.select("dataset", "value").iter_rows()
        }
        return {**percentages(named), **super().shown(outcome, context)}

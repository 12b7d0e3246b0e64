"""The node of what a model thinks of the samples that a stage brings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.evaluation import Evaluation, Waffle
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.inspection import Inspection
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey, identity
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Picture, Shown
from fomo_dagster.graph.nodes.chunk import ChunkDetails
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.graph.work.text_embeddings import text_embeddings
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.graph.core.context import NodeContext

SAMPLES_FILE = "samples.parquet"
DRIFT_FILE = "drift.json"
SHEETS = {
    "novelty": "newest.jpg",
    "similarity": "worst_captions.jpg",
    "label_quality": "labels.jpg",
}


@dataclass(frozen=True, kw_only=True)
class InspectionDetails(Details):
    """samples: that the stage brings; doubtful_labels: of these, None where nobody could look; p,
    auc: of the drift, None where too few samples are there to tell."""

    samples: int | None = None
    doubtful_labels: int | None = None
    p: float | None = None
    auc: float | None = None


@dataclass(frozen=True, kw_only=True)
class InspectionNode(Node):
    """What a chunk brings, as a model sees it."""

    kind: ClassVar[str] = "inspection"
    details: ClassVar[type[Details]] = InspectionDetails
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "chunk": "the stage brings other samples",
        "earlier": "earlier stages brought other samples",
        "checkpoint": "the weights are others",
        "concepts": "the classes to choose from changed",
    }
    stage: int
    settings: Inspection
    evaluation: Evaluation
    backbone: Backbone
    checkpoint_key: str
    chunk_keys: tuple[str, ...]  # of stages 1..stage
    datasets: Mapping[str, Dataset]  # that the chunk may bring samples of
    execution: Execution

    @property
    def description(self) -> str:
        return f"What a model thinks of the samples that stage {self.stage} brings."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.checkpoint_key, *self.chunk_keys, *map(shards_key, self.datasets))

    @property
    def declared(self) -> Mapping[str, Any]:
        return {
            **self.settings.model_dump(mode="json", exclude={"weights"}),
            "precision": self.evaluation.precision,
        }

    def _prompts(self, name: str) -> Any:
        """What decides the prompts of a dataset."""
        own, asked = self.datasets[name].prompt, self.evaluation.prompts
        if isinstance(asked, Waffle):
            return [asked.model_dump(mode="json"), own]
        return [own] if asked == "dataset" else asked

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        *earlier, chunk = (facts[key].data_version for key in self.chunk_keys)
        brought = self._classified(facts)
        concepts = {d: facts[shards_key(d)].of(SampleDetails).concepts_digest for d in brought}
        inputs = {
            "checkpoint": facts[self.checkpoint_key].data_version,
            "chunk": chunk, "earlier": earlier, "concepts": concepts,
        }  # fmt: skip
        parameters = {**self.declared, "prompts": {d: self._prompts(d) for d in brought}}
        return {ONLY: of_pixels(Recipe(self.kind, self.version, parameters, inputs))}

    def _classified(self, facts: FactsByKey) -> list[str]:
        """The classification datasets that the chunk brings samples of, sorted."""
        brings = {dataset for dataset, _ in facts[self.chunk_keys[-1]].of(ChunkDetails).concepts}
        return sorted(d for d in brings if self.datasets[d].task == "classification")

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.evaluation.inspection import fit_of_captions
        from fomo_dagster.models.devices import device_of
        from fomo_dagster.tables.inspections import SEEN
        from fomo_dagster.training.meter import Meter

        meter = Meter(device_of(self.execution.device))
        checkpoint = context.artifact(self.checkpoint_key)
        encoder = encoder_of(
            self.backbone, checkpoint, self.evaluation.precision, self.execution, context,
            pixels_of(recipe),
        )  # fmt: skip
        chunk = self._manifest(self.chunk_keys[-1], context)
        features = self._features(chunk, encoder, context)
        chunk = chunk.with_columns(
            similarity=pl.Series(fit_of_captions(chunk["captions"], features, encoder.texts))
        )
        chunk = self._with_labels(chunk, features, encoder, checkpoint, recipe, context)
        chunk, drift, looked_at = self._with_drift(chunk, features, encoder, context)
        chunk.select(*SEEN).write_parquet(folder / SAMPLES_FILE)
        (folder / DRIFT_FILE).write_text(json.dumps(drift))
        self._draw(chunk, folder, context)
        flops = encoding_flops(
            encoder.model.architecture, context.home.cache, images=chunk.height + looked_at,
            texts=chunk["captions"].explode().n_unique(),
        )  # fmt: skip
        return {"samples": chunk.height, **flops, **meter.costs()}

    def _manifest(self, key: str, context: NodeContext) -> pl.DataFrame:
        return read_parquet(context.artifact(key).path(MANIFEST))

    def _features(self, samples: pl.DataFrame, encoder: Encoder, context: NodeContext) -> Tensor:
        """Of N samples of several datasets, in their order: (N, D)."""
        import torch

        features: Tensor | None = None
        for (dataset,), own in samples.with_row_index("row").group_by(
            "dataset", maintain_order=True
        ):
            index = index_of(str(dataset), context)
            rows = own.select("row", "key").join(
                index.rows("train"), on="key", how="left", maintain_order="left"
            )
            found = encoder.images(str(dataset), rows, index, blank_where_unreadable=True)
            if features is None:
                features = torch.zeros(samples.height, found.shape[1])
            features[rows["row"].to_list()] = found
        assert features is not None
        return features

    def _with_labels(
        self, chunk: pl.DataFrame, features: Tensor, encoder: Encoder, checkpoint: Artifact,
        recipe: Recipe, context: NodeContext,
    ) -> pl.DataFrame:  # fmt: skip
        """With the columns of ZERO_SHOT and LABEL_NOISE: null for retrieval, and the latter where
        nobody looked."""
        import polars as pl

        from fomo_dagster.evaluation.inspection import ZERO_SHOT, zero_shot_of
        from fomo_dagster.evaluation.label_noise import LABEL_NOISE, label_noise
        from fomo_dagster.evaluation.prompts import class_texts, templates_of

        numbered = chunk.with_row_index("row")
        called, doubted = list[pl.DataFrame](), list[pl.DataFrame]()
        for dataset in recipe.inputs["concepts"]:
            classes: Sequence[str] = context.facts(shards_key(dataset)).of(SampleDetails).concepts
            templates = templates_of(self.evaluation.prompts, self.datasets[dataset].prompt)
            embeddings, _ = text_embeddings(
                class_texts(classes, templates), len(templates), checkpoint=checkpoint,
                precision=self.evaluation.precision, encoder=lambda: encoder, context=context,
            )  # fmt: skip
            own = numbered.filter(dataset=dataset).select("row", "concept")
            scale = encoder.model.scale
            called.append(zero_shot_of(own, features, classes, embeddings, scale))
            if self.settings.label_noise:
                doubted.append(label_noise(own, features[own["row"].to_list()].numpy()))
        for columns, frames in ((ZERO_SHOT, called), (LABEL_NOISE, doubted)):
            empty = pl.DataFrame(schema={"row": pl.UInt32(), **columns})
            numbered = numbered.join(
                pl.concat([empty, *frames]), on="row", how="left", maintain_order="left"
            )
        return numbered.drop("row")

    def _with_drift(
        self, chunk: pl.DataFrame, features: Tensor, encoder: Encoder, context: NodeContext
    ) -> tuple[pl.DataFrame, dict[str, Any], int]:
        """With the column novelty, null for samples that were not looked at; what is told of the
        drift; and how many earlier samples were encoded for it."""
        import polars as pl

        from fomo_dagster.evaluation.inspection import drawn
        from fomo_dagster.statistics.drift import FOLDS, drift

        nothing = {"newer": 0, "earlier": 0, "mmd": None, "p": None, "auc": None}
        without = chunk.with_columns(novelty=pl.lit(None, pl.Float64))
        if len(self.chunk_keys) == 1:
            return without, nothing, 0
        before = pl.concat(self._manifest(key, context) for key in self.chunk_keys[:-1])
        earlier = drawn(before.unique(["dataset", "key"]), self.settings.samples)
        newer = drawn(chunk.with_row_index("row"), self.settings.samples)
        if min(newer.height, earlier.height) < FOLDS:
            return without, nothing | {"newer": newer.height, "earlier": earlier.height}, 0
        rows = newer["row"].to_list()
        found = drift(
            features[rows].double().numpy(),
            self._features(earlier, encoder, context).double().numpy(),
            self.settings.permutations,
        )
        told = {
            "newer": newer.height, "earlier": earlier.height,
            "mmd": found.mmd, "p": found.p, "auc": found.auc,
        }  # fmt: skip
        novelty = newer.select("row", novelty=pl.Series(found.novelty))
        numbered = chunk.with_row_index("row")
        joined = numbered.join(novelty, on="row", how="left", maintain_order="left").drop("row")
        return joined, told, earlier.height

    def _draw(self, chunk: pl.DataFrame, folder: Path, context: NodeContext) -> None:
        """The most conspicuous samples, as far as their images are there."""
        from fomo_dagster.graph.work.sample_images import SampleImages
        from fomo_dagster.plots.inspection_sheet import inspection_tiles
        from fomo_dagster.plots.thumbnails import thumbnails

        image_of = SampleImages(lambda: context)
        for by, file in SHEETS.items():
            tiles = inspection_tiles(chunk, by, image_of)
            if tiles:
                record_path(folder, file).write_bytes(thumbnails(tiles))

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        return Facts(identity(recipes), InspectionDetails())

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        rows, told = _seen(artifacts[ONLY]), _drift(artifacts[ONLY])
        looked = self.settings.label_noise and rows["doubtful"].count() > 0
        doubtful = int(rows["doubtful"].sum()) if looked else None
        details = InspectionDetails(
            samples=rows.height, doubtful_labels=doubtful, p=told["p"], auc=told["auc"]
        )
        return Facts(identity(recipes), details)

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("inspections", "drifts")

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        own = {"experiment": self.experiment, "stage": self.stage}
        rows = _seen(artifacts[ONLY]).with_columns(
            experiment=pl.lit(self.experiment), stage=pl.lit(self.stage, pl.Int64)
        )
        yield "inspections", rows.select(*SCHEMAS["inspections"])
        told = [own | _drift(artifacts[ONLY])]
        yield "drifts", pl.DataFrame(told, schema=dict(SCHEMAS["drifts"]))

    def samples(self, facts: FactsByKey) -> int | None:
        brought = facts[self.chunk_keys[-1]].of(ChunkDetails).concepts
        counts = {d: facts[shards_key(d)].of(SampleDetails).train_samples for d in self.datasets}
        own = sum(counts[dataset].get(concept, 0) for dataset, concept in brought)
        return own + (self.settings.samples if len(self.chunk_keys) > 1 else 0)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        from fomo_dagster.tables.inspections import said_of_drift

        artifact = outcome.artifacts[ONLY]
        facts = outcome.head.facts
        doubtful = facts.get("doubtful_labels")
        return {
            "samples": facts["samples"],
            "drift": said_of_drift(_drift(artifact)),
            "doubtful_labels": "not looked for" if doubtful is None else doubtful,
            **{
                Path(file).stem: Picture(artifact.record(file))
                for file in SHEETS.values()
                if artifact.record(file) is not None
            },
        }


def _seen(artifact: Artifact) -> pl.DataFrame:
    return read_parquet(artifact.path(SAMPLES_FILE))


def _drift(artifact: Artifact) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(artifact.path(DRIFT_FILE).read_text())
    return told

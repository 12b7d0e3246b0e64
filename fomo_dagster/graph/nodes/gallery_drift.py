"""The node of how far what is live is from what embedded a gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.galleries.declaration import Drift
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.keys import GALLERIES, drift_key, release_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.gallery import GalleryDetails, GalleryNode
from fomo_dagster.graph.nodes.release import NO_WEIGHTS, weights_called
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.graph.work.histories import history_of
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.releases.live import released_weights
from fomo_dagster.releases.records import LIVE
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.galleries.files import Floats
    from fomo_dagster.graph.core.context import NodeContext

DRIFT = "drift.parquet"


@dataclass(frozen=True, kw_only=True)
class GalleryDriftDetails(Details):
    """number: of the release that was live."""

    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class GalleryDriftNode(Node):
    """A sample of a gallery, embedded by what is live, against its embeddings."""

    kind: ClassVar[str] = "gallery_drift"
    group: ClassVar[str] = GALLERIES
    details: ClassVar[type[Details]] = GalleryDriftDetails
    version: ClassVar[int] = 2  # 1 had no intervals
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "gallery": "its gallery was embedded anew",
        "live": "another release is live",
    }
    gallery: GalleryNode
    settings: Drift
    execution: Execution

    @classmethod
    def of(cls, gallery: GalleryNode) -> GalleryDriftNode | None:
        """The drift that a gallery declares to be measured; None where it does not."""
        settings = gallery.gallery.drift
        if settings is None:
            return None
        return cls(
            key=drift_key(gallery.key), gallery=gallery, settings=settings,
            execution=gallery.execution,
        )  # fmt: skip

    @property
    def description(self) -> str:
        return (
            f"How far what is live as {self.gallery.gallery.release} is from {self.gallery.key}, "
            "and what leaving that would cost."
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.gallery.key, *self.gallery.inputs)

    @property
    def comes_after(self) -> tuple[str, ...]:
        return self.gallery.comes_after

    @property
    def declared(self) -> Mapping[str, Any]:
        gallery = self.gallery.gallery
        return {
            "samples": self.settings.samples, "of": gallery.of, "precision": gallery.precision,
        }  # fmt: skip

    @property
    def _live_key(self) -> str:
        return f"{release_key(self.gallery.gallery.release)}/live for {self.key}"

    def outside_facts(self, context: NodeContext) -> dict[str, Facts]:
        history = history_of(self.gallery.gallery.release, context)
        details = GalleryDriftDetails(number=history.live)
        return {self._live_key: Facts(weights_called(LIVE, history), details)}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        gallery, live = (facts[key].data_version for key in (self.gallery.key, self._live_key))
        return {ONLY: self.recipe_of(gallery, live)}

    def recipe_of(self, gallery: str, weights: str) -> Recipe:
        """How far weights are from what embedded a gallery; both by their data versions."""
        inputs = {"gallery": gallery, "live": weights}
        return Recipe(self.kind, self.version, self.declared, inputs)

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        gallery, live = context.artifact(self.gallery.key), recipe.inputs["live"]
        if live == NO_WEIGHTS:
            return self.measure(gallery, live, None, folder, context)

        def encoder() -> Encoder:
            candidate, weights = released_weights(
                context.home, self.gallery.gallery.release, live, self.key
            )
            backbone = Backbone.model_validate(dict(candidate.backbone))
            return self.encoder(backbone, weights, gallery, context)

        return self.measure(gallery, live, encoder, folder, context)

    def encoder(
        self, backbone: Backbone, weights: Artifact, gallery: Artifact, context: NodeContext
    ) -> Encoder:
        """What embeds as the gallery asks, and its images as they were embedded."""
        pixels = Pixels.of(gallery.manifest["recipe"]["parameters"])
        return encoder_of(
            backbone, weights, self.gallery.gallery.precision, self.execution, context, pixels
        )

    def measure(
        self, gallery: Artifact, weights: str, encoder: Callable[[], Encoder] | None, folder: Path,
        context: NodeContext,
    ) -> Mapping[str, Any]:  # fmt: skip
        """Write what is measured into a folder. gallery: its artifact; weights: the data version of
        what is held against it; encoder: what embeds by them, None of none."""
        import numpy as np
        import polars as pl

        from fomo_dagster.galleries.drift import METRICS, drift_of
        from fomo_dagster.galleries.files import EMBEDDINGS, EmbeddingsReader

        embeddings = EmbeddingsReader(gallery.path(EMBEDDINGS))
        made_by = gallery.manifest["recipe"]["inputs"]["weights"]
        if encoder is None or weights == made_by or not embeddings.rows:
            pl.DataFrame(schema=METRICS).write_parquet(folder / DRIFT)
            return {"samples": 0}
        count = min(self.settings.samples, embeddings.rows)
        places = np.linspace(0, embeddings.rows - 1, count).round().astype(int)
        rows = embeddings.columns(places.tolist()).with_columns(place=pl.Series(places))
        rows = self._still_there(rows, context)
        if rows.is_empty():
            pl.DataFrame(schema=METRICS).write_parquet(folder / DRIFT)
            return {"samples": 0}
        new = self._embedded(rows, encoder(), context)
        old = np.concatenate([embeddings.read(place, 1) for place in rows["place"].to_list()])
        drift_of(old, new, rows["concept"].to_list()).write_parquet(folder / DRIFT)
        return {"samples": rows.height}

    def _still_there(self, rows: pl.DataFrame, context: NodeContext) -> pl.DataFrame:
        """Those rows of the gallery that its dataset still has."""
        if self.gallery.gallery.of == "texts":
            return rows
        samples = index_of(self.gallery.gallery.dataset, context).samples
        names = ["split", "key", "digest"]
        return rows.join(samples.select(names), on=names, how="semi", maintain_order="left")

    def _embedded(self, rows: pl.DataFrame, encoder: Encoder, context: NodeContext) -> Floats:
        """(N, E): rows of the gallery as the encoder embeds them."""
        gallery = self.gallery.gallery
        if gallery.of == "texts":
            texts: Floats = encoder.texts(rows["text"].to_list()).numpy()
            return texts
        index = index_of(gallery.dataset, context)
        samples = rows.select("split", "key").join(
            index.samples, on=["split", "key"], maintain_order="left"
        )
        images: Floats = encoder.images(gallery.dataset, samples, index).numpy()
        return images

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("gallery_drift",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        of = facts[self.gallery.key].of(GalleryDetails)
        live = facts[self._live_key].of(GalleryDriftDetails).number
        rows = read_parquet(artifacts[ONLY].path(DRIFT)).with_columns(
            gallery=pl.lit(self.gallery.loaded.name), release_name=pl.lit(of.release),
            release=pl.lit(of.number, pl.Int64), live=pl.lit(live, pl.Int64),
        )  # fmt: skip
        yield "gallery_drift", rows.select(*SCHEMAS["gallery_drift"])

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        import polars as pl

        rows = read_parquet(outcome.artifacts[ONLY].path(DRIFT))
        if rows.is_empty():
            return {"drift": "none: nothing else is live"}
        whole = rows.filter(pl.col("concept").is_null())
        concepts = rows.filter(pl.col("concept").is_not_null())
        figures = {name: round(value, 4) for name, value in whole.select("metric", "value").rows()}
        by_concept = concepts.select("concept", cosine="value", rows="samples")
        return {**figures, "concepts": by_concept.sort("cosine", "concept")}

"""The node of a gallery: a dataset's images or texts, as what is live, or has another alias, embeds
them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.pixel_rules import PARAMETER, Pixels
from fomo_dagster.errors import nearest
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.gallery import LoadedGallery
from fomo_dagster.galleries.declaration import FIRST_ROWS, DeclaredGallery
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.keys import GALLERIES, drift_key, index_key, release_key, shards_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.nodes.release import NO_WEIGHTS, weights_called
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.graph.work.histories import history_of
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.releases.live import released_weights
from fomo_dagster.releases.records import LIVE, names_of
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.roots import GALLERY

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.experiment.execution import Execution
    from fomo_dagster.galleries.files import Floats
    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.store.heads import Head


@dataclass(frozen=True, kw_only=True)
class GalleryDetails(Details):
    """What a search needs to know.

    dataset, of, release, follows: as declared. decoding: how the dataset's images are shown.
    weights: the data version of what embedded it. number: of the release; None where there was
    none. rows, dimensions: how many embeddings, and of how many numbers; 0 of none. earlier:
    [weights, digest] of what the gallery was before, by other weights, the latest last. whole:
    whether all of it is embedded. rest: where not, the digests of those of `earlier` that have the
    others, the one to be asked first first.
    """

    dataset: str
    of: str
    release: str
    follows: str
    decoding: Mapping[str, Any]
    weights: str
    number: int | None = None
    rows: int = 0
    dimensions: int = 0
    earlier: list[list[str]] = field(default_factory=list)
    whole: bool = True
    rest: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ProgressDetails(Details):
    """first: how many of the first rows a run embeds, with those that are there; None: all.
    pixels: how the images were decoded and resized that these weights embedded last; None: none."""

    first: int | None = None
    pixels: int | None = None


@dataclass(frozen=True, kw_only=True)
class GalleryNode(Node):
    """Samples, embedded by what is live under a release name."""

    kind: ClassVar[str] = GALLERY
    group: ClassVar[str] = GALLERIES
    details: ClassVar[type[Details]] = GalleryDetails
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "weights": "it follows another release now",
        "samples": "its dataset has other samples",
    }
    parameter_changes: ClassVar[Mapping[str, str]] = {FIRST_ROWS: "its next rows are embedded"}
    loaded: LoadedGallery
    execution: Execution

    @classmethod
    def of(cls, loaded: LoadedGallery) -> GalleryNode:
        """The node of a file."""
        return cls(key=loaded.reference, loaded=loaded, execution=loaded.declared.execution.whole)

    @property
    def gallery(self) -> DeclaredGallery:
        """What its file says."""
        return self.loaded.declared

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all that is made for its file."""
        index = () if self.gallery.index is None else (index_key(self.key),)
        drift = () if self.gallery.drift is None else (drift_key(self.key),)
        return (self.key, *index, *drift)

    @property
    def description(self) -> str:
        gallery = self.gallery
        followed = f"what is {gallery.follows} as {gallery.release}"
        return f"The {gallery.of} of {gallery.dataset}, embedded by {followed}."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (shards_key(self.gallery.dataset),)

    @property
    def comes_after(self) -> tuple[str, ...]:
        return (release_key(self.gallery.release),)

    @property
    def is_made_in_pieces(self) -> bool:
        return self.gallery.refresh is not None

    @property
    def declared(self) -> Mapping[str, Any]:
        names = {"release": self.gallery.release, "follows": self.gallery.follows}
        return {**names, **self._parameters}

    @property
    def _parameters(self) -> dict[str, Any]:
        gallery = self.gallery
        texts = {"prompt": self.loaded.dataset.prompt} if gallery.of == "texts" else {}
        return {"of": gallery.of, "split": gallery.split, "precision": gallery.precision, **texts}

    @property
    def _followed_key(self) -> str:
        return f"{release_key(self.gallery.release)}/{self.gallery.follows} for {self.key}"

    @property
    def _progress_key(self) -> str:
        return f"{self.key}/progress"

    def outside_facts(self, context: NodeContext) -> dict[str, Facts]:
        history = history_of(self.gallery.release, context)
        weights = weights_called(self.gallery.follows, history)
        first = self._first_rows(weights, context)
        made = self._made_by(weights, context) if weights != NO_WEIGHTS else []
        pixels = Pixels.of(made[0].manifest["recipe"]["parameters"]) if made else None
        return {
            self._followed_key: Facts(weights),
            self._progress_key: Facts(str(first), ProgressDetails(first=first, pixels=pixels)),
        }

    def _first_rows(self, weights: str, context: NodeContext) -> int | None:
        """How many rows the next run embeds by these weights, with those that are there."""
        from fomo_dagster.galleries.files import EMBEDDINGS, EmbeddingsReader

        refresh = self.gallery.refresh
        if refresh is None or weights == NO_WEIGHTS:
            return None
        made, head = self._made_by(weights, context), context.heads.read(self.key)
        if not made:
            # What these weights embedded in another way stays until all of it is embedded anew.
            is_there = head is not None and head.facts["weights"] == weights
            return None if is_there else refresh.rows
        before = first_rows_of(made[0])
        rows = EmbeddingsReader(made[0].path(EMBEDDINGS)).rows
        # What was whole once, or came to its end, is not held up by what is new.
        return None if before is None or rows < before else rows + refresh.rows

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        first = facts[self._progress_key].of(ProgressDetails).first
        is_piece = first is not None and (self.gallery.of == "texts" or first < self._images(facts))
        return self._recipes(facts, {FIRST_ROWS: first} if is_piece else {})

    def settled(self, facts: FactsByKey, context: NodeContext) -> dict[str, Recipe]:
        found = super().settled(facts, context)
        if FIRST_ROWS in found[ONLY].parameters:
            whole = self._recipes(facts, {})
            if context.store.holds(whole[ONLY]):  # as where another home embedded it
                return whole
        return found

    def _recipes(self, facts: FactsByKey, piece: Mapping[str, Any]) -> dict[str, Recipe]:
        details = facts[self.inputs[0]].of(SampleDetails)
        of_splits = {"train": digest_of(details.train), "test": details.test}
        split = self.gallery.split
        inputs = {
            "weights": facts[self._followed_key].data_version,
            "samples": digest_of(of_splits) if split == "all" else of_splits[split],
        }
        recipe = Recipe(self.kind, self.version, {**self._parameters, **piece}, inputs)
        # What grows goes on as it was begun, so that no row has to be embedded again.
        pixels = facts[self._progress_key].of(ProgressDetails).pixels
        if self.gallery.of == "texts" or pixels == Pixels.PILLOW:
            return {ONLY: recipe}
        return {ONLY: of_pixels(recipe)}

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        if facts[self._followed_key].data_version == NO_WEIGHTS:
            name, alias = self.gallery.release, self.gallery.follows
            others = set(names_of(context.home)) - {name}
            hint = f"; {nearest(name, others)}" if others else ""
            way = "promote EXPERIMENT --first" if alias == LIVE else f"alias {name} {alias} NUMBER"
            yield f"nothing is {alias} as {name} yet, so {self.key} is empty (`fomo {way}`){hint}"
        first, images = facts[self._progress_key].of(ProgressDetails).first, self._images(facts)
        if first is not None and first < images:
            of = "" if self.gallery.of == "texts" else f" of {images:,}"
            yield f"{self.key}: next, about its first {first:,} rows{of}"

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        gallery, recipe = self.gallery, recipes[ONLY]
        earlier = self._earlier(recipe, context)
        whole = FIRST_ROWS not in recipe.parameters
        details = GalleryDetails(
            dataset=gallery.dataset, of=gallery.of, release=gallery.release,
            follows=gallery.follows,
            decoding=self.loaded.dataset.decoding.as_data(), weights=recipe.inputs["weights"],
            number=self._number(recipe, context), earlier=earlier, whole=whole,
            rest=[] if whole else self._rest(earlier, context),
        )  # fmt: skip
        return Facts(recipe.digest, details)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        from fomo_dagster.galleries.files import EMBEDDINGS, EmbeddingsReader

        reader = EmbeddingsReader(artifacts[ONLY].path(EMBEDDINGS))
        predicted = self.predict(recipes, context)
        details = replace(
            predicted.of(GalleryDetails), rows=reader.rows, dimensions=reader.dimensions
        )
        return Facts(predicted.data_version, details)

    def _number(self, recipe: Recipe, context: NodeContext) -> int | None:
        """The release that has the weights: what is followed, or else the last one that did."""
        history = history_of(self.gallery.release, context)
        weights = recipe.inputs["weights"]
        if weights_called(self.gallery.follows, history) == weights:
            return history.called(self.gallery.follows)
        return history.released_as(weights)

    def _earlier(self, recipe: Recipe, context: NodeContext) -> list[list[str]]:
        """What the gallery was before it is this, by other weights."""
        head = context.heads.read(self.key)
        if head is None or not self._was_alike(head, recipe):
            return []
        return earlier_of(head, recipe.inputs["weights"])

    def _was_alike(self, head: Head, recipe: Recipe) -> bool:
        """Whether what it was is the same of other weights or samples, or in another precision,
        and no other gallery."""
        rows_were = _what_is_embedded(head.recipes[ONLY]["parameters"])
        was = (head.facts["dataset"], head.facts["release"], rows_were)
        rows = _what_is_embedded(recipe.as_data()["parameters"])
        return was == (self.gallery.dataset, self.gallery.release, rows)

    def _rest(self, earlier: list[list[str]], context: NodeContext) -> list[str]:
        """Of what the gallery was, what has the rows that are not embedded anew yet."""
        rest = []
        for _, digest in reversed(earlier):
            artifact = context.store.open(self.kind, digest)
            if artifact is not None:
                rest.append(digest)
                if first_rows_of(artifact) is None:
                    break
        return rest

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any] | None:
        from fomo_dagster.galleries.embedding import embed
        from fomo_dagster.galleries.files import EMBEDDINGS, GROUPS, write_empty, write_groups
        from fomo_dagster.galleries.rows import rows_of

        if recipe.inputs["weights"] == NO_WEIGHTS:
            write_empty(folder / EMBEDDINGS)
            write_groups([], folder / GROUPS)
            return None
        from fomo_dagster.models.devices import device_of
        from fomo_dagster.training.meter import Meter

        gallery = self.gallery
        meter = Meter(device_of(self.execution.device))
        candidate, weights = released_weights(
            context.home, gallery.release, recipe.inputs["weights"], self.key
        )
        backbone = Backbone.model_validate(dict(candidate.backbone))
        index = index_of(gallery.dataset, context)
        rows = rows_of(index.samples, gallery.split, gallery.of, self.loaded.dataset.prompt)

        def encoder() -> Encoder:
            return encoder_of(
                backbone, weights, gallery.precision, self.execution, context, pixels_of(recipe)
            )

        def encode(groups: Iterable[pl.DataFrame]) -> Iterator[Floats]:
            if gallery.of == "images":
                found = encoder().image_groups(gallery.dataset, groups, index)
                yield from (features.numpy() for features in found)
                return
            for group in groups:
                yield encoder().texts(group["text"].to_list()).numpy()

        def progress(done: int, total: int) -> None:
            context.callbacks.progress(f"{gallery.of} of {gallery.dataset}", done, total)

        before = [
            made
            for made in self._made_by(recipe.inputs["weights"], context)
            if Pixels.of(made.manifest["recipe"]["parameters"]) is pixels_of(recipe)
        ]
        done = embed(rows, folder, encode, before, progress, recipe.parameters.get(FIRST_ROWS))
        cost = {"samples": done.encoded, "copied": done.copied, **meter.costs()}
        if not done.encoded:
            return cost
        architecture, counted = encoder().model.architecture, {gallery.of: done.encoded}
        return {**cost, **encoding_flops(architecture, context.home.cache, **counted)}

    def _made_by(self, weights: str, context: NodeContext) -> list[Artifact]:
        """What these weights embedded of it in the same way, the latest first, of other samples or
        fewer."""
        head = context.heads.read(self.key)
        if head is None:
            return []
        digests = [head.digest] if head.facts["weights"] == weights else []
        digests += [digest for other, digest in head.facts["earlier"] if other == weights]
        found = (context.store.open(self.kind, digest) for digest in digests)
        return [artifact for artifact in found if artifact is not None and self._is_alike(artifact)]

    def _is_alike(self, artifact: Artifact) -> bool:
        """Whether equal groups have equal embeddings in it and in what will be made."""
        made = artifact.manifest["recipe"]
        return made["version"] == self.version and all(
            made["parameters"][name] == self._parameters[name] for name in ("of", "precision")
        )

    def samples(self, facts: FactsByKey) -> int | None:
        images, refresh = self._images(facts), self.gallery.refresh
        progress = facts.get(self._progress_key)
        if refresh is None or progress is None or progress.of(ProgressDetails).first is None:
            return images
        return min(images, refresh.rows)

    def _images(self, facts: FactsByKey) -> int:
        """How many there are of its split."""
        details = facts[self.inputs[0]].of(SampleDetails)
        of_splits = {"train": sum(details.train_samples.values()), "test": details.test_samples}
        split = self.gallery.split
        return sum(of_splits.values()) if split == "all" else of_splits[split]

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        details = GalleryDetails.from_data(outcome.head.facts)
        made = outcome.artifacts[ONLY].cost
        number = details.number
        return {
            self.gallery.of: details.rows,
            "dimensions": details.dimensions,
            "embedded_by": "nothing" if number is None else f"release {number}",
            "encoded": int(made.get("samples", 0)),
            "copied": int(made.get("copied", 0)),
            **({} if details.whole else {"whole": "no: out of date until all rows are embedded"}),
        }


def earlier_of(head: Head, weights: str) -> list[list[str]]:
    """[weights, digest] of what an asset was until now by other weights than these, each once, the
    latest last."""
    earlier: dict[str, str] = {}
    for one, digest in [*head.facts["earlier"], [head.facts["weights"], head.digest]]:
        earlier.pop(one, None)
        earlier[one] = digest
    for one in (weights, NO_WEIGHTS):
        earlier.pop(one, None)
    return [[one, digest] for one, digest in earlier.items()]


def first_rows_of(artifact: Artifact) -> int | None:
    """About how many rows it has, from the first on; None where it has all."""
    first: int | None = artifact.manifest["recipe"]["parameters"].get(FIRST_ROWS)
    return first


def _what_is_embedded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a recipe, without how, and how many."""
    how = (FIRST_ROWS, "precision", PARAMETER)
    return {name: value for name, value in parameters.items() if name not in how}

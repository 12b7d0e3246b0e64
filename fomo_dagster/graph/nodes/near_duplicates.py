"""The node of the near duplicates among what a stage brings.

It is identified by the content of chunks and test splits, so that an image which joins a later
chunk changes nothing of an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.errors import StoreError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.near_duplicates import NearDuplicates
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey
from fomo_dagster.graph.core.files import FEATURES, MANIFEST, SAMPLE
from fomo_dagster.graph.core.keys import features_key, hashes_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Check, Checked, Picture, Shown
from fomo_dagster.graph.nodes.chunk_hashes import (
    UNKNOWN,
    LearntDetails,
    hashes_by,
    hashes_recipe,
    learnt_facts,
    learnt_key,
)
from fomo_dagster.graph.nodes.features import FeaturesNode
from fomo_dagster.graph.nodes.hashes import HASHES, HashesNode
from fomo_dagster.graph.nodes.live_start import StartDetails
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.data.near_duplicates import Found
    from fomo_dagster.graph.core.context import NodeContext

PAIRS_FILE = "pairs.parquet"
COUNTS = "counts.json"
SHEET = "pairs.jpg"
OF_CHUNK, OF_KEPT = "hashes", "hashes_of_kept"  # artifacts for releases: see `chunk_hashes`
NO_LEAKAGE = Check(
    "no_leakage",
    "Nothing that the stage or earlier ones bring is a near duplicate of a test image that it is "
    "evaluated on.",
)


@dataclass(frozen=True, kw_only=True)
class NearDuplicatesDetails(Details):
    """samples: that the stage brings; leaking: those near a test image; repeated: those near one
    that came before."""

    samples: int | None = None
    leaking: int | None = None
    repeated: int | None = None


@dataclass(frozen=True, kw_only=True)
class SeenBy:
    """θ₀, and how it is executed."""

    backbone: Backbone
    checkpoint_key: str
    execution: Execution


@dataclass(frozen=True, kw_only=True)
class NearDuplicatesNode(Node):
    """What a chunk brings, held against test images, earlier chunks and itself."""

    kind: ClassVar[str] = "near_duplicates"
    details: ClassVar[type[Details]] = NearDuplicatesDetails
    tools: ClassVar[frozenset[str]] = frozenset({"parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "chunk": "the stage brings other samples",
        "earlier": "earlier stages brought other samples",
        "tests": "the test images are others",
        "late": "other test images came after what earlier stages brought",
        "learnt": "the release that it starts from learnt something else",
        "checkpoint": "the weights are others",
    }
    stage: int
    settings: NearDuplicates
    chunk_keys: tuple[str, ...]  # of stages 1..stage
    trained_on: tuple[str, ...]  # the datasets that these may bring samples of
    evaluated: tuple[str, ...]
    evaluated_then: tuple[tuple[str, ...], ...]  # at the stages before, from 1 on
    seen_by: SeenBy | None
    """Whose features count, where they do."""
    start_key: str | None = None
    """What the stage is trained from, where that is what was live then."""
    release: str | None = None
    """Of the experiment, if it has one."""

    @classmethod
    def of(
        cls, experiment: str, settings: NearDuplicates, chunk_keys: Iterable[str],
        trained_on: Iterable[str], evaluated: Iterable[Iterable[str]], seen_by: SeenBy,
        start_key: str | None, release: str | None,
    ) -> NearDuplicatesNode:  # fmt: skip
        """Of the last of `chunk_keys`. evaluated: the datasets of each of their stages."""
        keys = tuple(chunk_keys)
        *then, now = map(tuple, evaluated)
        return cls(
            key=f"{experiment}/near_duplicates_{len(keys):03d}", experiment=experiment,
            stage=len(keys), settings=settings, chunk_keys=keys, trained_on=tuple(trained_on),
            evaluated=now, evaluated_then=tuple(then),
            seen_by=None if settings.similarity is None else seen_by, start_key=start_key,
            release=release,
        )  # fmt: skip

    @property
    def hashes(self) -> Iterator[HashesNode]:
        """The nodes of the hashes that it needs."""
        for name in self.trained_on:
            yield HashesNode.of(name, "train")
        for name in self.evaluated:
            yield HashesNode.of(name, "test")

    @property
    def features(self) -> Iterator[FeaturesNode]:
        """The nodes of the features that it needs."""
        seen = self.seen_by
        if seen is not None:
            by = (seen.backbone, seen.checkpoint_key, seen.execution)
            yield from (FeaturesNode.of(name, "train", *by) for name in self.trained_on)
            yield from (FeaturesNode.of(name, "test", *by) for name in self.evaluated)

    @property
    def description(self) -> str:
        return f"Near duplicates among what stage {self.stage} brings."

    @property
    def inputs(self) -> tuple[str, ...]:
        seen = (node.key for node in (*self.hashes, *self.features))
        by = () if self.seen_by is None else (self.seen_by.checkpoint_key,)
        start = () if self.start_key is None else (self.start_key,)
        return (*by, *self.chunk_keys, *seen, *start)

    def _earlier(self, facts: FactsByKey) -> dict[int, str]:
        """The chunks that came before, by stage. Of those that a stage which starts from what is
        live never learnt, since theirs were refused, nothing is a duplicate: they may come again,
        corrected.
        """
        start = None if self.start_key is None else facts[self.start_key].of(StartDetails)
        learnt = None if start is None else start.learnt
        earlier = enumerate(self.chunk_keys[:-1], start=1)
        return {stage: key for stage, key in earlier if learnt is None or stage in learnt}

    def _late(self, facts: FactsByKey) -> dict[int, list[str]]:
        """Earlier stage → the datasets that were not evaluated then, and are now."""
        then = {s: set(self.evaluated_then[s - 1]) for s in self._earlier(facts)}
        late = {s: [d for d in self.evaluated if d not in there] for s, there in then.items()}
        return {stage: names for stage, names in late.items() if names}

    def outside_facts(self, context: NodeContext) -> dict[str, Facts]:
        if self.start_key is None or self.release is None:
            return {}
        key = learnt_key(self.release, self.start_key)
        return {key: learnt_facts(self.release, self.start_key, context)}

    def _learnt(self, facts: FactsByKey) -> list[list[str]]:
        """Of chunks that are not those of the stages up to this one, what the release learnt that
        it starts from: as of `LearntDetails`."""
        if self.start_key is None or self.release is None:
            return []
        number = facts[self.start_key].of(StartDetails).number
        learnt = facts[learnt_key(self.release, self.start_key)].of(LearntDetails).by_number
        held = {facts[key].data_version for key in (*self._earlier(facts).values(), self._chunk)}
        return [one for one in learnt.get(number or 0, []) if one[1] not in held]

    @property
    def _chunk(self) -> str:
        return self.chunk_keys[-1]

    @property
    def declared(self) -> Mapping[str, Any]:
        near = self.settings.model_dump(mode="json", exclude={"deduplicate", "similarity"})
        told = {**near, "hashes": HashesNode.version}
        if self.seen_by is not None:
            told |= {"similarity": self.settings.similarity, "features": FeaturesNode.version}
        return told

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        chunk = facts[self._chunk].data_version
        earlier = [facts[key].data_version for key in self._earlier(facts).values()]
        tests = {name: facts[hashes_key(name, "test")].data_version for name in self.evaluated}
        inputs: dict[str, Any] = {"chunk": chunk, "earlier": earlier, "tests": tests}
        if late := self._late(facts):
            inputs["late"] = [
                [facts[self.chunk_keys[stage - 1]].data_version, {d: tests[d] for d in names}]
                for stage, names in late.items()
            ]
        if self.seen_by is not None:
            inputs["checkpoint"] = facts[self.seen_by.checkpoint_key].data_version
        if learnt := self._learnt(facts):
            inputs["learnt"] = learnt
        found = {ONLY: Recipe(self.kind, self.version, self.declared, inputs)}
        if self.release is not None:
            found[OF_CHUNK] = hashes_recipe(chunk)
            if self.settings.deduplicate:
                found[OF_KEPT] = hashes_recipe(chunk, found[ONLY].digest)
        return found

    @property
    def needs(self) -> Needs:
        return Needs()

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.data.near_duplicates import Found, pairs_of

        train = _together(self._seen(name, "train", context) for name in self.trained_on)
        chunk = _hashed(self._chunk, train, context)
        if name != ONLY:
            self._keep(chunk, recipe, folder, context)
            return {"samples": chunk.height}
        tests = _together(self._seen(name, "test", context) for name in self.evaluated)
        facts = self.input_facts(context)
        brought = {s: _hashed(k, train, context) for s, k in self._earlier(facts).items()}
        late = [
            (brought[stage], tests.filter(pl.col("dataset").is_in(names)))
            for stage, names in self._late(facts).items()
        ]
        learnt = recipe.inputs.get("learnt", [])
        known = [digest for *_, digest in learnt if digest != UNKNOWN]
        unknown = [key.partition(" ")[0] for key, _, digest in learnt if digest == UNKNOWN]
        pairs = pairs_of(
            chunk, _together(brought.values()), tests, self.settings.distance, late=late,
            learnt=_together(hashes_by(digest, context) for digest in known),
            mirrored=self.settings.mirrored, similarity=self.settings.similarity,
            progress=context.callbacks.progress,
        )  # fmt: skip
        pairs.write_parquet(folder / PAIRS_FILE)
        counts: dict[str, Any] = {
            "samples": chunk.height, "unseen": chunk["hash"].null_count(), "unknown": unknown
        }  # fmt: skip
        (folder / COUNTS).write_text(json.dumps(counts))
        if pairs.height:
            self._draw(Found(**counts, pairs=pairs), folder, context)
        return {"samples": chunk.height}

    def _keep(
        self, chunk: pl.DataFrame, recipe: Recipe, folder: Path, context: NodeContext
    ) -> None:
        """The hashes of a chunk, without what is left out of it."""
        from fomo_dagster.data.perceptual_hashes import HASHES as COLUMNS

        if (digest := recipe.inputs.get("left_out")) is not None:
            left_out = found_by(digest, context).of_the_stage
            chunk = chunk.join(left_out, on=SAMPLE, how="anti", maintain_order="left")
        chunk.select("dataset", *COLUMNS).write_parquet(folder / HASHES)

    def _draw(self, found: Found, folder: Path, context: NodeContext) -> None:
        """Some of the pairs, as far as their images are there."""
        from fomo_dagster.graph.work.sample_images import SampleImages
        from fomo_dagster.plots.pairs_sheet import pair_tiles
        from fomo_dagster.plots.thumbnails import thumbnails

        tiles = pair_tiles(found.nearest, SampleImages(lambda: context))
        if tiles:
            record_path(folder, SHEET).write_bytes(thumbnails(tiles))

    def _seen(self, name: str, split: str, context: NodeContext) -> pl.DataFrame:
        """HASHES of a split, with its dataset, and features where they count."""
        import polars as pl

        rows = read_parquet(context.artifact(hashes_key(name, split)).path(HASHES))
        if self.seen_by is not None:
            key = features_key(self.seen_by.checkpoint_key, name, split)
            features = read_parquet(context.artifact(key).path(FEATURES))
            rows = rows.join(features, on="key", how="left", maintain_order="left")
        return rows.with_columns(dataset=pl.lit(name))

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        return Facts(recipes[ONLY].digest, NearDuplicatesDetails())

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        found = found_in(artifacts[ONLY])
        details = NearDuplicatesDetails(
            samples=found.samples, leaking=found.leaking, repeated=found.repeated
        )
        return Facts(recipes[ONLY].digest, details)

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("near_duplicates",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        rows = found_in(artifacts[ONLY]).nearest.with_columns(
            experiment=pl.lit(self.experiment), stage=pl.lit(self.stage, pl.Int64)
        )
        yield "near_duplicates", rows.select(*SCHEMAS["near_duplicates"])

    def warnings(self, artifacts: Mapping[str, Artifact]) -> Iterator[str]:
        from fomo_dagster.data.near_duplicates import LEAKAGE

        found, stage = found_in(artifacts[ONLY]), f"stage {self.stage} of {self.experiment}"
        said = [found.sentence(LEAKAGE)] if found.leaking else []
        for sentence in (*said, *found.of_before):
            yield (
                f"{stage}: {sentence}; `fomo duplicates {self.experiment} --stage {self.stage}` "
                "shows them"
            )
        if found.unknown:
            yield f"{stage}: {found.said_of_unknown}"
        if found.unseen:
            yield (
                f"{stage}: {found.unseen} of {found.samples} samples cannot be decoded, so no near "
                "duplicates of them are found"
            )

    @property
    def checks(self) -> tuple[Check, ...]:
        return (NO_LEAKAGE,)

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        from fomo_dagster.data.near_duplicates import LEAKAGE

        found = found_in(outcome.artifacts[ONLY])
        details = {"found": found.sentence(LEAKAGE), "distance": self.settings.distance,
                   "similarity": self.settings.similarity,
                   "not_looked_at": found.unseen}  # fmt: skip
        if found.leaked:
            details["learnt_before"] = "; ".join(found.of_before)
        if found.unknown:
            details["not_known"] = found.said_of_unknown
        yield Checked(NO_LEAKAGE.name, not found.leaking + found.leaked, details=details)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        artifact = outcome.artifacts[ONLY]
        found = found_in(artifact)
        return {
            "pairs": Picture(artifact.record(SHEET)),
            "samples": found.samples,
            "near_a_test_image": found.leaking,
            "near_one_that_came_before": found.repeated,
            "learnt_before_and_near_a_test_image": found.leaked,
            "nearest": found.nearest,
        }


def found_in(artifact: Artifact) -> Found:
    """What was found, of an artifact of this kind."""
    import polars as pl

    from fomo_dagster.data.near_duplicates import PAIRS, Found

    counts = json.loads(artifact.path(COUNTS).read_text())
    pairs = read_parquet(artifact.path(PAIRS_FILE))
    # Before features counted, there was no column of them.
    return Found(**counts, pairs=pl.concat([pl.DataFrame(schema=PAIRS), pairs], how="diagonal"))


def found_by(digest: str, context: NodeContext) -> Found:
    """What was found, by the data version of a node of this kind."""
    artifact = context.store.open(NearDuplicatesNode.kind, digest)
    if artifact is None:
        raise StoreError(
            f"the near duplicates {digest} are gone: `fomo run` of the experiment makes them again"
        )
    return found_in(artifact)


def _hashed(chunk_key: str, train: pl.DataFrame, context: NodeContext) -> pl.DataFrame:
    """The samples of a chunk, in its order, with their hashes."""
    samples = read_parquet(context.artifact(chunk_key).path(MANIFEST)).select(SAMPLE)
    return samples.join(train, on=SAMPLE, how="left", maintain_order="left")


def _together(frames: Iterable[pl.DataFrame]) -> pl.DataFrame:
    import polars as pl

    from fomo_dagster.data.perceptual_hashes import HASHES as COLUMNS

    empty = pl.DataFrame(schema={"dataset": pl.String(), **COLUMNS})
    return pl.concat([empty, *frames], how="diagonal")

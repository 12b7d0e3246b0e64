"""The nodes of data: observed sources and shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.release.source import FomoReleaseSource
from fomo_dagster.graph.core.facts import ONLY, Details, Facts, FactsByKey, facts_of
from fomo_dagster.graph.core.keys import DATASETS, shards_key, source_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Bullets, Check, Checked, Picture, Shown
from fomo_dagster.graph.nodes.details import SampleDetails, SourceDetails
from fomo_dagster.graph.work.observations import DatasetObservation, ScanObservation
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.heads import Head
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.data.index import Index
    from fomo_dagster.graph.core.context import NodeContext

SAMPLES_PER_SHARD = 1024
QUARANTINE = "quarantine.parquet"
SEEN = "seen.parquet"
CONTACT_SHEET = "contact_sheet.png"
READABLE_IMAGES = Check(
    "readable_images",
    "Unreadable images are within the limit; warns if there is any.",
    blocking=True,
)
NO_EMPTY_CONCEPTS = Check(
    "no_empty_concepts",
    "If the dataset is trained on, every concept has training samples, unless its source lists its "
    "concepts.",
)
AS_IN_THE_BENCHMARK = Check(
    "as_in_the_benchmark",
    "Images, samples and classes are those of the benchmark's registry.",
)


@dataclass(frozen=True, kw_only=True)
class DatasetSource:
    """Observes a dataset's source."""

    name: str
    dataset: Dataset
    base: Path

    def __call__(self, context: NodeContext) -> ScanObservation:
        from fomo_dagster.data.samples import content_digest
        from fomo_dagster.data.sources.source import inspect, remarks

        source = self.dataset.open(self.name, self.base, context.home.cache)
        found = inspect(source)
        content: Any = content_digest(found.scan)
        parts = {"samples": content}
        if unseen := sorted(set(found.classes) - set(found.scan["concept"].unique())):
            parts["classes_without_samples"] = unseen
        if found.unusable.height:
            parts["unusable"] = [list(row) for row in found.unusable.rows()]
        return ScanObservation(
            data_version=content if len(parts) == 1 else digest_of(parts),
            warnings=remarks(self.name, found),
            details=SourceDetails(samples=found.scan.height),
            scan=found.scan,
            unusable=found.unusable,
            source=source,
            classes=found.classes,
        )


def facts_of_samples(
    samples: pl.DataFrame, classes: Iterable[str] = (), quarantined: Iterable[str] = ()
) -> Facts:
    """What chunks, pools and evaluations need to know of a dataset's samples (SAMPLES).

    classes: those that the source names; with or without samples they are there to choose from, so
    that those without are part of the content too. quarantined: digests of unreadable images.
    """
    import polars as pl

    from fomo_dagster.data.samples import concept_digests, split_digest

    train = samples.filter(pl.col("split") == "train")
    numbers = dict(train.group_by("concept").len().iter_rows())
    wordless = train.filter(pl.col("captions").list.len() == 0)["concept"].unique()
    present = set(samples["concept"].unique())
    details = SampleDetails(
        train=concept_digests(samples, "train"),
        train_samples={concept: numbers[concept] for concept in sorted(numbers)},
        wordless=wordless.sort().to_list(),
        test=split_digest(samples, "test"),
        test_samples=samples.filter(pl.col("split") == "test").height,
        concepts=sorted({*present, *classes}),
        quarantined=sorted(quarantined),
    )
    content: dict[str, Any] = {"train": details.train, "test": details.test}
    if unseen := sorted(set(classes) - present):
        content["classes_without_samples"] = unseen
    return Facts(digest_of(content), details)


@dataclass(frozen=True, kw_only=True)
class ShardsNode(Node):
    """A dataset as WebDataset tars and an index; identified by its content."""

    kind: ClassVar[str] = "shards"
    details: ClassVar[type[Details]] = SampleDetails
    group: ClassVar[str] = DATASETS
    tools: ClassVar[frozenset[str]] = frozenset({"webdataset", "parquet"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "source": "its source brings other samples",
    }
    name: str
    dataset: Dataset

    @property
    def description(self) -> str:
        return "The dataset's images and captions as WebDataset tars, with an index."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (source_key(self.name),)

    @property
    def declared(self) -> Mapping[str, Any]:
        """With the source, so that Dagster sees a changed declaration before it is observed."""
        source = self.dataset.source
        declared = source.model_dump(mode="json", exclude=set(source.places))
        return {"source": declared, **self._parameters}

    @property
    def _parameters(self) -> dict[str, Any]:
        return {
            "resize": self.dataset.resize,
            "samples_per_shard": SAMPLES_PER_SHARD,
            **self.dataset.decoding.as_data(),
        }

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        scan = facts[source_key(self.name)].data_version
        return {ONLY: Recipe(self.kind, self.version, self._parameters, {"source": scan})}

    @property
    def needs(self) -> Needs:
        return Needs(spreads=True)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        from fomo_dagster.data.index import Index
        from fomo_dagster.data.reading import Reading
        from fomo_dagster.data.shards import write_shards
        from fomo_dagster.data.sources.source import Inspection

        observed = context.observe(source_key(self.name)).of(ScanObservation)
        report = write_shards(
            Inspection(observed.scan, unusable=observed.unusable),
            Reading(observed.source, self.dataset.resize, decoding=self.dataset.decoding),
            folder,
            unreadable_limit=self.dataset.unreadable_limit,
            workers=context.processes,
            progress=context.callbacks.progress,
            samples_per_shard=SAMPLES_PER_SHARD,
        )
        sheet = contact_sheet_of(Index(folder), self.name)
        record_path(folder, CONTACT_SHEET).write_bytes(sheet)
        return {"samples": sum(report.samples.values()), "bytes": report.bytes}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        """As if all images were readable and opaque, except for those known not to be."""
        known = self.known(recipes, context)
        if known is not None:
            return known
        head = context.heads.read(self.key)
        quarantined = _quarantined(head) if head else []
        return self._facts(expected_samples(self.name, self.dataset, context), quarantined, context)

    def facts_of_made(
        self, recipes: Mapping[str, Recipe], artifacts: Mapping[str, Artifact], context: NodeContext
    ) -> Facts:
        from fomo_dagster.data.index import Index

        quarantined = read_parquet(artifacts[ONLY].path(QUARANTINE))["digest"].to_list()
        samples = Index(artifacts[ONLY].folder).sample_table
        found = self._facts(samples, quarantined, context)
        return with_counts(found, artifacts[ONLY])

    def _facts(self, samples: pl.DataFrame, quarantined: list[str], context: NodeContext) -> Facts:
        observed = context.observe(source_key(self.name)).of(ScanObservation)
        return facts_of_samples(samples, observed.classes, quarantined)

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("datasets", "samples")

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.data.index import Index
        from fomo_dagster.tables.schemas import SCHEMAS

        artifact = artifacts[ONLY]
        samples = Index(artifact.folder).sample_table
        splits = samples["split"]
        counts = image_counts(artifact)
        row = {
            "dataset": self.name,
            "task": self.dataset.task,
            "domain": self.dataset.domain,
            "licence": self.dataset.licence,
            "concepts": samples["concept"].n_unique(),
            "train_samples": int((splits == "train").sum()),
            "test_samples": int((splits == "test").sum()),
            "quarantined": counts["unreadable"],
            "transparent": counts["transparent"],
            "flat": counts["flat"],
            "bytes": self._bytes(artifact, facts),
        }
        yield "datasets", pl.DataFrame([row], schema=SCHEMAS["datasets"])
        with_name = samples.with_columns(dataset=pl.lit(self.name))
        yield "samples", with_name.select(*SCHEMAS["samples"])

    def _bytes(self, artifact: Artifact, facts: FactsByKey) -> int:
        """Of all shards."""
        files: Mapping[str, Any] = artifact.manifest["files"]
        return sum(entry["size"] for name, entry in files.items() if name.endswith(".tar"))

    def warnings(self, artifacts: Mapping[str, Artifact]) -> Iterator[str]:
        from fomo_dagster.data.index import Index
        from fomo_dagster.data.sources.files import shortlist

        left_out = read_parquet(artifacts[ONLY].path(QUARANTINE))
        if left_out.height:
            named = [f"{key} ({why})" for key, why in left_out.select("key", "reason").iter_rows()]
            count = int(left_out["samples"].sum())
            samples = Index(artifacts[ONLY].folder).samples.height + count
            yield (
                f"{count} of {samples} samples "
                f"of dataset {self.name!r} cannot be used and are left out: {shortlist(named)}"
            )

        yield from self._odd_images(artifacts[ONLY])

    def _odd_images(self, artifact: Artifact) -> Iterator[str]:
        """Of what makes a picture other than it may have been meant."""
        import polars as pl

        from fomo_dagster.data.index import Index
        from fomo_dagster.data.sources.files import shortlist

        shown = {
            "transparent": "have transparency, which shows the background "
            f"{self.dataset.background} (`background`)",
            "flat": "are of one colour alone",
        }
        if not self.dataset.upright:
            shown["turned"] = (
                "have orientation tags, which are ignored (`upright: true` heeds them)"
            )
        seen = read_parquet(artifact.path(SEEN))
        count = Index(artifact.folder).samples.height
        for name, said in shown.items():
            keys = seen.filter(pl.col(name))["key"].to_list()
            if keys:
                yield (
                    f"{len(keys)} of {count} images of dataset {self.name!r} "
                    f"{said}: {shortlist(keys)}"
                )

    def samples(self, facts: FactsByKey) -> int | None:
        return facts[source_key(self.name)].of(SourceDetails).samples

    @property
    def checks(self) -> tuple[Check, ...]:
        """A concept that has only test images does no harm to a training, so it only warns. A
        concept that lost all its training images fails in sharding. If the source itself lists the
        classes, one without training images is fine: evaluation can choose it."""
        released = isinstance(self.dataset.source, FomoReleaseSource)
        return (*((AS_IN_THE_BENCHMARK,) if released else ()), READABLE_IMAGES, NO_EMPTY_CONCEPTS)

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        found = facts_of(outcome.head).of(SampleDetails)
        unreadable = (found.counts or {})["unreadable"]
        total = unreadable + found.test_samples + sum(found.train_samples.values())
        share, limit = unreadable / total, self.dataset.unreadable_limit
        yield Checked(
            READABLE_IMAGES.name,
            unreadable == 0,
            "error" if share > limit else "warning",
            {"unreadable": unreadable, "share": share, "limit": limit},
        )
        source = context.observe(self.inputs[0]).of(DatasetObservation)
        expected = {*found.train_samples, *source.classes}
        empty = sorted(set(found.concepts) - expected) if found.train_samples else []
        named = ", ".join(empty[:20]) or "none"
        yield Checked(
            NO_EMPTY_CONCEPTS.name, not empty, details={"without_training_samples": named}
        )
        if AS_IN_THE_BENCHMARK in self.checks:
            said = source.warnings
            details = {"differences": "\n".join(said) or "none"}
            yield Checked(AS_IN_THE_BENCHMARK.name, not said, details=details)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        artifact, found = outcome.artifacts[ONLY], facts_of(outcome.head).of(SampleDetails)
        quarantined = read_parquet(artifact.path(QUARANTINE))
        said = context.observe(self.inputs[0]).warnings
        shown: dict[str, Shown] = {
            "images_of_concepts": Picture(artifact.record(CONTACT_SHEET)),
            "concepts": len(found.concepts),
            "train_samples": sum(found.train_samples.values()),
            "test_samples": found.test_samples,
            **{f"{name}_images": count for name, count in (found.counts or {}).items()},
            **({"warnings": Bullets(said)} if said else {}),
        }
        if quarantined.height:
            shown["unreadable"] = quarantined.select("split", "key", "reason")
        return shown


def expected_samples(name: str, dataset: Dataset, context: NodeContext) -> pl.DataFrame:
    """The samples (SAMPLES) that a dataset's shards will hold, by what is known of its images from
    the shards there are; see `ShardsNode.predict`."""
    import polars as pl

    from fomo_dagster.data.shards import stored_samples

    scan = context.observe(source_key(name)).of(ScanObservation).scan
    head = context.heads.read(shards_key(name))
    if head is None:
        return stored_samples(scan, dataset.resize)
    readable = scan.filter(~pl.col("digest").is_in(_quarantined(head)))
    made = context.store.find_here(Recipe.from_data(head.recipes[ONLY]))
    seen = None
    if made is not None and SEEN in made.manifest["files"]:
        seen = read_parquet(made.path(SEEN))
    return stored_samples(readable, dataset.resize, dataset.decoding, seen)


def with_counts(facts: Facts, artifact: Artifact) -> Facts:
    """`facts` with how many images a dataset's shards left out, and how many are odd."""
    details = replace(facts.of(SampleDetails), counts=image_counts(artifact))
    return replace(facts, details=details)


def image_counts(artifact: Artifact) -> dict[str, int]:
    """How many of a dataset's images are unreadable, transparent, flat and so on (`Seen`)."""
    import polars as pl

    seen = read_parquet(artifact.path(SEEN))
    odd = {name: int(seen[name].sum()) for name in seen.columns if seen[name].dtype == pl.Boolean}
    lost = read_parquet(artifact.path(QUARANTINE))["samples"].sum()
    return {"unreadable": int(lost), **odd}


def contact_sheet_of(index: Index, name: str) -> bytes:
    """PNG of some samples, spread over the dataset's concepts."""
    from fomo_dagster.plots.dataset_sheet import dataset_sheet

    return dataset_sheet(
        index.samples,
        lambda row: index.read(row["shard"], row["offset"], row["size"]),
        name,
        index.decoding,
    )


def _quarantined(head: Head) -> list[str]:
    """Digests of the images that were unreadable when a dataset's shards were made; none where it
    was streamed then, when nobody looked."""
    details = facts_of(head).details
    return details.quarantined if isinstance(details, SampleDetails) else []

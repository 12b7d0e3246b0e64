"""Manifests: the table of samples (`MANIFEST`) that a chunk or a pool brings.

`chunks.py` decides which concepts a chunk has. A manifest does not say where images are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from fomo_dagster.data.samples import MANIFEST
from fomo_dagster.streams.entries import parse_entry, validate


class TrainingSamples:
    """The training samples of a dataset by concept, so that a chunk takes its concepts' alone.

    `samples`: a table with the columns of `SAMPLES`; more do not matter.
    """

    def __init__(self, dataset: str, samples: pl.DataFrame) -> None:
        train = samples.filter(pl.col("split") == "train")
        named = train.with_columns(dataset=pl.lit(dataset)).select(*MANIFEST)
        self._rows = named.sort("concept", "key")
        starts = (
            self._rows.with_row_index("start")
            .group_by("concept", maintain_order=True)
            .agg(pl.col("start").first(), pl.len())
        )
        self._places = {concept: (start, count) for concept, start, count in starts.rows()}

    @property
    def concepts(self) -> list[str]:
        """Sorted by name."""
        return list(self._places)

    def of(self, concept: str) -> pl.DataFrame:
        """The concept's samples (MANIFEST) by key."""
        return self._rows.slice(*self._places[concept])


def chunk_manifest(entries: Sequence[str], samples: Mapping[str, TrainingSamples]) -> pl.DataFrame:
    """The manifest of a chunk: its concepts' training samples, by entry and then by key.

    Raises `InputError` if an entry stands twice, or names a dataset that is not in `samples` or
    a concept without training samples.
    """
    validate(entries, {dataset: table.concepts for dataset, table in samples.items()})
    concepts = [samples[dataset].of(concept) for dataset, concept in map(parse_entry, entries)]
    return pl.concat([pl.DataFrame(schema=MANIFEST), *concepts], rechunk=True)


def with_prompts(manifest: pl.DataFrame, prompts: Mapping[str, str]) -> pl.DataFrame:
    """The MANIFEST in which each sample without a caption has its dataset's prompt, with the
    concept in place of `{}`."""
    prompt = pl.col("dataset").replace_strict(dict(prompts), return_dtype=pl.String)
    prompted = prompt.str.replace("{}", pl.col("concept"), literal=True)
    captioned = pl.col("captions").list.len() > 0
    captions = pl.when(captioned).then("captions").otherwise(pl.concat_list(prompted))
    return manifest.with_columns(captions=captions)


def with_texts(manifest: pl.DataFrame, templates: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """The MANIFEST with new captions for all samples of the datasets in `templates`: each of the
    dataset's templates, with the concept in place of `{}`."""
    named = manifest.filter(pl.col("dataset").is_in(list(templates)))
    concepts = named.select("dataset", "concept").unique(maintain_order=True)
    texts = [
        [t.replace("{}", name) for t in templates[dataset]] for dataset, name in concepts.rows()
    ]
    given = concepts.with_columns(pl.Series("texts", texts, pl.List(pl.String)))
    joined = manifest.join(given, on=["dataset", "concept"], how="left", maintain_order="left")
    return joined.with_columns(captions=pl.coalesce("texts", "captions")).select(*MANIFEST)

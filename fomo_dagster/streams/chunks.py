"""A stream cut into the chunks of its stages, and the samples that each chunk brings.

A chunk's manifest is a table of samples (`MANIFEST`); where their images lie is not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise

import numpy as np
import polars as pl

from fomo_dagster.data.samples import MANIFEST
from fomo_dagster.errors import InputError
from fomo_dagster.streams.entries import parse_entry, validate


def cut(entries: Sequence[str], stages: int) -> list[list[str]]:
    """`entries` in `stages` contiguous chunks of equal length, the first ones one longer.

    With q, r = divmod(N, T), the first r chunks have q + 1 concepts and the others q (as the
    benchmark, arXiv 2408.14471). Raises `InputError` for fewer than one stage, or more stages than
    concepts.
    """
    if not 1 <= stages <= len(entries):
        raise InputError(
            f"a stream of {len(entries)} concepts cannot have {stages} stages: "
            f"each needs at least one concept, so choose from 1 to {len(entries)}"
        )
    length, longer = divmod(len(entries), stages)
    ends = accumulate((length + (stage < longer) for stage in range(stages)), initial=0)
    return [list(entries[start:end]) for start, end in pairwise(ends)]


def chunk_manifests(
    chunks: Sequence[Sequence[str]], samples: Mapping[str, pl.DataFrame]
) -> list[pl.DataFrame]:
    """The manifest of each chunk: its concepts' training samples, by entry and then by key.

    `samples` holds a table (`SAMPLES`, more columns do not matter) per dataset. All chunks are made
    in one pass over it. Raises `InputError` where an entry stands twice, or names a dataset that is
    not in `samples` or a concept without training samples.
    """
    train = {
        dataset: table.filter(pl.col("split") == "train").select(
            pl.lit(dataset).alias("dataset"), "concept", "key", "captions", "digest"
        )
        for dataset, table in samples.items()
    }
    entries = list(chain.from_iterable(chunks))
    validate(entries, {dataset: table["concept"].unique() for dataset, table in train.items()})
    names = [parse_entry(entry) for entry in entries]
    places = pl.DataFrame(
        {
            "dataset": [dataset for dataset, _ in names],
            "concept": [concept for _, concept in names],
            "chunk": [number for number, chunk in enumerate(chunks) for _ in chunk],
        },
        schema={"dataset": pl.String, "concept": pl.String, "chunk": pl.Int64},
    ).with_row_index("place")
    rows = (
        pl.concat([pl.DataFrame(schema=MANIFEST), *train.values()])
        .join(places, on=["dataset", "concept"])
        .sort("place", "key")
    )
    ends = rows["chunk"].search_sorted(np.arange(len(chunks) + 1), side="left")
    return [rows[start:end].select(*MANIFEST) for start, end in pairwise(ends)]


def chunk_manifest(entries: Sequence[str], samples: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The manifest of one chunk; see `chunk_manifests`, which is faster for several."""
    return chunk_manifests([entries], samples)[0]


def with_prompts(manifest: pl.DataFrame, prompts: Mapping[str, str]) -> pl.DataFrame:
    """The MANIFEST with, as the caption of each sample that has none, its dataset's prompt with the
    concept in the place of `{}`."""
    prompt = pl.col("dataset").replace_strict(dict(prompts), return_dtype=pl.String)
    prompted = prompt.str.replace("{}", pl.col("concept"), literal=True)
    captioned = pl.col("captions").list.len() > 0
    captions = pl.when(captioned).then("captions").otherwise(pl.concat_list(prompted))
    return manifest.with_columns(captions=captions)

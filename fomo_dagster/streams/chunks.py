"""A stream cut into the chunks of its stages, and the samples that each chunk brings.

A chunk's manifest is a table of samples (`MANIFEST`); where their images lie is not part of it.
"""

from __future__ import annotations

from bisect import bisect_left
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
    _check_stages(len(entries), stages)
    length, longer = divmod(len(entries), stages)
    ends = accumulate(length + (stage < longer) for stage in range(stages - 1))
    return _between(entries, list(ends))


def cut_by_samples(entries: Sequence[str], samples: Sequence[int], stages: int) -> list[list[str]]:
    """`entries` in `stages` contiguous chunks of whole concepts with about as many samples each.

    samples: of each entry. With S samples in all, the cut after chunk t falls where the number of
    samples so far is nearest to t·S/T, the earlier of two equally near places; where that would
    leave a chunk without a concept, it moves to the nearest place that does not. So no chunk is
    further from S/T than one concept's samples, but for those that a larger concept forces. Raises
    `InputError` as `cut`.
    """
    _check_stages(len(entries), stages)
    sums = [0, *accumulate(samples)]
    cuts: list[int] = []
    for stage in range(1, stages):
        first = cuts[-1] + 1 if cuts else 1
        last = len(entries) - (stages - stage)
        aim = stage * sums[-1]  # times T, so that everything stays whole
        after = bisect_left(sums, aim, lo=first, hi=last, key=lambda value: value * stages)
        before = max(after - 1, first)
        nearer = abs(sums[before] * stages - aim) <= abs(sums[after] * stages - aim)
        cuts.append(before if nearer else after)
    return _between(entries, cuts)


def cut_at(entries: Sequence[str], positions: Sequence[int]) -> list[list[str]]:
    """`entries` cut before each of `positions`, which count from 1: where chunks 2..T begin.

    Raises `InputError` where they do not increase or would leave a chunk without a concept.
    """
    edges = [1, *positions, len(entries) + 1]
    for before, after in pairwise(edges):
        if before >= after:
            raise InputError(
                f"the positions {list(positions)} cannot cut a stream of {len(entries)} concepts: "
                "they are where chunks 2..T begin, so they must increase from 2 to at most "
                f"{len(entries)}"
            )
    return _between(entries, [position - 1 for position in positions])


def _check_stages(concepts: int, stages: int) -> None:
    if not 1 <= stages <= concepts:
        raise InputError(
            f"a stream of {concepts} concepts cannot have {stages} stages: "
            f"each needs at least one concept, so choose from 1 to {concepts}"
        )


def _between(entries: Sequence[str], cuts: Sequence[int]) -> list[list[str]]:
    return [list(entries[start:end]) for start, end in pairwise([0, *cuts, len(entries)])]


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

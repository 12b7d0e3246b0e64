"""Chunks cover a stream once and evenly; a manifest is exactly its concepts' training samples."""

from __future__ import annotations

import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.data.samples import MANIFEST, SAMPLES
from fomo_dagster.errors import InputError
from fomo_dagster.streams.chunks import (
    chunk_manifest,
    chunk_manifests,
    cut,
    cut_at,
    cut_by_samples,
)


def samples(*rows: tuple[str, str, str]) -> pl.DataFrame:
    """A table of samples from (split, key, concept)."""
    return pl.DataFrame(
        [(*row, [f"caption of {row[1]}"], f"digest of {row[1]}") for row in rows],
        schema=SAMPLES,
        orient="row",
    )


TABLES = {
    "birds": samples(
        ("train", "b/2", "wren"),
        ("train", "a/1", "robin"),
        ("train", "b/10", "wren"),
        ("test", "b/3", "wren"),
        ("train", "b/1", "wren"),
        ("test", "c/1", "owl"),
    ),
    "cars": samples(("train", "1", "van"), ("train", "2", "wren"), ("test", "1", "van")),
}


@given(count=st.integers(1, 300), data=st.data())
def test_chunks_cover_every_concept_once_in_order_and_differ_by_at_most_one(
    count: int, data: st.DataObject
) -> None:
    stages = data.draw(st.integers(1, count))
    entries = [str(number) for number in range(count)]
    chunks = cut(entries, stages)
    lengths = [len(chunk) for chunk in chunks]
    assert [entry for chunk in chunks for entry in chunk] == entries
    assert len(lengths) == stages
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


# The benchmark's 18,381 concepts of 41 datasets: q + 1 concepts in the first r chunks, then q.
@pytest.mark.parametrize(
    ("stages", "longer", "length"), [(20, 1, 919), (50, 31, 367), (100, 81, 183), (200, 181, 91)]
)
def test_the_benchmark_s_chunks(stages: int, longer: int, length: int) -> None:
    entries = [f"dataset_{number % 41:02d}+++{number}" for number in range(18381)]
    chunks = cut(entries, stages)
    assert [len(chunk) for chunk in chunks] == [length + 1] * longer + [length] * (stages - longer)
    assert [entry for chunk in chunks for entry in chunk] == entries


SAMPLE_COUNTS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(samples=SAMPLE_COUNTS, data=st.data())
def test_chunks_cut_by_samples_follow_the_rule(samples: list[int], data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, len(samples)))
    entries = [str(number) for number in range(len(samples))]
    chunks = cut_by_samples(entries, samples, stages)
    assert [entry for chunk in chunks for entry in chunk] == entries
    assert len(chunks) == stages
    assert all(chunks)
    cut_before = 0
    for stage, chunk in enumerate(chunks[:-1], start=1):
        allowed = range(cut_before + 1, len(samples) - (stages - stage) + 1)
        distance = {n: abs(stages * sum(samples[:n]) - stage * sum(samples)) for n in allowed}
        cut_before += len(chunk)
        assert cut_before == min(allowed, key=lambda n: (distance[n], n))


@given(samples=SAMPLE_COUNTS, data=st.data())
def test_no_chunk_is_further_from_its_share_than_one_concept(
    samples: list[int], data: st.DataObject
) -> None:
    stages = data.draw(st.integers(1, max(1, sum(samples) // (2 * max(samples)))))
    chunks = cut_by_samples([str(n) for n in range(len(samples))], samples, stages)
    for chunk in chunks:
        brings = sum(samples[int(entry)] for entry in chunk)
        assert abs(brings - sum(samples) / stages) <= max(samples)


def test_equal_concepts_are_cut_by_samples_as_by_concepts() -> None:
    entries = [str(number) for number in range(12)]
    assert cut_by_samples(entries, [7] * 12, 4) == cut(entries, 4)


@given(count=st.integers(2, 60), data=st.data())
def test_positions_are_where_chunks_begin(count: int, data: st.DataObject) -> None:
    positions = sorted(data.draw(st.sets(st.integers(2, count), min_size=1)))
    entries = [str(number) for number in range(1, count + 1)]
    chunks = cut_at(entries, positions)
    assert [entry for chunk in chunks for entry in chunk] == entries
    assert [int(chunk[0]) for chunk in chunks] == [1, *positions]


@pytest.mark.parametrize("positions", [[1], [5], [3, 3], [3, 2], [0, 2]])
def test_positions_outside_or_out_of_order_are_refused(positions: list[int]) -> None:
    with pytest.raises(InputError, match="increase from 2 to at most 4"):
        cut_at(["a", "b", "c", "d"], positions)


@pytest.mark.parametrize("stages", [0, 4])
def test_stages_without_a_concept_are_refused(stages: int) -> None:
    with pytest.raises(InputError, match=f"3 concepts cannot have {stages} stages.*from 1 to 3"):
        cut(["a", "b", "c"], stages)


def test_a_manifest_is_the_training_samples_by_entry_then_by_key() -> None:
    manifest = chunk_manifest(["cars+++van", "birds+++wren"], TABLES)
    assert manifest.schema == pl.Schema(MANIFEST)
    assert manifest.rows() == [
        ("cars", "van", "1", ["caption of 1"], "digest of 1"),
        ("birds", "wren", "b/1", ["caption of b/1"], "digest of b/1"),
        ("birds", "wren", "b/10", ["caption of b/10"], "digest of b/10"),
        ("birds", "wren", "b/2", ["caption of b/2"], "digest of b/2"),
    ]


def test_concepts_of_one_name_stay_apart_by_dataset() -> None:
    assert chunk_manifest(["cars+++wren"], TABLES)["key"].to_list() == ["2"]


@given(data=st.data())
def test_all_manifests_at_once_are_what_each_is_alone(data: st.DataObject) -> None:
    entries = data.draw(
        st.permutations(["birds+++wren", "birds+++robin", "cars+++van", "cars+++wren"])
    )
    chunks = cut(entries, data.draw(st.integers(1, 4)))
    together = chunk_manifests(chunks, TABLES)
    for chunk, manifest in zip(chunks, together, strict=True):
        expected = [
            (dataset, concept, key)
            for dataset, _, concept in (entry.partition("+++") for entry in chunk)
            for key in sorted(
                row["key"]
                for row in TABLES[dataset].iter_rows(named=True)
                if row["split"] == "train" and row["concept"] == concept
            )
        ]
        assert manifest.select("dataset", "concept", "key").rows() == expected
        assert manifest.equals(chunk_manifest(chunk, TABLES))


def test_more_samples_of_one_chunk_leave_the_other_manifests() -> None:
    chunks = [["birds+++robin"], ["birds+++wren"], ["cars+++van"]]
    grown = {**TABLES, "birds": pl.concat([TABLES["birds"], samples(("train", "b/4", "wren"))])}
    before, after = chunk_manifests(chunks, TABLES), chunk_manifests(chunks, grown)
    assert [a.equals(b) for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_a_concept_without_training_samples_is_refused() -> None:
    with pytest.raises(InputError, match="'owl' of birds"):
        chunk_manifest(["birds+++owl"], TABLES)


def test_a_concept_in_two_chunks_is_refused() -> None:
    with pytest.raises(InputError, match="come again"):
        chunk_manifests([["cars+++van"], ["cars+++van"]], TABLES)


def test_streams_are_loaded_without_torch() -> None:
    code = (
        "import sys, fomo_dagster.streams.chunks, fomo_dagster.streams.orderings;"
        "import fomo_dagster.data.mixture, fomo_dagster.data.buffer, fomo_dagster.data.sampling;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Chunks cover a stream once and evenly."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.errors import InputError
from fomo_dagster.streams.chunks import cut, cut_at, cut_by_samples


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
    with pytest.raises(InputError, match=f"stages is {stages}, .* 3 concepts.*from 1 to 3"):
        cut(["a", "b", "c"], stages)


def test_streams_are_loaded_without_torch() -> None:
    code = (
        "import sys, fomo_dagster.streams.manifests, fomo_dagster.streams.orderings;"
        "import fomo_dagster.data.mixture, fomo_dagster.data.buffer, fomo_dagster.data.sampling;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

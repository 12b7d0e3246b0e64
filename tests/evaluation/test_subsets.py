"""The evaluation subset: its size, its classes, and that it stays the same."""

from __future__ import annotations

import random
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.evaluation.subsets import subset, subset_size


def samples_of(counts: list[int]) -> pl.DataFrame:
    rows = [(f"{c}/{i:04}.png", f"class {c}") for c, n in enumerate(counts) for i in range(n)]
    return pl.DataFrame(rows, schema=["key", "concept"], orient="row")


@pytest.mark.parametrize(
    ("samples", "classes", "share", "size"),
    [
        (10_000, 10, 0.1, 1000),  # the share
        (10_000, 10, 0.01, 300),  # the floor
        (10_000, 400, 0.01, 800),  # two a class
        (250, 10, 0.01, 250),  # all there is
        (10_000, 10, 1.0, 10_000),
        (50_889, 1000, 0.05, 2544),  # ⌊2544.45⌋
        (10_000, 10, 0.043, 430),  # 429.99999999999994 in binary floating point
    ],
)
def test_size_is_the_benchmarks(samples: int, classes: int, share: float, size: int) -> None:
    assert subset_size(samples, classes, share) == size


@given(
    counts=st.lists(st.integers(1, 120), min_size=1, max_size=30),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32),
)
def test_every_class_brings_its_quota_and_the_rest_fills_the_size(
    counts: list[int], share: float, seed: int
) -> None:
    samples = samples_of(counts)
    chosen = subset(samples, share, seed)
    size = subset_size(len(samples), len(counts), share)
    assert len(chosen) == size
    assert chosen["key"].is_unique().all()
    assert chosen["key"].to_list() == sorted(chosen["key"])
    assert set(chosen.rows()) <= set(samples.rows())
    per_class = Counter(chosen["concept"])
    for c, count in enumerate(counts):
        assert per_class[f"class {c}"] >= min(size // len(counts), count)


def test_the_order_of_rows_does_not_matter_and_the_seed_does() -> None:
    samples = samples_of([200, 300, 500])
    rows = samples.rows()
    random.Random(0).shuffle(rows)
    shuffled = pl.DataFrame(rows, schema=samples.schema, orient="row")
    assert subset(shuffled, 0.1, 7).equals(subset(samples, 0.1, 7))
    assert subset(shuffled, 1.0, 7).equals(samples)
    assert not subset(samples, 0.1, 8).equals(subset(samples, 0.1, 7))


def test_another_image_in_one_class_leaves_the_choice_in_the_others() -> None:
    before = subset(samples_of([400, 400, 400]), 0.1, 0)
    after = subset(samples_of([400, 400, 401]), 0.1, 0)
    others = pl.col("concept") != "class 2"
    assert before.filter(others).equals(after.filter(others))


def test_every_sample_of_a_class_is_equally_likely() -> None:
    # 30 + 600 samples, 300 chosen: the small class whole, so 270 of the 600, by quota and by fill.
    samples = samples_of([30, 600])
    seeds = 400
    counts = Counter(key for seed in range(seeds) for key in subset(samples, 0.1, seed)["key"])
    assert all(counts[f"0/{i:04}.png"] == seeds for i in range(30))
    share = 270 / 600
    expected, deviation = seeds * share, (seeds * share * (1 - share)) ** 0.5
    found = [counts[f"1/{i:04}.png"] for i in range(600)]
    assert max(abs(n - expected) for n in found) < 5 * deviation
    # χ² of 600 counts has mean 600 (a little less, as they are tied together) and deviation 35.
    assert 450 < sum((n - expected) ** 2 / deviation**2 for n in found) < 750


@pytest.mark.slow
def test_the_rest_is_drawn_uniformly_from_all_that_is_left() -> None:
    # 300 of 12 classes is 25 a class. Nine classes bring all their 10, three bring 25, and 135 are
    # filled from what is left: one sample of class 9, 475 each of the last two. That one was too
    # far back in its class's draw, and must still be as likely here as any other.
    samples = samples_of([10] * 9 + [26, 500, 500])
    left = 1 + 475 + 475
    fill = 300 - (9 * 10 + 3 * 25)
    seeds = 600
    whole = sum(
        subset(samples, 0.1, seed).filter(pl.col("concept") == "class 9").height == 26
        for seed in range(seeds)
    )
    share = fill / left
    deviation = (seeds * share * (1 - share)) ** 0.5
    assert abs(whole - seeds * share) < 4 * deviation

"""A validation split is a seeded share of every concept, and leaves the test split out."""

from __future__ import annotations

import math

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.data.samples import SAMPLES
from fomo_dagster.data.validation import validation_split


def samples(counts: dict[str, int], test: int = 2) -> pl.DataFrame:
    rows = [
        (
            split,
            f"{concept}/{number}",
            concept,
            [f"caption {number}"],
            f"{split} {concept} {number}",
        )
        for concept, count in counts.items()
        for split, wanted in (("train", count), ("test", test))
        for number in range(wanted)
    ]
    return pl.DataFrame(rows, schema=SAMPLES, orient="row")


@given(
    counts=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_of_every_concept_the_share_is_held_out_and_one_sample_stays(
    counts: dict[str, int], share: float, seed: int
) -> None:
    table = samples(counts)
    split = validation_split(table, share, seed)
    train = table.filter(pl.col("split") == "train")
    assert split.drop("split").sort("key").equals(train.drop("split").sort("key"))
    for concept, count in counts.items():
        held_out = split.filter(pl.col("split") == "test", pl.col("concept") == concept).height
        assert held_out == min(max(1, math.floor(count * share + 0.5)), count - 1)


def test_a_choice_depends_on_the_seed_and_not_on_the_order_or_on_other_concepts() -> None:
    table = samples({"a": 30, "b": 30})
    split = validation_split(table, 0.3, 0)
    assert validation_split(table.reverse(), 0.3, 0).equals(split)
    assert validation_split(samples({"a": 30}), 0.3, 0).equals(split.filter(concept="a"))
    assert not validation_split(table, 0.3, 1).equals(split)


def test_an_image_under_two_keys_stays_on_one_side_with_its_captions() -> None:
    twice = pl.concat(
        [samples({"a": 20}), samples({"a": 20}).with_columns(key=pl.format("again/{}", "key"))]
    )
    split = validation_split(twice, 0.4, 0)
    sides = split.group_by("digest").agg(pl.col("split").n_unique(), pl.len())
    assert sides["split"].to_list() == [1] * 20
    assert sides["len"].to_list() == [2] * 20
    assert split.filter(split="test").height == 16


def test_a_dataset_without_training_samples_keeps_its_test_split() -> None:
    table = samples({"a": 0, "b": 0}, test=3)
    assert validation_split(table, 0.5, 0).equals(table)

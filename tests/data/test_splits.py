"""The seeded split: stable, of the share asked for, and every concept stays trainable."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.data.sources.splits import held_out, kind_of

keys = st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=30)
shares = st.floats(0, 1, exclude_max=True)


def split(keys: list[str], share: float, concepts: int = 1) -> dict[str, str]:
    concept = [f"c{i % concepts}" for i in range(len(keys))]
    rows = pl.DataFrame({"concept": concept, "key": keys}, schema_overrides={"key": pl.String})
    return dict(zip(keys, held_out(rows, share), strict=True))


@given(keys, st.text(st.characters(exclude_categories=["Cs"])), shares)
def test_adding_an_image_moves_no_other_one_but_a_concepts_only_training_image(
    keys: list[str], added: str, share: float
) -> None:
    before, after = split(keys, share), split([*dict.fromkeys([*keys, added])], share)
    moved = [key for key in keys if before[key] != after[key]]
    if list(before.values()).count("train") > 1:
        assert moved == []
    else:
        assert all(before[key] == "train" for key in moved)


@given(keys, shares, st.integers(1, 4))
def test_every_concept_keeps_a_training_image(keys: list[str], share: float, concepts: int) -> None:
    splits = list(split(keys, share, concepts).values())
    for concept in range(min(concepts, len(keys))):
        assert "train" in splits[concept::concepts]


@given(st.permutations([f"image {i}" for i in range(20)]))
def test_the_split_does_not_depend_on_the_order(keys: list[str]) -> None:
    assert split(keys, 0.3) == split(sorted(keys), 0.3)


@given(keys)
def test_a_larger_share_only_adds_to_the_test_split(keys: list[str]) -> None:
    fewer, more = split(keys, 0.2), split(keys, 0.5)
    assert all(more[key] == "test" for key in keys if fewer[key] == "test")
    assert set(split(keys, 0).values()) <= {"train"}


def test_the_share_is_held_out() -> None:
    splits = list(split([f"cat/{i}.png" for i in range(10_000)], 0.2).values())
    assert abs(splits.count("test") - 2000) < 5 * (10_000 * 0.2 * 0.8) ** 0.5


def test_no_rows_have_no_splits() -> None:
    assert split([], 0.5) == {}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "train",
            ["train", "Training", "TRN", "train_images", "Train-Set", "train2017", "train_1"],
        ),
        ("test", ["test", "TESTING", "tst", "test data", "testset", "test1"]),
        ("validation", ["val", "Valid", "validation", "dev", "eval", "Evaluation", "val_split"]),
        (
            None,
            [
                "",
                "set",
                "trainer",
                "devil",
                "tram",
                "trainval",
                "testament",
                "s",
                "2017",
                "test1000",
            ],
        ),
    ],
)
def test_splits_are_known_by_their_usual_names_alone(kind: str | None, names: list[str]) -> None:
    assert {name: kind_of(name) for name in names} == dict.fromkeys(names, kind)

"""Which rows a gallery has, and in which order."""

import polars as pl

from fomo_dagster.data.samples import INDEX
from fomo_dagster.galleries.rows import rows_of


def index(*samples):
    columns = ("split", "key", "concept", "captions")
    rows = [
        {**dict(zip(columns, sample, strict=True)), "digest": f"{number:032x}", "shard": "s.tar",
         "offset": number, "size": 1}
        for number, sample in enumerate(samples)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=INDEX)


SAMPLES = index(
    ("train", "b", "$1 wren", ["on a twig", "a small bird"]),
    ("test", "z", "swan", []),
    ("train", "a", "swan", ["a small bird"]),
    ("train", "c", "swan", []),
)


def test_each_image_has_a_row_by_split_and_key_with_its_first_caption():
    rows = rows_of(SAMPLES, "all", "images", "a {}.")
    assert rows.select("split", "key", "text", "offset").rows() == [
        ("test", "z", None, 1), ("train", "a", "a small bird", 2), ("train", "b", "on a twig", 0),
        ("train", "c", None, 3),
    ]  # fmt: skip
    assert rows["digest"].to_list() == [f"{number:032x}" for number in (1, 2, 0, 3)]


def test_a_split_has_its_own_rows():
    assert rows_of(SAMPLES, "test", "images", "a {}.")["key"].to_list() == ["z"]
    assert rows_of(SAMPLES, "train", "images", "a {}.")["key"].to_list() == ["a", "b", "c"]


def test_each_text_has_one_row_that_of_its_first_image():
    rows = rows_of(SAMPLES, "all", "texts", "a ({}).")
    assert rows.select("split", "key", "concept", "text").rows() == [
        ("test", "z", "swan", "a (swan)."), ("train", "a", "swan", "a small bird"),
        ("train", "b", "$1 wren", "on a twig"),
    ]  # fmt: skip
    assert rows["digest"].n_unique() == 3


def test_a_concept_is_no_template():
    bare = index(("train", "a", "$1 {} wren", []))
    assert rows_of(bare, "all", "texts", "a {}.")["text"].to_list() == ["a $1 {} wren."]


def test_a_dataset_without_samples_gives_no_rows():
    for of in ("images", "texts"):
        assert rows_of(SAMPLES.clear(), "all", of, "a {}.").is_empty()

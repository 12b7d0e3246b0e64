"""A manifest is exactly its concepts' training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.data.samples import MANIFEST, SAMPLES
from fomo_dagster.errors import InputError
from fomo_dagster.streams.manifests import TrainingSamples, chunk_manifest, with_texts


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


def manifest_of(
    entries: Sequence[str], tables: Mapping[str, pl.DataFrame] = TABLES
) -> pl.DataFrame:
    return chunk_manifest(entries, {d: TrainingSamples(d, table) for d, table in tables.items()})


def test_a_manifest_is_the_training_samples_by_entry_then_by_key() -> None:
    manifest = manifest_of(["cars+++van", "birds+++wren"])
    assert manifest.schema == pl.Schema(MANIFEST)
    assert manifest.rows() == [
        ("cars", "van", "1", ["caption of 1"], "digest of 1"),
        ("birds", "wren", "b/1", ["caption of b/1"], "digest of b/1"),
        ("birds", "wren", "b/10", ["caption of b/10"], "digest of b/10"),
        ("birds", "wren", "b/2", ["caption of b/2"], "digest of b/2"),
    ]


def test_concepts_of_one_name_stay_apart_by_dataset() -> None:
    assert manifest_of(["cars+++wren"])["key"].to_list() == ["2"]


@given(entries=st.permutations(["birds+++wren", "birds+++robin", "cars+++van", "cars+++wren"]))
def test_a_manifest_holds_what_a_search_of_all_samples_finds(entries: list[str]) -> None:
    expected = [
        (dataset, concept, key)
        for dataset, _, concept in (entry.partition("+++") for entry in entries)
        for key in sorted(
            row["key"]
            for row in TABLES[dataset].iter_rows(named=True)
            if row["split"] == "train" and row["concept"] == concept
        )
    ]
    assert manifest_of(entries).select("dataset", "concept", "key").rows() == expected


def test_more_samples_of_one_concept_leave_the_other_manifests() -> None:
    grown = {**TABLES, "birds": pl.concat([TABLES["birds"], samples(("train", "b/4", "wren"))])}
    for entry, same in (("birds+++robin", True), ("birds+++wren", False), ("cars+++van", True)):
        assert manifest_of([entry]).equals(manifest_of([entry], grown)) == same


def test_a_concept_without_training_samples_is_refused() -> None:
    with pytest.raises(InputError, match="'owl' of birds"):
        manifest_of(["birds+++owl"])


def test_a_concept_twice_is_refused() -> None:
    with pytest.raises(InputError, match="come again"):
        manifest_of(["cars+++van", "cars+++van"])


def test_texts_take_the_place_of_the_captions_of_their_datasets_alone() -> None:
    manifest = manifest_of(["birds+++wren", "cars+++wren", "birds+++robin"])
    found = with_texts(manifest, {"birds": ("a {}", "the bird {}.")})
    assert found.drop("captions").equals(manifest.drop("captions"))
    assert found.filter(dataset="cars").equals(manifest.filter(dataset="cars"))
    birds = found.filter(dataset="birds").select("concept", "captions").unique().sort("concept")
    assert birds.rows() == [
        ("robin", ["a robin", "the bird robin."]), ("wren", ["a wren", "the bird wren."])
    ]  # fmt: skip

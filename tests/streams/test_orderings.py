"""Orders of a stream: permutations, seeded, fair, and what each one's definition says."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.streams.entries import parse_entry
from fomo_dagster.streams.orderings import (
    as_listed,
    by_sort_key,
    dataset_incremental,
    random,
    time_incremental,
)

YEARS = {"a": 2009, "b": 2021, "c": 2009, "d": 1998}
ENTRIES = st.lists(
    st.builds("{}+++{}".format, st.sampled_from("abcd"), st.text("xyz", min_size=1, max_size=4)),
    unique=True,
    max_size=20,
)
FIGURES = st.sampled_from([None, 0.0, 12.5, 50.0, 100.0])


def datasets_of(entries: list[str]) -> list[str]:
    return [parse_entry(entry)[0] for entry in entries]


@given(entries=ENTRIES, seed=st.integers(0, 9), interleaved=st.booleans())
def test_every_order_is_a_permutation(entries: list[str], seed: int, interleaved: bool) -> None:
    for ordered in (
        as_listed(entries),
        random(entries, seed),
        dataset_incremental(entries, seed),
        time_incremental(entries, YEARS, seed, interleaved=interleaved),
        by_sort_key(entries, dict.fromkeys(entries[::2], 1.0), seed, greatest_first=interleaved),
    ):
        assert Counter(ordered) == Counter(entries)


def test_as_listed_keeps_the_order() -> None:
    assert as_listed(["b", "a", "c"]) == ["b", "a", "c"]


def test_random_order_makes_every_permutation_equally_likely() -> None:
    seeds = 3000
    counts = Counter(tuple(random("abc", seed)) for seed in range(seeds))
    expected = seeds / 6
    chi_square = sum(
        (counts[permutation] - expected) ** 2 / expected for permutation in permutations("abc")
    )
    assert chi_square < 20.5  # exceeded once in a thousand at 5 degrees of freedom


def test_random_order_is_what_it_always_was() -> None:
    """Stores hold chunks of it: another permutation would train every stage again."""
    entries = [f"set+++{number}" for number in range(8)]
    assert [parse_entry(entry)[1] for entry in random(entries, 3)] == list("24653701")


@given(entries=ENTRIES, seed=st.integers(0, 9), data=st.data())
def test_random_order_does_not_depend_on_the_listing(
    entries: list[str], seed: int, data: st.DataObject
) -> None:
    listed = data.draw(st.permutations(entries))
    assert random(listed, seed) == random(entries, seed)


@given(entries=ENTRIES, seed=st.integers(0, 9))
def test_a_new_concept_leaves_the_random_order_of_the_others(entries: list[str], seed: int) -> None:
    grown = random([*entries, "e+++new"], seed)
    assert [e for e in grown if e != "e+++new"] == random(entries, seed)


@given(entries=ENTRIES, seed=st.integers(0, 9))
def test_datasets_come_one_after_another_each_in_random_order(
    entries: list[str], seed: int
) -> None:
    ordered = dataset_incremental(entries, seed)
    runs = {
        dataset: list(run)
        for dataset, run in groupby(ordered, key=lambda entry: parse_entry(entry)[0])
    }
    assert list(runs) == list(dict.fromkeys(datasets_of(entries)))
    for dataset, run in runs.items():
        assert run == random([e for e in entries if parse_entry(e)[0] == dataset], seed)


@given(entries=ENTRIES, seed=st.integers(0, 9), newest_first=st.booleans())
def test_time_goes_by_the_year_and_keeps_datasets_together(
    entries: list[str], seed: int, newest_first: bool
) -> None:
    ordered = time_incremental(entries, YEARS, seed, interleaved=False, newest_first=newest_first)
    names = [name for name, _ in groupby(datasets_of(ordered))]
    listed = list(dict.fromkeys(datasets_of(entries)))
    sign = -1 if newest_first else 1
    assert names == sorted(listed, key=lambda name: (sign * YEARS[name], listed.index(name)))
    assert ordered == dataset_incremental(
        sorted(entries, key=lambda entry: names.index(parse_entry(entry)[0])), seed
    )


@given(entries=ENTRIES, seed=st.integers(0, 9), newest_first=st.booleans())
def test_interleaved_time_mixes_all_concepts_of_a_year(
    entries: list[str], seed: int, newest_first: bool
) -> None:
    ordered = time_incremental(entries, YEARS, seed, interleaved=True, newest_first=newest_first)
    expected = []
    for year in (2021, 2009, 1998) if newest_first else (1998, 2009, 2021):
        expected += random([e for e in entries if YEARS[parse_entry(e)[0]] == year], seed)
    assert ordered == expected


@given(
    figures=st.dictionaries(st.text("xyz", min_size=1), FIGURES),
    seed=st.integers(0, 9),
    greatest_first=st.booleans(),
)
def test_figures_rise_or_fall_and_what_has_none_comes_last(
    figures: dict[str, float | None], seed: int, greatest_first: bool
) -> None:
    ordered = by_sort_key(figures, figures, seed, greatest_first=greatest_first)
    rising: list[float | None] = [0.0, 12.5, 50.0, 100.0]
    expected = []
    for figure in [*(rising[::-1] if greatest_first else rising), None]:
        expected += random([e for e in figures if figures[e] == figure], seed)
    assert ordered == expected


@pytest.mark.parametrize("interleaved", [False, True])
def test_another_seed_shuffles_otherwise(interleaved: bool) -> None:
    entries = [f"a+++{number}" for number in range(20)]
    one, other = (
        time_incremental(entries, YEARS, seed, interleaved=interleaved) for seed in (0, 1)
    )
    assert one != other

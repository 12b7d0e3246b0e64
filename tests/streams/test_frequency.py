"""Occurrences of names in captions, against a search for each name by itself."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.errors import InputError
from fomo_dagster.streams.frequency import count_captions, normalised

WORDS = st.sampled_from(
    ["cat", "cats", "Cat_fish", "fish", "a", "ca", "é", "c++", "7", "great cat"]
)
TEXT = st.lists(WORDS | st.sampled_from([" ", "_", "-", ".", "  "]), max_size=12).map("".join)


@given(names=st.lists(WORDS, max_size=6), captions=st.lists(TEXT, max_size=8))
def test_counts_are_those_of_a_search_for_each_name(names: list[str], captions: list[str]) -> None:
    expected = {
        name: sum(
            re.search(rf"(?<!\w){re.escape(normalised(name))}(?!\w)", normalised(caption))
            is not None
            for caption in captions
        )
        for name in names
    }
    assert count_captions(names, captions) == expected


@pytest.mark.parametrize(
    ("name", "caption", "found"),
    [
        ("cat", "A CAT, asleep", True),
        ("cat", "cattle", False),
        ("cat", "a tomcat", False),
        ("cat", "cat2", False),
        ("cat", "the cat's tail", True),
        ("aquarium_fish", "an Aquarium  fish swims", True),
        ("aquarium fish", "aquarium_fish.jpg", True),
        ("aquarium fish", "a fish in an aquarium", False),
        ("C++", "a book on c++", True),
        ("Ｃａｔ", "a cat", True),
        ("Straße", "an empty STRASSE", True),
        (" ", "a b", False),
    ],
)
def test_what_counts_as_an_occurrence(name: str, caption: str, found: bool) -> None:
    assert count_captions([name], [caption]) == {name: int(found)}


def test_a_caption_counts_once_and_every_name_in_it() -> None:
    captions = iter(["shark and great white shark", "white shark", "great WHITE shark"])
    names = ["shark", "white_shark", "great white shark", "White Shark"]
    assert count_captions(names, captions) == {
        "shark": 3, "white_shark": 3, "great white shark": 2, "White Shark": 3
    }  # fmt: skip


def test_nothing_to_look_for_is_found_nowhere() -> None:
    assert count_captions([], ["a"]) == {}


def test_without_the_library_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ahocorasick", None)
    with pytest.raises(InputError, match=r"pip install 'fomo-dagster\[frequency\]'"):
        count_captions(["a"], ["a"])

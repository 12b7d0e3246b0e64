"""Entries of a stream: reading, writing, and the errors that a wrong one ends in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.errors import InputError
from fomo_dagster.streams.entries import (
    entries_of,
    format_entry,
    parse_entry,
    read_entries,
    validate,
)

CONCEPTS = {"birds": ["robin", "wren"], "cars": ["saloon", "estate", "van"]}
NAMES = st.text(st.sampled_from("ab+ é"), min_size=1, max_size=6)


@given(dataset=NAMES, concept=NAMES)
def test_an_entry_reads_back_as_it_was_written_or_is_refused(dataset: str, concept: str) -> None:
    try:
        entry = format_entry(dataset, concept)
    except InputError:
        assert "+" in dataset + concept
    else:
        assert parse_entry(entry) == (dataset, concept)


def test_a_concept_may_hold_single_pluses() -> None:
    assert parse_entry("LANGUAGES+++C++") == ("LANGUAGES", "C++")


@pytest.mark.parametrize("entry", ["birds", "birds+++", "+++robin", "birds+++robin+++wren", ""])
def test_what_is_no_entry_is_refused_by_name(entry: str) -> None:
    with pytest.raises(InputError, match="not an entry") as raised:
        parse_entry(entry)
    assert repr(entry) in str(raised.value)


def test_datasets_keep_their_order_and_concepts_are_sorted() -> None:
    assert entries_of(["cars", "birds"], CONCEPTS) == [
        "cars+++estate",
        "cars+++saloon",
        "cars+++van",
        "birds+++robin",
        "birds+++wren",
    ]


def test_an_unknown_dataset_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'bird'.*did you mean 'birds'"):
        entries_of(["bird"], CONCEPTS)
    with pytest.raises(InputError, match=r"'carz'.*did you mean 'cars'"):
        validate(["birds+++wren", "carz+++van"], CONCEPTS)


def test_unknown_concepts_are_counted_and_named_with_the_nearest() -> None:
    wrong = [f"birds+++wrenn{number}" for number in range(7)]
    with pytest.raises(InputError) as raised:
        validate(["cars+++van", *wrong], CONCEPTS)
    message = str(raised.value)
    assert message.startswith("7 entries")
    assert "'wrenn4' of birds (did you mean 'wren'?) and 2 more" in message
    assert "wrenn5" not in message


def test_a_repeated_entry_is_named() -> None:
    with pytest.raises(InputError, match=r"1 of its entries come again: 'cars\+\+\+van'$"):
        validate(["cars+++van", "birds+++wren", "cars+++van"], CONCEPTS)


def test_a_valid_stream_passes() -> None:
    validate(["cars+++van", "birds+++wren", "cars+++estate"], CONCEPTS)


def test_a_stream_file_is_a_json_list_in_its_own_order(tmp_path: Path) -> None:
    path = tmp_path / "stream.json"
    path.write_text('["cars+++van", "birds+++wr\\u00e9n"]')
    assert read_entries(path) == ["cars+++van", "birds+++wrén"]


@pytest.mark.parametrize("content", ['{"a": 1}', '["a", 1]', "[", '"cars+++van"', "\xff"])
def test_a_stream_file_of_another_form_is_refused_by_path(tmp_path: Path, content: str) -> None:
    path = tmp_path / "stream.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="JSON") as raised:
        read_entries(path)
    assert str(path) in str(raised.value)


def test_a_missing_stream_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_entries(tmp_path / "nowhere.json")

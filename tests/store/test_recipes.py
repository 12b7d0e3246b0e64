"""Recipes and digests: what is the same has the same address, what is not has another."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.store.digests import digest_of, digest_of_bytes, digest_of_file
from fomo_dagster.store.recipes import Recipe, differences

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text(), plain, max_size=5))
def test_the_order_of_keys_changes_no_digest(data):
    assert digest_of(data) == digest_of(dict(reversed(data.items())))


def test_a_digest_is_the_same_in_another_process_and_hash_seed():
    value = {"é": [1, 2.5, None, True, "x"], "a": {"b": -0.1}}
    program = f"from fomo_dagster.store.digests import digest_of; print(digest_of({value!r}))"
    for seed in ("1", "2"):
        other = subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert other.stdout.strip() == digest_of(value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}), ({"a": 1}, {"a": "1"}), ({"a": None}, {}), ([1, 2], [2, 1]),
        ([[1], 2], [1, [2]]), ({"a": True}, {"a": 1}), ("", None), (0.1, 0.1 + 1e-16),
    ],
)  # fmt: skip
def test_different_values_have_different_digests(one, other):
    assert digest_of(one) != digest_of(other)


def test_a_whole_number_is_the_same_with_and_without_a_point():
    assert digest_of({"warmup": 1}) == digest_of({"warmup": 1.0})


@pytest.mark.parametrize("value", [{1, 2}, object(), Path("x"), float("nan"), {1: 2}, b"x"])
def test_a_value_without_canonical_form_is_an_error(value):
    with pytest.raises((TypeError, ValueError), match="identity"):
        digest_of({"parameter": value})


def test_a_file_has_the_digest_of_its_bytes(tmp_path):
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert digest_of_file(tmp_path / "f") == digest_of_bytes(b"abc" * 100_000)


def test_differences_name_the_value_that_changed():
    old = Recipe("trained", 1, {"optimiser": {"learning_rate": 1e-3}, "seed": 0}, {"update": "a"})
    new = Recipe("trained", 1, {"optimiser": {"learning_rate": 5e-4}, "seed": 0}, {"update": "b"})
    assert [str(d) for d in differences(old, new)] == [
        "update a → b",
        "optimiser.learning_rate 0.001 → 0.0005",
    ]
    assert differences(old, Recipe.from_data(old.as_data())) == []

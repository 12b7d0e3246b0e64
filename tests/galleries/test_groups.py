"""Rows are cut where their keys say, so that what is added touches the group that it comes to."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.galleries import groups
from fomo_dagster.galleries.groups import MEAN_ROWS, MOST_ROWS, groups_of


def rows(keys, changed=()):
    return pl.DataFrame(
        {
            "split": ["test" if len(key) % 3 == 0 else "train" for key in keys],
            "key": keys,
            "digest": [f"{hash(key) % 2**64 + (key in changed):032x}" for key in keys],
        },
        schema={"split": pl.String, "key": pl.String, "digest": pl.String},
    ).sort("split", "key")


def keys(count):
    return [f"photos/{number:06d}.jpg" for number in range(count)]


@given(st.sets(st.text(max_size=5), max_size=60))
def test_groups_are_all_rows_one_after_the_other(names):
    found = groups_of(rows(sorted(names)))
    assert [group.start for group in found] == [
        sum(one.rows for one in found[:n]) for n in range(len(found))
    ]
    assert sum(group.rows for group in found) == len(names)
    assert all(0 < group.rows <= MOST_ROWS for group in found)


def test_groups_have_about_the_mean_size_and_never_more_than_the_most(monkeypatch):
    sizes = [group.rows for group in groups_of(rows(keys(100_000)))]
    assert 0.8 * MEAN_ROWS < sum(sizes) / len(sizes) < 1.2 * MEAN_ROWS
    assert max(sizes) <= MOST_ROWS
    monkeypatch.setattr(groups, "MOST_ROWS", 10)
    assert max(group.rows for group in groups_of(rows(keys(1000)))) == 10


def test_a_new_row_changes_its_group_alone():
    before = {group.digest for group in groups_of(rows(keys(20_000)))}
    for name in ("photos/000000a.jpg", "photos/012345a.jpg", "zebra.jpg"):
        after = groups_of(rows([*keys(20_000), name]))
        new = [group for group in after if group.digest not in before]
        # Two where the new row ends a group.
        assert 1 <= len(new) <= 2
        assert sum(group.rows for group in new) <= MOST_ROWS + 1


def test_another_image_of_a_key_changes_its_group_alone():
    before = groups_of(rows(keys(20_000)))
    after = groups_of(rows(keys(20_000), changed=("photos/010000.jpg",)))
    assert [(one.start, one.rows) for one in before] == [(one.start, one.rows) for one in after]
    changed = [one.digest != other.digest for one, other in zip(before, after, strict=True)]
    assert sum(changed) == 1


def test_no_two_rows_run_together_to_the_same_digest():
    one = pl.DataFrame({"split": ["train"], "key": ["a1"], "digest": ["23"]})
    other = pl.DataFrame({"split": ["train"], "key": ["a"], "digest": ["123"]})
    assert groups_of(one)[0].digest != groups_of(other)[0].digest

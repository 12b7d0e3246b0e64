"""Reading Parquet files by their exact names."""

import polars as pl
import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.parquet import read_parquet


def test_a_name_that_looks_like_a_pattern_is_that_file(tmp_path):
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "[x].parquet")
    pl.DataFrame({"a": [2]}).write_parquet(tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "[x].parquet")["a"].to_list() == [1]


@pytest.mark.parametrize("columns", [None, ["a"], ["lacking"]])
def test_what_cannot_be_read_is_named(tmp_path, columns):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"a": range(999)}).write_parquet(path)
    if columns != ["lacking"]:
        whole = path.read_bytes()
        path.write_bytes(whole[:4] + b"\xff" * 99 + whole[103:])  # the page, not the footer
    with pytest.raises(StoreError, match=r"t\.parquet cannot be read \(.+\): remove its folder"):
        read_parquet(path, columns)

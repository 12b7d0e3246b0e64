"""The captions that a table has for the images of a folder."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from fomo_dagster.data.samples import QUARANTINE
from fomo_dagster.data.sources.files import shortlist
from fomo_dagster.data.sources.rows import read_rows
from fomo_dagster.data.sources.tables import TableFormat
from fomo_dagster.errors import DataError
from fomo_dagster.texts import composed


def with_captions(
    found: pl.DataFrame, table: Path, form: TableFormat, root: Path
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    """`found` with `captions`, those of each image in the order of the table.

    found: images with their `place` below `root`, as the table names them. Also gives those that
    are left out because a caption of theirs cannot be used (QUARANTINE), and sentences about what
    of the table is not read. Raises `DataError` where it has none of the images.
    """
    rows = read_rows(table, ["path", "caption"], [], form)
    frame = rows.frame.with_columns(
        pl.Series("path", [_place(path) for path in rows.frame["path"]])
    )
    texts = frame.group_by("path").agg(
        pl.col("caption").explode(empty_as_null=False).alias("captions")
    )
    absent = texts.join(found, left_on="path", right_on="place", how="anti")["path"].sort()
    warnings = []
    if len(absent):
        said = (
            f"{table} has captions of {len(absent)} images that are not in {root}: "
            f"{shortlist(absent.to_list())}; its paths start from that folder"
        )
        if len(absent) == texts.height:
            raise DataError(said)
        warnings.append(said)
    if rows.unread:
        warnings.append(f"{table} has columns that are not read: {shortlist(rows.unread)}")
    reasons = {_place(path): why for _, path, why in rows.unusable if path is not None}
    spoiled = found.filter(pl.col("place").is_in(list(reasons)))
    nowhere = [
        why
        for _, path, why in rows.unusable
        if path is None or _place(path) not in spoiled["place"]
    ]
    if nowhere:
        warnings.append(f"{table} has {len(nowhere)} captions that are not read: {nowhere[0]}")
    left_out = spoiled.select(
        "split", "key", pl.lit("").alias("digest"), pl.lit(1, pl.Int64).alias("samples"),
        pl.col("place").replace_strict(reasons, return_dtype=pl.String).alias("reason"),
    )  # fmt: skip
    usable = found.filter(~pl.col("place").is_in(list(reasons)))
    joined = usable.join(texts, left_on="place", right_on="path", how="left", maintain_order="left")
    return (
        joined.with_columns(pl.col("captions").fill_null([])),
        left_out.select(*QUARANTINE),
        tuple(warnings),
    )


def _place(path: str) -> str:
    return composed(os.path.normpath(path).replace(os.sep, "/"))

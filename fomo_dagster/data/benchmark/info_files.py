"""The release's info files: one JSON object per split, from image path to class and captions.

Training text is `default_caption`, else `synthetic_merged_caption`; a list is several captions of
one image. The other captions of a row (`primer_caption`, the class in the dataset's prompt, and
`synthetic_caption`, from which the merged one was made) are not used, as in the benchmark.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from fomo_dagster.data.benchmark.release import read_json
from fomo_dagster.errors import DataError
from fomo_dagster.texts import as_text, class_name, composed

INFO: dict[str, pl.DataType] = {
    "key": pl.String(),  # the image's path in the dataset's folder, without that of resized copies
    "classname": pl.String(),  # null if the dataset has no classes
    "target": pl.Int64(),  # its number in the class list, or the image's without classes
    "captions": pl.List(pl.String()),  # may be empty
}
TEXT_FIELDS = ("default_caption", "synthetic_merged_caption")  # the first that says something


def read_info(path: Path, prefix: str = "") -> pl.DataFrame:
    """The rows of an info file, columns of `INFO`, in the file's order.

    prefix: the folder of the resized copies, which stands before every path of their info file.
    Raises `DataError` if the file or a row is not of the release's form.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold one JSON object, from image paths to their descriptions")
    rows = []
    for place, row in content.items():
        if not isinstance(row, dict):
            raise DataError(f"{path}: the description of {place!r} must be an object, not {row!r}")
        key = composed(as_text(place.removeprefix(f"{prefix}/") if prefix else place))
        _check_place(path, key)
        rows.append((key, *_numbered(path, place, row), _captions(path, place, row)))
    info = pl.DataFrame(rows, schema=INFO, orient="row")
    if info["key"].is_duplicated().any():
        key = info["key"].filter(info["key"].is_duplicated())[0]
        raise DataError(f"{path} names the image {key!r} twice")
    return info


def _check_place(path: Path, key: str) -> None:
    parts = PurePosixPath(key)
    if not key or parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"{path} names {key!r}, which is no path inside the dataset's folder")


def _numbered(path: Path, place: str, row: dict[str, Any]) -> tuple[str | None, int]:
    name, target = row.get("classname"), row.get("target")
    if name is not None and not isinstance(name, str):
        raise DataError(f"{path}: `classname` of {place!r} must be text or null, not {name!r}")
    if not isinstance(target, int) or isinstance(target, bool) or not 0 <= target < 2**63:
        raise DataError(f"{path}: `target` of {place!r} must be a number from 0, not {target!r}")
    return name and class_name(as_text(name)), target


def _captions(path: Path, place: str, row: dict[str, Any]) -> list[str]:
    for field in TEXT_FIELDS:
        value = row.get(field)
        texts = [value] if isinstance(value, str) else value or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{path}: {field!r} of {place!r} must be text, a list of texts or null, "
                f"not {value!r}"
            )
        said = [composed(as_text(text)) for text in texts if text.strip()]
        if said:
            return said
    return []

"""What a person's images are likely to mean where their layout leaves it open: which columns of a
table are which, and where captions are. It is written into the declaration, and said."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fomo_dagster.data.formats import has_image_suffix
from fomo_dagster.data.sources.folder.beside import ABOUT, TEXTS
from fomo_dagster.data.sources.rows import columns_of
from fomo_dagster.texts import read_json

NAMES: Mapping[str, Sequence[str]] = {
    "path": (
        "file_name",
        "filename",
        "file_path",
        "filepath",
        "image_path",
        "image",
        "img",
        "file",
    ),
    "concept": ("label", "class", "category", "class_name", "label_name"),
    "caption": ("text", "captions", "description"),
}  # what others call our columns, the likeliest first
TABLES = tuple(
    f"{name}.{suffix}"
    for name in ("captions", "metadata")
    for suffix in ("csv", "tsv", "jsonl", "parquet")
)  # of captions, in the folder of images or in each folder there
LINES = "first"


class Guess(NamedTuple):
    """Keys of a source's declaration, and a sentence about them."""

    declared: Mapping[str, Any]
    said: str


def of_table(table: Path) -> list[Guess]:
    """The columns of a table of images that have other names than ours."""
    columns = _named(columns_of(table), ("path", "concept", "caption"))
    return [Guess({"columns": columns}, f"of its columns, {_listed(columns)}")] if columns else []


def of_folder(folder: Path) -> list[Guess]:
    """Where captions of a folder's images could be, the likeliest first."""
    guesses = []
    for name in TABLES:
        tables = (folder / name, *sorted(folder.glob(f"*/{name}")))
        there = next((columns_of(table) for table in tables if table.is_file()), ())
        columns = _named(there, ("path", "caption"))
        if {"path", "caption"} <= {*there, *columns}:
            declared = {"captions": name} | ({"columns": columns} if columns else {})
            named = f" (columns: {_listed(columns)})" if columns else ""
            guesses.append(Guess(declared, f"captions: those in {name}{named}"))
    beside = _beside(folder)
    if beside is None:
        return guesses
    declared = {"captions": "beside"}
    said = f"captions: those beside the images, such as {beside.relative_to(folder).as_posix()}"
    if beside.suffix.lower() == ABOUT and (columns := _named(_keys(beside), ("caption",))):
        declared["columns"] = columns
        said += f" (their key {columns['caption']!r})"
    lines = f"{said}; of several lines, the {LINES} (`caption_lines: each` takes every line)"
    return [*guesses, Guess(declared, said), Guess(declared | {"caption_lines": LINES}, lines)]


def _beside(folder: Path) -> Path | None:
    """A file that could have the caption of an image beside it."""
    for place, _, names in os.walk(folder):
        parts = [os.path.splitext(name) for name in sorted(names)]
        images = {stem for stem, extension in parts if has_image_suffix(stem + extension)}
        images |= {stem + extension for stem, extension in parts if stem in images}
        for stem, extension in parts:
            if extension.lower() in (*TEXTS, ABOUT) and stem in images:
                return Path(place, stem + extension)
    return None


def _keys(path: Path) -> tuple[str, ...]:
    try:
        about = read_json(path.read_bytes())
    except (OSError, ValueError):
        return ()
    return tuple(about) if isinstance(about, dict) else ()


def _named(there: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Our columns → those of `there` that are likely to be meant; none for those that are there."""
    lower = {name.lower(): name for name in reversed(there)}
    found = {
        ours: next((lower[name] for name in NAMES[ours] if name in lower), None)
        for ours in wanted
        if ours not in there
    }
    return {ours: theirs for ours, theirs in found.items() if theirs is not None}


def _listed(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{theirs!r} is the {ours}" for ours, theirs in columns.items())

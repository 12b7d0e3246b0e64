"""What a manifest may contain: a recipe, and names of files that stay in the artifact's folder.

A manifest may come from another machine or another hand. Nothing in it is used before `parse` has
checked all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import DIGEST_LENGTH, digest_of, digest_of_file
from fomo_dagster.store.recipes import Recipe

MANIFEST = "manifest.json"
RECORD = "record"
"""The folder of what differs from run to run (cost, timings, plots): no part of the content."""
MOST_BYTES = 64 * 2**20  # of a manifest, and of a file of a record

_KIND = re.compile(r"[a-z][a-z0-9_]*")
_DIGEST = re.compile(rf"[0-9a-f]{{{DIGEST_LENGTH}}}")
_LONGEST_PART = 255  # bytes, of every common file system


class DamagedError(Exception):
    """An artifact is not what its manifest or its address says; the message tells how."""


def is_address(kind: str, digest: str) -> bool:
    """Whether these can be an artifact's kind and digest."""
    return bool(_KIND.fullmatch(kind) and _DIGEST.fullmatch(digest))


def check_address(kind: str, digest: str) -> None:
    """Raise `StoreError` if these cannot be an artifact's kind and digest."""
    if not is_address(kind, digest):
        raise StoreError(
            f"kind {kind!r} and digest {digest!r} are no address in the store: a kind is a word, "
            f"and a digest {DIGEST_LENGTH} hexadecimal digits; whatever names them was altered"
        )


def why_unsafe(name: object) -> str:
    """Why a name from outside cannot name a file in a folder; empty if it can."""
    if not isinstance(name, str) or not name:
        return "it is no text"
    if not name.isprintable():  # control characters, NUL, lone surrogates, other directions
        return "it has characters that cannot be printed"
    if "\\" in name or name[1:2] == ":":
        return "it has a backslash or a drive"
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "it is no plain relative path"
    if any(len(part.encode()) > _LONGEST_PART for part in parts):
        return f"a part of it is longer than {_LONGEST_PART} bytes"
    return ""


def manifest_of(
    recipe: Recipe, folder: Path, content: Sequence[str], recorded: Sequence[str]
) -> dict[str, Any]:
    """The manifest of the files in a folder. Nothing of this run is in it: who makes the same
    elsewhere writes the same manifest."""
    files = {
        name: {
            "size": (folder / name).stat().st_size,
            "checksum": digest_of_file(folder / name),
        }
        for name in content
    }
    record = [name.removeprefix(f"{RECORD}/") for name in recorded]
    return {"recipe": recipe.as_data(), "files": files, "record": record}


def parse(data: bytes, kind: str, digest: str) -> dict[str, Any]:
    """The manifest of the artifact at an address. Raises `DamagedError` if it belongs to another
    artifact, or contains anything that no manifest contains."""
    try:
        manifest = json.loads(data)
        recipe, files = manifest["recipe"], manifest["files"]
        found = recipe["kind"], digest_of(recipe)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"its manifest cannot be read ({_short(error)})") from error
    if found != (kind, digest):
        raise DamagedError(f"its manifest is that of {found[0]!r} {found[1]}")
    if not isinstance(files, dict) or not files:
        raise DamagedError("its manifest lists no files")
    record = manifest.setdefault("record", [])
    if not isinstance(record, list):
        raise DamagedError("its manifest lists no record")
    for name in (*files, *record):
        why = why_unsafe(name) or _why_reserved(name)
        if why:
            raise DamagedError(f"its manifest names a file {name!r}: {why}")
    for name, expected in files.items():
        if any(folder in files for folder in accumulate(name.split("/")[:-1], "{}/{}".format)):
            raise DamagedError(f"its manifest names {name} and a file where its folder would be")
        if not _is_entry(expected):
            raise DamagedError(f"its manifest gives no size and checksum of {name}")
    return dict(manifest)


def content_of(manifest: Mapping[str, Any]) -> str:
    """The digest of all bytes that a manifest lists."""
    return digest_of(manifest["files"])


def _why_reserved(name: str) -> str:
    first = name.partition("/")[0]
    return "that name is the store's own" if first in (MANIFEST, RECORD) else ""


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    size, checksum = entry.get("size"), entry.get("checksum")
    return (
        type(size) is int and size >= 0
        and isinstance(checksum, str) and _DIGEST.fullmatch(checksum) is not None
    )  # fmt: skip


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]

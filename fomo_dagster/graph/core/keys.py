"""Asset keys, whose parts are joined by `/`, and the steps that make assets."""

from __future__ import annotations

from collections.abc import Iterable

LEADERBOARD = "leaderboard"
DATASETS, MANIFESTS = "datasets", "manifests"  # groups
SOURCES, SHARDS, STREAMS, POOLS, BACKBONES = "sources", "shards", "streams", "pools", "backbones"


def source_key(dataset: str) -> str:
    """The asset key of a dataset's observed source."""
    return f"sources/{dataset}"


def shards_key(dataset: str) -> str:
    """The asset key of a dataset's shards."""
    return f"shards/{dataset}"


def step_of(key: str) -> str:
    """The name of the step that makes an asset: the chunks of a stream are made by one."""
    return (_chunks(key) or key).replace("/", "__")


def assets_by_step(keys: Iterable[str]) -> dict[str, str]:
    """The name of each step → the asset that it makes; of chunks, what their keys begin with."""
    return {step_of(key): what_is_made(key) for key in keys}


def what_is_made(key: str) -> str:
    """The asset that the step of `key` makes; of chunks, what their keys begin with."""
    return _chunks(key) or key


def _chunks(key: str) -> str:
    """What the keys of all chunks of a stream begin with; empty of other assets."""
    folder, _, last = key.rpartition("/")
    return folder if folder.startswith(f"{STREAMS}/") and last.startswith("chunk_") else ""


def order_key(stream: str) -> str:
    """The asset key of a stream's order."""
    return f"streams/{stream}/order"

"""Asset keys, whose parts are joined by `/`, and the steps that make assets."""

from __future__ import annotations

from collections.abc import Iterable

LEADERBOARD = "leaderboard"
COMPARISONS = "comparisons"  # a folder of assets, and their group
DATASETS, MANIFESTS = "datasets", "manifests"  # groups
RELEASES = "releases"  # a folder of assets, and their group
GALLERIES = "galleries"  # a folder of assets, and their group
SOURCES, SHARDS, STREAMS, POOLS, BACKBONES = "sources", "shards", "streams", "pools", "backbones"
HASHES, FEATURES = "hashes", "features"


def source_key(dataset: str) -> str:
    """The asset key of a dataset's observed source."""
    return f"{SOURCES}/{dataset}"


def shards_key(dataset: str) -> str:
    """The asset key of a dataset's shards."""
    return f"{SHARDS}/{dataset}"


def hashes_key(dataset: str, split: str) -> str:
    """The asset key of the perceptual hashes of a split of a dataset."""
    return f"{HASHES}/{dataset}/{split}"


def features_key(checkpoint: str, dataset: str, split: str) -> str:
    """The asset key of the image features of a split of a dataset, by a backbone's key."""
    return f"{FEATURES}/{checkpoint.rpartition('/')[2]}/{dataset}/{split}"


def release_key(name: str) -> str:
    """The asset key of a release name."""
    return f"{RELEASES}/{name}"


def release_files_key(name: str) -> str:
    """The asset key of the files of what is live under a release name."""
    return f"{release_key(name)}/files"


def index_key(gallery: str) -> str:
    """The asset key of the index of a gallery, by that of the gallery."""
    return f"{gallery}/index"


def drift_key(gallery: str) -> str:
    """The asset key of the drift of a gallery, by that of the gallery."""
    return f"{gallery}/drift"


def live_start_key(experiment: str, stage: int) -> str:
    """The asset key of what was live when a stage was first trained."""
    return f"{experiment}/start_{stage:03d}"


def step_of(key: str) -> str:
    """The name of the step that makes an asset. One step makes all chunks of a stream."""
    return what_is_made(key).replace("/", "__")


def assets_by_step(keys: Iterable[str]) -> dict[str, str]:
    """The name of each step → the asset that it makes; of chunks, what their keys begin with."""
    return {step_of(key): what_is_made(key) for key in keys}


def what_is_made(key: str) -> str:
    """The asset that the step of `key` makes; of chunks, what their keys begin with."""
    return key.rpartition("/")[0] if is_chunk(key) else key


def is_chunk(key: str) -> bool:
    """Whether it is the key of a stream's chunk."""
    folder, _, last = key.rpartition("/")
    return folder.startswith(f"{STREAMS}/") and last.startswith("chunk_")


def order_key(stream: str) -> str:
    """The asset key of a stream's order."""
    return f"{STREAMS}/{stream}/order"


def stream_of(key: str) -> str:
    """The stream whose order or chunk has this asset key."""
    return key.split("/")[1]

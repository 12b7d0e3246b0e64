"""How many parameters the models have that experiments start from."""

from __future__ import annotations

import math
from collections.abc import Iterable

from safetensors import safe_open

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home

_SUFFIX = ".safetensors"


def model_sizes(home: Home, backbones: Iterable[str]) -> dict[str, int]:
    """Backbone → the number of entries of θ₀'s weights, embeddings among them. No weight is read.

    Raises `InputError` for a backbone whose weights are not in the store.
    """
    return {name: _size(home, name) for name in backbones}


def _size(home: Home, backbone: str) -> int:
    head = home.heads.read(f"backbones/{backbone}")
    if head is not None:
        for kind, digest in head.artifacts.values():
            artifact = home.store.open(kind, digest)
            if artifact is not None:
                files = [name for name in artifact.manifest["files"] if name.endswith(_SUFFIX)]
                return sum(_entries(str(artifact.path(name))) for name in files)
    raise InputError(
        f"the weights of the backbone {backbone} are not in the store, and so nobody knows how "
        "many parameters it has: `fomo run` of an experiment with it makes them again"
    )


def _entries(path: str) -> int:
    with safe_open(path, framework="numpy") as tensors:
        return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118

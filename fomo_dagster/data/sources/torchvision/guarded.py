"""torchvision's datasets, with limits on what they download and open.

torchvision downloads without time-out or limit, falls back from https to http, and unpickles
CIFAR's files once their checksums match. Here, downloads follow `data.downloading`, and such a file
may hold only arrays, lists, texts and numbers.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from torchvision import datasets
from torchvision.datasets import cifar, utils

from fomo_dagster.data.downloading import download

_ARRAYS = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}  # fmt: skip


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and arrays were expected")
        return super().find_class(module, name)


def _load(file: IO[bytes], encoding: str = "ASCII") -> Any:
    return _Arrays(file, encoding=encoding).load()


def _retrieve(url: str, filename: str | Path, chunk_size: int = 0) -> None:
    download(url, Path(filename))


utils._urlretrieve = _retrieve
utils._get_redirect_url = lambda url, max_hops=3: url  # `download` follows them
cifar.pickle = SimpleNamespace(load=_load)

__all__ = ["datasets"]

"""Bytes of tensors that live at once: counted while a computation runs, and measured on a device.

What is counted is what tensors ask for. An allocator's fragments, a library's workspaces and a
device's own context come on top of it, and are not covered.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from fomo_dagster.models.torch_internals import TorchDispatchMode, tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations make, from when they are made to when they go.

    It works with fake tensors as with real ones: a storage that nothing was written to counts as if
    it was. Storages that were there before count where they are noted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._live: dict[int, tuple[int, weakref.ref[torch.UntypedStorage]]] = {}

    def note(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of these tensors from now on; each once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key not in self._live:
                size = storage.nbytes()
                gone = weakref.ref(storage, lambda _, key=key: self._forget(key))  # type: ignore[misc]
                self._live[key] = size, gone
                self._now += size
                self.peak = max(self.peak, self._now)

    def _forget(self, key: int) -> None:
        size, _ = self._live.pop(key)
        self._now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.note(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

"""Packs artifacts: first they are kept twice, then the whole files go, as `cleaning` takes them.

A pack is complete and flushed before its whole artifact goes. So whenever a process is killed, the
artifact is here whole, or packed, or both. Nothing that a running process was told is here goes
while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fomo_dagster.errors import StoreError
from fomo_dagster.progress import ignore_text
from fomo_dagster.stopping import check
from fomo_dagster.store.artifacts import Artifact, Store
from fomo_dagster.store.cleaning import take_whole, takes
from fomo_dagster.store.files import explained
from fomo_dagster.store.leases import lease
from fomo_dagster.store.manifests import DamagedError
from fomo_dagster.store.places import Address
from fomo_dagster.store.roots import Root
from fomo_dagster.store.sizes import bytes_below

if TYPE_CHECKING:
    from fomo_dagster.store.low_rank import LowRank


def nothing_added(artifact: Artifact) -> None:
    """Of weights that no adapters were merged into."""


@dataclass(frozen=True)
class Packing:
    """What was packed. whole, packed: its bytes before and after."""

    artifacts: tuple[Address, ...]
    whole: int
    packed: int

    @property
    def saved(self) -> int:
        """The bytes that it takes less."""
        return self.whole - self.packed


def pack_away(
    home: Path,
    store: Store,
    bases: Mapping[Address, Address],
    name: str,
    gives_up: Callable[[Root], bool],
    waiting: Callable[[str], None] = ignore_text,
    low_rank: Callable[[Artifact], LowRank | None] = nothing_added,
) -> Packing:
    """Keep artifacts packed alone, where nothing but what is given up needs them.

    bases: artifact → what it is packed over. name: the file that both have. low_rank: what adapters
    add to the weights of an artifact. The others are as in
    `cleaning.clean`. An artifact that shares its file with another (by a hard link) stays whole:
    nothing would be freed. Raises `StoreError` for a base that is not there.
    """
    for address in sorted(takes(home, store, gives_up, bases)):
        check()
        if not _is_linked(store.folder(*address) / name):
            pack(store, address, bases[address], name, low_rank)
    packed = [address for address in bases if store.packs.is_copy(*address)]
    taken = take_whole(home, store, gives_up, packed, waiting)
    return Packing(
        artifacts=tuple(taken),
        whole=sum(taken.values()),
        packed=sum(bytes_below(store.places.packed(*address)) for address in taken),
    )


def pack(
    store: Store, address: Address, base: Address, name: str,
    low_rank: Callable[[Artifact], LowRank | None] = nothing_added,
) -> None:  # fmt: skip
    """Keep a whole artifact packed as well: its file `name` as what differs from that of `base`.
    Nothing happens where it is, or where it is not here whole.

    Raises `StoreError` if the base is not there, or is packed itself; if one of the two has no such
    file, or none of tensors; if others are unpacked with the artifact; if the disk is full.
    """
    kind, digest = address
    with lease(store.places.lease(kind, digest, "packed")):
        if not store.folder(kind, digest).is_dir() or store.packs.is_copy(kind, digest):
            return
        artifact = store.open(kind, digest)
        if artifact is None:
            return
        if address in store.packs.bases().values():
            raise StoreError(f"{kind} {digest} cannot be packed: others are unpacked with it")
        start = None if store.places.is_packed(*base) else store.open(*base)
        if start is None or base == address:
            raise StoreError(
                f"{kind} {digest} cannot be packed over {' '.join(base)}, which must be in the "
                "store whole: `fomo run` of its experiment makes it again"
            )
        for one in (artifact, start):
            one.path(name)  # raises if it has none
        try:
            with explained(store.root):
                added = low_rank(artifact)
                store.packs.write(address, artifact.manifest, base, start, name, added)
        except DamagedError as damage:
            raise StoreError(f"{kind} {digest} cannot be packed: {damage}") from damage


def _is_linked(path: Path) -> bool:
    return path.is_file() and path.stat().st_nlink > 1

"""What takes how much of a home: artifacts by kind and by who needs them, and all else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.cleaning import files_of, what_goes
from fomo_dagster.store.places import Address
from fomo_dagster.store.roots import roots
from fomo_dagster.store.sizes import File, bytes_of, files_below, freed, freed_by

OTHERS = {
    "resume": "resume points of trainings",
    "cache": "caches, which can be deleted at no cost but time",
    "tables": "tables",
    "heads": "heads, which say what assets are now",
    "releases": "records of releases",
    "runs": "what was ever materialised",
    "launches": "work in processes of its own",
    "dagster": "Dagster's runs",
}
"""The folders of a home beside its store."""


@dataclass(frozen=True)
class Share:
    """What one has of the store. alone: bytes that nothing else needs."""

    name: str
    artifacts: int
    bytes: int
    alone: int


@dataclass(frozen=True)
class OfKind:
    """All artifacts of a kind. unneeded: bytes that `fomo store clean` frees. packed: bytes of what
    is kept packed, which are among the others."""

    kind: str
    artifacts: int
    bytes: int
    unneeded: int
    packed: int


@dataclass(frozen=True)
class OnRemote:
    """What is on a remote. used: artifacts that this home uses; by_others: that other homes do;
    unknown: that were pushed before homes said so."""

    artifacts: int
    bytes: int
    used: int
    by_others: int
    unknown: int


@dataclass(frozen=True)
class Usage:
    """shared: what is needed by assets of no one experiment, such as shards. leftovers: bytes of
    what processes left that were killed, and of what was set aside as damaged. others: folder of
    the home → bytes. bytes: of the whole home; what hard links share counts once here, and for each
    kind and experiment that has it."""

    kinds: tuple[OfKind, ...]
    experiments: tuple[Share, ...]
    releases: tuple[Share, ...]
    shared: Share
    unneeded: Share
    leftovers: int
    others: Mapping[str, int]
    remote: OnRemote | None
    bytes: int

    def as_data(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def usage(home: Path, store: Store) -> Usage:
    """What takes how much. Raises `StoreError` as `what_goes`."""
    of_both = {address: files_of(store, address) for address in store.places.all()}
    files = {address: whole + packed for address, (whole, packed) in of_both.items()}
    goes = what_goes(home, store)
    needed: dict[Address, set[tuple[str, str]]] = {address: set() for address in files}
    of_digest: dict[str, list[Address]] = {}
    for address in files:
        of_digest.setdefault(address[1], []).append(address)
    for root in roots(home):
        holder = (root.holder, root.name)
        if root.holder == "asset":
            holder = ("experiment", root.experiment) if root.experiment else ("shared", "")
        for digest in root.digests:
            for address in of_digest.get(digest, ()):
                needed[address].add(holder)
        for address in root.addresses & needed.keys():
            needed[address].add(holder)

    def share(name: str, holder: tuple[str, str]) -> Share:
        own = [a for a, holders in needed.items() if holder in holders]
        alone = freed_by(files[a] for a in own if needed[a] == {holder})
        return Share(name, len(own), bytes_of(files[a] for a in own), alone)

    def shares(sort: str) -> tuple[Share, ...]:
        names = {name for holders in needed.values() for kind, name in holders if kind == sort}
        return _largest(share(name, (sort, name)) for name in names)

    gone = {address: files[address] for address in goes.artifacts if address in files}
    others = {name: files_below(home / name) for name in OTHERS}
    left = [files_below(path) for path in goes.leftovers]
    unneeded = freed_by(gone.values())
    return Usage(
        kinds=_kinds(of_both, gone),
        experiments=shares("experiment"),
        releases=shares("release"),
        shared=share("shared", ("shared", "")),
        unneeded=Share("unneeded", len(gone), unneeded, unneeded),
        leftovers=bytes_of(left),
        others={name: bytes_of([of]) for name, of in others.items() if of},
        bytes=bytes_of([*files.values(), *left, *others.values()]),
        remote=_on_remote(store),
    )


def _kinds(
    files: Mapping[Address, tuple[Counter[File], Counter[File]]],
    gone: Mapping[Address, Counter[File]],
) -> tuple[OfKind, ...]:
    found, free = [], freed(gone.values())
    for name in {kind for kind, _ in files}:
        own = [both for address, both in files.items() if address[0] == name]
        going = {file for address, of in gone.items() if address[0] == name for file in of}
        found.append(
            OfKind(
                name, len(own), bytes_of(one for both in own for one in both),
                sum(file.bytes for file in going & free), bytes_of(packed for _, packed in own),
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda one: (-one.bytes, one.kind)))


def _largest(shares: Iterable[Share]) -> tuple[Share, ...]:
    return tuple(sorted(shares, key=lambda one: (-one.bytes, one.name)))


def _on_remote(store: Store) -> OnRemote | None:
    if store.remote is None:
        return None
    there, users = store.remote.contents(), store.remote.users
    known = users.of_artifacts()
    own = set(users.used())
    by_others = sum(bool(by - {users.name}) for by in known.values())
    unknown = sum(address not in known for address in there)
    return OnRemote(len(there), sum(there.values()), len(own), by_others, unknown)

"""Takes from a store what nobody needs.

Who needs an artifact is said by `roots`, `pins`, `sharing` and, on a remote, `users`. All are read
while the lease `Places.gate` is held, under which processes that look for artifacts wait. An
artifact is renamed away whole, so it is there or it is not, whenever a process is killed; what was
renamed away and not removed yet, the next cleaning removes. A note says when an artifact was
cleaned: it is written first, and plans read it.

What is kept packed goes as whole artifacts do, and what it is unpacked with stays as long as it.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fomo_dagster.errors import StoreError
from fomo_dagster.progress import ignore_text
from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.files import explained
from fomo_dagster.store.leases import if_free, lease
from fomo_dagster.store.manifests import MANIFEST, DamagedError, parse
from fomo_dagster.store.notes import write_note
from fomo_dagster.store.pins import pinned
from fomo_dagster.store.places import Address, Places, name_of
from fomo_dagster.store.remotes import Remote
from fomo_dagster.store.roots import Root, digests_in, roots
from fomo_dagster.store.sharing import known_since, others
from fomo_dagster.store.sizes import File, bytes_of, files_below, freed_by

UNNEEDED = "nothing needs it"
FOLLOWERS = frozenset({"text_embeddings", "chunk_hashes"})
"""The kinds that may have no asset that points to them: they stay as long as one of what they are
made from."""


def nothing(root: Root) -> bool:
    """Gives nothing up."""
    return False


@dataclass(frozen=True)
class Cleaning:
    """What goes, or went.

    artifacts: address → bytes here. why: address → why. leftovers: what processes left that were
    killed, and what was set aside as damaged → bytes. bytes: what it frees on this disk; less than
    all these where what stays is linked with it. kept_for: who else needs what could go →
    the number of artifacts. remote: address → bytes on the remote; before it is cleaned, as if no
    other home needed it; and copies of resume points that killed processes left there.
    """

    artifacts: Mapping[Address, int]
    why: Mapping[Address, str]
    leftovers: Mapping[Path, int]
    bytes: int
    kept_for: Mapping[str, int]
    remote: Mapping[Address, int]


def files_of(store: Store, address: Address) -> tuple[Counter[File], Counter[File]]:
    """The files of an artifact here: whole, and packed."""
    places = store.places
    return files_below(places.artifact(*address)), files_below(places.packed(*address))


def what_goes(home: Path, store: Store, gives_up: Callable[[Root], bool] = nothing) -> Cleaning:
    """What `clean` would take.

    gives_up: whether what a root needs may go. Raises `StoreError` where nobody can know what is
    needed: a damaged head; a home that shares the store and cannot be seen from here.
    """
    found = _going(home, store, gives_up)
    remote, there = _cleanable(store), dict[Address, int]()
    if remote is not None:
        sizes = remote.contents()
        there = {a: sizes.get(a, 0) for a in remote.users.used() if not found.needs(a)}
        there |= remote.finished_resume_copies(sizes)
    artifacts = {address: sum(files_of(store, address), Counter[File]()) for address in found.why}
    leftovers = {
        path: files_below(path)
        for path in _leftovers(home, store)
        if _is_abandoned(path, store.places)
    }
    return Cleaning(
        artifacts={address: bytes_of([files]) for address, files in artifacts.items()},
        why=found.why,
        leftovers={path: bytes_of([files]) for path, files in leftovers.items()},
        bytes=freed_by([*artifacts.values(), *leftovers.values()]),
        kept_for=found.kept_for,
        remote=there,
    )


def clean(
    home: Path,
    store: Store,
    gives_up: Callable[[Root], bool] = nothing,
    only: Collection[Address] | None = None,
    waiting: Callable[[str], None] = ignore_text,
) -> Cleaning:
    """Take what nothing needs; what was taken.

    only: nothing but these, and no leftovers. waiting: told who cleans already. The others are as
    in `what_goes`, which also says what is raised.
    """
    places, remote = store.places, _cleanable(store)
    trash = places.trash / uuid.uuid4().hex
    there, points = dict[Address, int](), dict[Address, int]()
    if remote is not None and only is None:
        there = remote.contents()
        points = remote.finished_resume_copies(there)
    taken: dict[Address, Counter[File]] = {}
    gone: list[Address] = []
    try:
        with lease(places.gate, waiting), explained(places.root):
            left = _leftovers(home, store) if only is None else []
            found = _going(home, store, gives_up, only)
            trash.mkdir(parents=True)
            for address in found.why:
                write_note(places.cleaned(*address))
                gone_to = trash / name_of(*address), trash / name_of(*address, "packed")
                # Else it was set aside as damaged in this moment.
                if _take(store, address, gone_to[0]) | store.packs.remove(address, gone_to[1]):
                    taken[address] = sum(map(files_below, gone_to), Counter[File]())
                _forget(places, address)
            for address in places.all() if only is None else only:
                if places.is_here(*address):  # noted by one who was killed before it took it
                    places.cleaned(*address).unlink(missing_ok=True)
            if remote is not None:
                gone = remote.users.give_up(found.needs, only, waiting)
                for address in gone:
                    write_note(places.cleaned(*address))
                for _, digest in points:
                    remote.resume_copies(digest).remove()
    finally:
        _remove(trash)
    swept = {path: files for path in left if (files := _swept(path, places)) is not None}
    return Cleaning(
        artifacts={address: bytes_of([files]) for address, files in taken.items()},
        why={address: found.why[address] for address in taken},
        leftovers={path: bytes_of([files]) for path, files in swept.items()},
        bytes=freed_by([*taken.values(), *swept.values()]),
        kept_for=found.kept_for,
        remote={**{address: there.get(address, 0) for address in gone}, **points},
    )


def takes(
    home: Path, store: Store, gives_up: Callable[[Root], bool], only: Collection[Address]
) -> set[Address]:
    """Those of `only` that `clean` would take, as in this moment."""
    return set(_going(home, store, gives_up, only).why) & set(only)


def take_whole(
    home: Path,
    store: Store,
    gives_up: Callable[[Root], bool],
    only: Collection[Address],
    waiting: Callable[[str], None] = ignore_text,
) -> dict[Address, int]:
    """Take the whole files of artifacts that are kept packed; address → bytes that are free.

    Those alone that `clean` would take, but none that others are unpacked with, and none that is
    still to be pushed to the remote. The others are as in `clean`.
    """
    places, taken = store.places, dict[Address, int]()
    trash = places.trash / uuid.uuid4().hex
    try:
        with lease(places.gate, waiting), explained(places.root):
            trash.mkdir(parents=True)
            stays = {*store.packs.bases().values()}
            for address in takes(home, store, gives_up, only) - stays:
                if places.pending(*address).exists() or not store.packs.is_copy(*address):
                    continue
                gone_to = trash / name_of(*address)
                if _take(store, address, gone_to):
                    taken[address] = freed_by([files_below(gone_to)])
                    _verified_of(places, address).unlink(missing_ok=True)
    finally:
        _remove(trash)
    return taken


@dataclass(frozen=True)
class _Found:
    """why: what goes. needs: whether this home needs an artifact, which need not be here."""

    why: Mapping[Address, str]
    kept_for: Mapping[str, int]
    needs: Callable[[Address], bool]


def _going(
    home: Path,
    store: Store,
    gives_up: Callable[[Root], bool],
    only: Collection[Address] | None = None,
) -> _Found:
    # Pins first: a process writes the head of what it made before it ends.
    in_use = {address: process for process, address in pinned(store.root)}
    addresses: set[Address] = set()
    digests: set[str] = set()
    loosely: dict[Address, str] = {}
    for place in (home, *others(store.root)):
        for root in roots(place):
            if place == home and gives_up(root):
                loosely |= dict.fromkeys(root.addresses, root.experiment or root.name)
            else:
                addresses |= root.addresses
                digests |= root.digests
    since = known_since(store.root)

    why: dict[Address, str] = {}
    kept: Counter[str] = Counter()
    stays, follows = set[str](), list[Address]()  # digests; what no asset points to
    for address in store.places.all():
        is_asked_for = only is None or address in only
        if address in addresses or address[1] in digests:
            stays.add(address[1])
        elif address in in_use:
            stays.add(address[1])
            kept[f"process {in_use[address]}"] += is_asked_for
        elif since and _changed_at(store.places, address) < since:
            stays.add(address[1])
            kept["homes that share the store, perhaps"] += is_asked_for
        elif address[0] in FOLLOWERS:
            follows.append(address)
        elif is_asked_for:
            why[address] = f"of {loosely[address]}" if address in loosely else UNNEEDED
        else:
            stays.add(address[1])
    bases = {base for address, base in store.packs.bases().items() if address not in why}
    for base in bases & why.keys():
        del why[base]
        stays.add(base[1])
        kept["artifacts that are kept packed"] += 1
    said = {digest: reason for (_, digest), reason in why.items()}
    for address in follows:
        made_from = _made_from(store, address)
        reasons = [said[digest] for digest in made_from if digest in said]
        if not made_from & stays and (reasons or only is None):
            why[address] = reasons[0] if reasons else UNNEEDED
        else:
            addresses.add(address)

    def needs(address: Address) -> bool:
        needed = address in addresses or address[1] in digests or address in in_use
        return needed or address in bases

    return _Found(why, +kept, needs)


def _made_from(store: Store, address: Address) -> set[str]:
    """The digests in the inputs of an artifact's recipe; none where it is damaged."""
    try:
        manifest = parse((store.folder(*address) / MANIFEST).read_bytes(), *address)
    except (OSError, DamagedError):
        return set()
    return digests_in(manifest["recipe"]["inputs"])


def _forget(places: Places, address: Address) -> None:
    """What the store remembers of an artifact that went."""
    _verified_of(places, address).unlink(missing_ok=True)
    mark = places.pending(*address)
    with suppress(FileNotFoundError):
        if not mark.read_bytes():  # others say that what is on the remote is to be replaced
            mark.unlink()


def _verified_of(places: Places, address: Address) -> Path:
    kind, digest = address
    return places.root / ".verified" / kind / f"{digest}.json"


def _take(store: Store, address: Address, to: Path) -> bool:
    """Move a whole artifact away; whether there was one."""
    with suppress(FileNotFoundError):
        store.folder(*address).rename(to)
        return True
    return False


def _changed_at(places: Places, address: Address) -> float:
    """Seconds since 1970, when an artifact came here, whole or packed."""
    folders = (places.artifact(*address), places.packed(*address))
    return min((f.stat().st_mtime for f in folders if f.is_dir()), default=0.0)


def _cleanable(store: Store) -> Remote | None:
    """The remote, where homes can say there what they need, and who cleans."""
    return store.remote if store.remote is not None and store.remote.has_claims else None


def _leftovers(home: Path, store: Store) -> list[Path]:
    """What was begun or set aside in a store, and resume points of what is finished."""
    places = store.places
    finished = {digest for _, digest in places.all()}
    return [
        *(p for f in (places.staging, places.trash, places.damaged) for p in sorted(f.glob("*"))),
        *(p for p in sorted((home / "resume").glob("*")) if p.name in finished),
    ]


def _is_abandoned(path: Path, places: Places) -> bool:
    """Whether nobody works in a leftover."""
    if path.parent != places.staging:
        return True
    with if_free(_lease_of(path, places)) as is_free:
        return is_free


def _swept(path: Path, places: Places) -> Counter[File] | None:
    """Remove a leftover; its files, or None where somebody works there."""
    files = files_below(path)
    if path.parent != places.staging:
        _remove(path)
        return files
    with if_free(_lease_of(path, places)) as is_free:
        if is_free:
            shutil.rmtree(path, ignore_errors=True)
        return files if is_free else None


def _lease_of(staging: Path, places: Places) -> Path:
    return places.root / ".leases" / staging.name.rpartition("-")[0]


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:  # by another who cleans
        shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be removed ({error.strerror}): let this user remove it, and clean again"
        ) from error

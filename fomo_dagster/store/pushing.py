"""What a home made before it had a remote, copied there: by itself, a run pushes what it makes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fomo_dagster.errors import InputError
from fomo_dagster.progress import Progress, no_progress
from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.cleaning import what_goes
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import skipped_where_refused, write_bytes
from fomo_dagster.store.heads import Heads
from fomo_dagster.store.manifests import DamagedError
from fomo_dagster.store.places import Address
from fomo_dagster.store.remotes import Remote
from fomo_dagster.store.sizes import bytes_of, files_below
from fomo_dagster.store.starts import KIND, share_start


class Pushed(NamedTuple):
    """artifacts, bytes: that were copied. there: artifacts that the remote had."""

    artifacts: int
    bytes: int
    there: int


def push_needed(home: Path, store: Store, progress: Progress = no_progress) -> Pushed:
    """Copy what an asset, a release or a resume point needs, and the remote has not.

    Raises `InputError` without a remote, and `StoreError` where that cannot be used, or where
    nobody can know what is needed; what was copied before then stays.
    """
    remote = store.remote
    if remote is None:
        raise InputError(
            "there is no remote store to push to: set FOMO_STORE to its URL, such as "
            "s3://bucket/fomo"
        )
    remote.check_writable()
    needed, pushed, size = _needed(home, store), 0, 0
    for number, address in enumerate(needed):
        progress("artifacts", number, len(needed))
        if not _is_there(remote, address) and (artifact := store.open(*address)) is not None:
            store.push(artifact)
            pushed, size = pushed + 1, size + bytes_of([files_below(artifact.folder)])
    progress("artifacts", len(needed), len(needed))
    for _, _, head in Heads(home / "heads").all():
        if head is not None and head.kind == KIND:
            share_start(head, remote)
    return Pushed(pushed, size, len(needed) - pushed)


def made_before(store: Store) -> int:
    """How many artifacts were made here before this home first used its remote. It is asked once:
    0 from the second time on, and where there is no remote."""
    remote = store.remote
    if remote is None:
        return 0
    mark = store.root / ".remotes" / digest_of([remote.url])
    if mark.exists():
        return 0
    here = store.places.all()
    is_new = bool(here) and not remote.users.used()
    with skipped_where_refused():  # as on a read-only disk
        write_bytes(mark, b"")
    return sum(not store.places.pending(*one).exists() for one in here) if is_new else 0


def _is_there(remote: Remote, address: Address) -> bool:
    """Whether the remote has it whole; what is damaged there is replaced."""
    try:
        return remote.has(*address)
    except DamagedError:
        return False


def _needed(home: Path, store: Store) -> list[Address]:
    goes = what_goes(home, store).why
    return [address for address in store.places.all() if address not in goes]

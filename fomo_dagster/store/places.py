"""Where things are in a store's folder, by kind and digest.

What begins with a dot is the store's own; everything else is a folder of a kind, with a folder for
each artifact.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from fomo_dagster.store.files import explained
from fomo_dagster.store.manifests import check_address, is_address

Address: TypeAlias = tuple[str, str]
"""The kind and the digest of an artifact."""


@dataclass(frozen=True)
class Places:
    """The places in the folder of a store. A kind and a digest that are no address raise
    `StoreError`."""

    root: Path

    def artifact(self, kind: str, digest: str) -> Path:
        """The folder of a finished artifact."""
        check_address(kind, digest)
        return self.root / kind / digest

    def lease(self, kind: str, digest: str, doing: str = "") -> Path:
        """What is held by whoever makes an artifact or, with `doing`, does something else."""
        return self.root / ".leases" / name_of(kind, digest, doing)

    def pending(self, kind: str, digest: str) -> Path:
        """The mark of what is to be pushed to the remote."""
        return self.root / ".pending" / name_of(kind, digest)

    def cleaned(self, kind: str, digest: str) -> Path:
        """The note of what was cleaned."""
        check_address(kind, digest)
        return self.root / ".cleaned" / kind / digest

    def packed(self, kind: str, digest: str) -> Path:
        """The folder of an artifact that is kept packed."""
        check_address(kind, digest)
        return self.root / ".packed" / kind / digest

    def is_packed(self, kind: str, digest: str) -> bool:
        """Whether an artifact is here packed alone."""
        return not self.artifact(kind, digest).is_dir() and self.packed(kind, digest).is_dir()

    def is_here(self, kind: str, digest: str) -> bool:
        """Whether there is a folder of an artifact, whole or packed."""
        return self.artifact(kind, digest).is_dir() or self.packed(kind, digest).is_dir()

    @property
    def staging(self) -> Path:
        """Where artifacts are before they are finished."""
        return self.root / ".staging"

    @property
    def damaged(self) -> Path:
        """Where damaged artifacts were set aside."""
        return self.root / ".damaged"

    @property
    def trash(self) -> Path:
        """Where artifacts are between their place and their end."""
        return self.root / ".trash"

    @property
    def gate(self) -> Path:
        """The lease of whoever takes artifacts from their places."""
        return self.root / ".leases" / "cleaning"

    def new_staging(self, kind: str, digest: str, doing: str = "") -> Path:
        """The empty folder in which the holder of the lease works. No other ever has its name: one
        that was robbed may write to its own for a while."""
        name = name_of(kind, digest, doing)
        self.remove_abandoned(name)
        folder = self.staging / f"{name}-{uuid.uuid4().hex}"
        with explained(folder):
            folder.mkdir(parents=True)
        return folder

    def remove_abandoned(self, name: str) -> None:
        """Where earlier holders of the lease of that name worked: they gave it back by their
        death."""
        for abandoned in self.staging.glob(f"{name}*"):
            shutil.rmtree(abandoned, ignore_errors=True)

    def artifacts(self) -> Iterator[Address]:
        """The addresses at which there is a folder of a whole artifact."""
        return _addresses(self.root)

    def packs(self) -> Iterator[Address]:
        """The addresses at which an artifact is kept packed."""
        return _addresses(self.root / ".packed")

    def all(self) -> list[Address]:
        """The addresses of all artifacts that are here, whole or packed."""
        return sorted({*self.artifacts(), *self.packs()})


def _addresses(folder: Path) -> Iterator[Address]:
    for kind in sorted(folder.glob("[!.]*")):
        for artifact in sorted(kind.glob("[!.]*")):
            if is_address(kind.name, artifact.name) and artifact.is_dir():
                yield kind.name, artifact.name


def name_of(kind: str, digest: str, doing: str = "") -> str:
    """The name of an artifact's lease, mark or staging folder."""
    check_address(kind, digest)
    return "-".join(filter(None, (doing, kind, digest)))

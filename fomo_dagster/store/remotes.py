"""A remote side of the store on any filesystem that fsspec reaches (S3, GCS, a shared mount).

The manifest is written last and is what makes an artifact exist there. Machines that share a remote
may make the same artifact at the same time; the results are equal by construction, so the later
push changes nothing that matters.
"""

from __future__ import annotations

from pathlib import Path

import fsspec

from fomo_dagster.errors import InputError, StoreError

_MANIFEST = "manifest.json"


class Remote:
    """Artifacts below one fsspec URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._filesystem, self._root = fsspec.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError(f"the remote store {url!r} cannot be opened: {error}") from error

    def has(self, kind: str, digest: str) -> bool:
        return bool(self._filesystem.exists(f"{self._root}/{kind}/{digest}/{_MANIFEST}"))

    def fetch(self, kind: str, digest: str, folder: Path) -> None:
        """Copy an artifact's files into `folder`; the caller verifies them."""
        there = f"{self._root}/{kind}/{digest}"
        for path in self._filesystem.find(there):
            name = path.split(f"{kind}/{digest}/", 1)[1]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            self._filesystem.get_file(path, str(folder / name))

    def push(self, kind: str, digest: str, folder: Path) -> None:
        """Copy a finished artifact there, its manifest last; raises `StoreError` where refused."""
        there = f"{self._root}/{kind}/{digest}"
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _MANIFEST)
        try:
            for path in [*files, folder / _MANIFEST]:
                target = f"{there}/{path.relative_to(folder).as_posix()}"
                self._filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
                self._filesystem.put_file(str(path), target)
        except OSError as error:
            raise StoreError(
                f"{kind} {digest} could not be pushed to {self.url} ({error}); it is kept in "
                f"{folder} and pushed when it is next asked for"
            ) from error

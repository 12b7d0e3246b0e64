"""Images inside an uncompressed tar, by name: nothing is extracted, and each is read where it lies.

The headers are passed over once and the members that are asked for are digested once; both are kept
until the tar changes. Links, devices and sparse files are never read. Reading a tar from front to
back is not covered: the `webdataset` library does that.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from fomo_dagster.data.sources.files import FILES_PER_TASK
from fomo_dagster.data.sources.remembered import keep, recall, stamp
from fomo_dagster.errors import DataError
from fomo_dagster.store.digests import DIGEST_LENGTH, digest_of_bytes

MEMBERS: dict[str, pl.DataType] = {
    "name": pl.String(),
    "kind": pl.String(),  # FILE, or what else it is
    "offset": pl.Int64(),  # of its first byte
    "size": pl.Int64(),  # in bytes
    "digest": pl.String(),  # of its bytes; null until it was asked for
}
LOCATED: dict[str, pl.DataType] = {
    "name": pl.String(),
    "problem": pl.String(),  # why it cannot be read; null where it can
    "digest": pl.String(),
    "reference": pl.String(),  # what `read_member` needs
}
FILE = "file"
PIECE = 1 << 20  # bytes that are digested at a time


class TarMembers:
    """The members of the tar at `path`. Listing and digests are kept in the file `kept`."""

    def __init__(self, path: Path, kept: Path) -> None:
        self.path = path
        self.kept = kept

    def holds_folder(self, folder: str) -> bool:
        """Whether any file lies in `folder`."""
        members = self._members(stamp(self.path))
        return members["name"].str.starts_with(f"{folder}/").any()

    def locate(self, names: Sequence[str]) -> pl.DataFrame:
        """Columns of `LOCATED`, a row for each of `names`, in order.

        Raises `DataError` where the tar is not a whole uncompressed one, or cannot be read.
        """
        state = stamp(self.path)
        members = self._members(state)
        wanted = pl.DataFrame({"name": names}, schema={"name": pl.String()})
        missing = (pl.col("kind") == FILE) & pl.col("digest").is_null()
        fresh = members.filter(missing).join(wanted, on="name", how="semi")
        if fresh.height:
            read = fresh.with_columns(pl.Series("digest", self._digests(fresh), pl.String))
            members = members.update(read.select("name", "digest"), on="name")
            keep(self.kept, state, members)
        where = pl.format("{}:{}:{}:{}", "digest", "offset", "size", pl.lit(str(self.path)))
        problem = pl.when(pl.col("kind").is_null()).then(pl.lit("not there"))
        return (
            wanted.join(members, on="name", how="left", maintain_order="left")
            .with_columns(
                problem=problem.when(pl.col("kind") != FILE).then(pl.col("kind")),
                reference=pl.when(pl.col("kind") == FILE).then(where),
            )
            .select(*LOCATED)
        )

    def _members(self, state: str | None) -> pl.DataFrame:
        kept = recall(self.kept, state, MEMBERS)
        return keep(self.kept, state, self._listed()) if kept is None else kept

    def _listed(self) -> pl.DataFrame:
        """Where a name comes twice, the last counts, as for whoever extracts."""
        try:
            rows = list(_headers(self.path))
        except tarfile.TarError as error:
            raise DataError(
                f"{self.path} is not a whole, uncompressed tar ({error}): fetch it again"
            ) from error
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error
        members = pl.DataFrame(rows, schema=MEMBERS, orient="row")
        return members.unique("name", keep="last", maintain_order=True)

    def _digests(self, members: pl.DataFrame) -> list[str]:
        """Of each member's bytes, in order; the disk sees them in theirs."""
        places = members.select("offset", "size").rows()
        tasks = [places[i : i + FILES_PER_TASK] for i in range(0, len(places), FILES_PER_TASK)]
        try:
            with self.path.open("rb") as tar, ThreadPoolExecutor() as threads:
                file = tar.fileno()
                found = threads.map(lambda task: [_digest(file, *place) for place in task], tasks)
                return [digest for task in found for digest in task]
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error


def read_member(reference: str) -> bytes:
    """The member's bytes. Raises `DataError` where they are not those whose digest was taken."""
    digest, offset, size, path = reference.split(":", 3)
    try:
        with open(path, "rb", buffering=0) as tar:
            data = os.pread(tar.fileno(), int(size), int(offset))
    except OSError as error:
        raise DataError(
            f"{path} was there when it was scanned and cannot be read now ({error.strerror})"
        ) from error
    if digest_of_bytes(data) != digest:
        raise DataError(f"{path} changed after it was scanned: run again when nothing changes it")
    return data


def _headers(path: Path) -> Iterator[tuple[str, str, int, int, None]]:
    """A row of `MEMBERS` for each member but folders."""
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all that it saw
            if not member.isdir():
                name = member.name.removeprefix("./")
                yield name, _kind(member), member.offset_data, member.size, None
        # What is no header, tarfile takes for the end.
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"damaged at byte {tar.offset}")


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg():
        return "a device"
    return "a sparse file" if member.issparse() else FILE


def _digest(file: int, offset: int, size: int) -> str:
    content = hashlib.sha256()
    for start in range(offset, offset + size, PIECE):
        content.update(os.pread(file, min(PIECE, offset + size - start), start))
    return content.hexdigest()[:DIGEST_LENGTH]

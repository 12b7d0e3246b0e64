"""Images inside an uncompressed tar, by name. Nothing is extracted; each image is read in place.

The headers are scanned once, and the requested members are digested once; both results are kept
until the tar changes. A hard link to an earlier member is that member. Other links, devices, sparse
files and members larger than any image are never read. Names that differ only in how Unicode
composes their letters are the same name. Reading a tar from front to back is not covered: the
`webdataset` library does that.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from fomo_dagster.data.sources.files import FILES_PER_TASK, LARGEST_IMAGE
from fomo_dagster.data.sources.table_cache import keep, recall, stamp
from fomo_dagster.data.tar_headers import headers, undone_by
from fomo_dagster.errors import DataError
from fomo_dagster.store.digests import DIGEST_LENGTH, digest_of, digest_of_bytes
from fomo_dagster.texts import as_text

MEMBERS: dict[str, pl.DataType] = {
    "name": pl.String(),
    "kind": pl.String(),  # FILE, or what else it is
    "offset": pl.Int64(),  # of its first byte
    "size": pl.Int64(),  # in bytes
    "digest": pl.String(),  # of its bytes; null until it was asked for
}
LOCATED: dict[str, pl.DataType] = {
    "name": pl.String(),
    "problem": pl.String(),  # why it cannot be read; null if it can
    "digest": pl.String(),  # null if it was not asked for
    "reference": pl.String(),  # what `read_member` needs; null as the digest is
}
MEMBERS_VERSION = 2  # raised when the same tar would be listed otherwise
FILE = "file"
PIECE = 1 << 20  # bytes that are digested at a time


class TarMembers:
    """The members of the tar at `path`. Listing and digests are kept in the file `kept`."""

    def __init__(self, path: Path, kept: Path) -> None:
        self.path = path
        self.kept = kept

    def holds_folder(self, folder: str) -> bool:
        """Whether any file lies in `folder`."""
        members = self._members(self._state())
        return members["name"].str.starts_with(f"{folder}/").any()

    def locate(self, names: Sequence[str], *, digested: bool = True) -> pl.DataFrame:
        """Columns of `LOCATED`, a row for each of `names`, in order.

        digested: with digests and references, for which the members are read once. Raises
        `DataError` if the tar is not a whole uncompressed one, or cannot be read.
        """
        state = self._state()
        members = self._members(state)
        wanted = pl.DataFrame(
            {"asked": names, "name": [member_name(name) for name in names]},
            schema={"asked": pl.String(), "name": pl.String()},
        )
        missing = (pl.col("kind") == FILE) & pl.col("digest").is_null()
        fresh = members.filter(missing).join(wanted, on="name", how="semi")
        if fresh.height and digested:
            read = fresh.with_columns(pl.Series("digest", self._digests(fresh), pl.String))
            members = members.update(read.select("name", "digest"), on="name")
            keep(self.kept, state, members)
        where = pl.format("{}:{}:{}:{}", "digest", "offset", "size", pl.lit(str(self.path)))
        problem = pl.when(pl.col("kind").is_null()).then(pl.lit("not there"))
        return (
            wanted.join(members, on="name", how="left", maintain_order="left")
            .with_columns(
                name=pl.col("asked"),
                problem=problem.when(pl.col("kind") != FILE).then(pl.col("kind")),
                reference=pl.when(pl.col("kind") == FILE).then(where),
            )
            .select(*LOCATED)
        )

    def _state(self) -> str | None:
        state = stamp(self.path)
        return state and digest_of([MEMBERS_VERSION, state])

    def _members(self, state: str | None) -> pl.DataFrame:
        kept = recall(self.kept, state, MEMBERS)
        return keep(self.kept, state, self._listed()) if kept is None else kept

    def _listed(self) -> pl.DataFrame:
        """Where a name comes twice, the last counts, as for whoever extracts."""
        try:
            rows = list(_headers(self.path))
        except tarfile.TarError as error:
            raise DataError(self._not_a_tar(error)) from error
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error
        members = pl.DataFrame(rows, schema=MEMBERS, orient="row")
        return members.unique("name", keep="last", maintain_order=True)

    def _not_a_tar(self, error: tarfile.TarError) -> str:
        tool = undone_by(self.path)
        if tool is None:
            return f"{self.path} is not a whole tar ({error}): delete it, and fetch it again"
        return (
            f"{self.path} is compressed, so that its images cannot be read one by one: "
            f"decompress it (`{tool}`) under the same name, or extract it into its folder"
        )

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


def member_name(name: str) -> str:
    """A name in the one form in which names are compared, without a leading `./`.

    Archives from a Mac write an accented letter as two characters. Bytes that are not UTF-8, which
    Python holds as lone surrogates, become text such as `\\udce9`: tables hold only what is text.
    """
    name = name.removeprefix("./")
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", as_text(name))


def read_member(reference: str) -> bytes:
    """The member's bytes. Raises `DataError` if they are not those whose digest was taken."""
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
    places: dict[str, tuple[int, int]] = {}  # offset and size of the files so far
    with path.open("rb") as file:
        for member in headers(file):
            if not member.isdir():
                name, kind = member_name(member.name), _kind(member)
                place = (member.offset_data, member.size)
                if member.islnk() and member_name(member.linkname) in places:
                    kind, place = FILE, places[member_name(member.linkname)]
                if kind == FILE:
                    places[name] = place
                yield name, kind, *place, None


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg():
        return "a device"
    if member.issparse():
        return "a sparse file"
    if member.size > LARGEST_IMAGE:
        return f"{member.size:,} bytes, more than any image"
    return FILE


def _digest(file: int, offset: int, size: int) -> str:
    content = hashlib.sha256()
    for start in range(offset, offset + size, PIECE):
        content.update(os.pread(file, min(PIECE, offset + size - start), start))
    return content.hexdigest()[:DIGEST_LENGTH]

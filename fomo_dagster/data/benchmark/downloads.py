"""Downloads the benchmark's archives from its list. Downloads are resumed and checked.

A download grows in `<FOLDER>.tar.part`, next to a note of what it is a part of, and takes its name
when it is whole. Its checksum goes into `checksums.json`, and a later download must have the same.
Nothing is unpacked: the source `fomo_release` reads the archives as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests

from fomo_dagster.data.downloading import PIECE, check_size, opened, pieces
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.progress import Progress, no_progress
from fomo_dagster.store.files import fsync, write_bytes
from fomo_dagster.store.leases import lease
from fomo_dagster.units import byte_size

CHECKSUMS = "checksums.json"
_END_BYTES = 1024  # of zeros, that a tar ends with
MOST_FRUITLESS = 5  # tries in a row that brought no byte


@dataclass(frozen=True)
class Archive:
    """One entry of the list: `name` is the archive's, `<FOLDER>.tar`."""

    name: str
    url: str

    @property
    def folder(self) -> str:
        return self.name.removesuffix(".tar")


@dataclass(frozen=True)
class Fetched:
    """An archive that exists, and whether this call downloaded it."""

    path: Path
    size: int
    downloaded: bool


def read_list(path: Path) -> dict[str, Archive]:
    """Folder → archive, from the release's list: one address a line, `#` before a comment.

    Raises `InputError` if there is no list, and `DataError` for a line that is not an address of an
    archive, or for two of one name.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"cannot read the list of downloads {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the list of downloads {path} is no UTF-8 text: {error}") from error
    archives: dict[str, Archive] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        name = _archive_at(line)
        if name is None:
            raise DataError(f"line {number} of {path} is no address of a .tar: {line!r}")
        archive = Archive(name, _direct(line))
        if archive.folder in archives:
            raise DataError(f"line {number} of {path} names {name} a second time")
        archives[archive.folder] = archive
    return archives


def _archive_at(url: str) -> str | None:
    """The name of the archive at an address; None if it is no address of one."""
    try:
        parts = urlsplit(url)
    except ValueError:  # as of a bracket that begins an IPv6 address and ends none
        return None
    name = parts.path.rpartition("/")[2]
    is_one = parts.scheme in ("http", "https") and parts.hostname and name.endswith(".tar")
    return name if is_one and name != ".tar" else None


def _direct(url: str) -> str:
    """The address of the file itself, where `url` is one of Dropbox's pages about it."""
    parts = urlsplit(url)
    if parts.hostname is None or not parts.hostname.endswith("dropbox.com"):
        return url
    query = {**dict(parse_qsl(parts.query)), "dl": "1"}
    return urlunsplit(parts._replace(query=urlencode(query)))


def fetch(
    archive: Archive,
    folder: Path,
    progress: Progress = no_progress,
    *,
    wait: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Find the archive in `folder`, or download it, continuing an earlier download.

    wait: called with the seconds to pass before another try. Raises `InputError` if the server
    cannot be reached or refuses, and `DataError` if the connection is lost again and again, if what
    came is not an archive, or if it differs from what came before. What was received is kept then,
    and after any interruption.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lease(folder / f".{archive.name}.lease"):
            return _fetch(archive, folder / archive.name, progress, wait)
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}): free some "
            "space, or name another folder (FOMO_RELEASE_IMAGES); what came is kept"
        ) from error
    finally:
        if is_new:
            with suppress(OSError):  # something came
                folder.rmdir()


def _fetch(
    archive: Archive, target: Path, progress: Progress, wait: Callable[[float], None]
) -> Fetched:
    recorded = _recorded(target.parent).get(archive.name)
    if target.exists():
        size = target.stat().st_size
        if recorded is not None and recorded["size"] != size:
            raise DataError(
                f"{target} has {size} bytes, and {recorded['size']} when it was downloaded: "
                "delete it, and fetch it again"
            )
        return Fetched(target, size, downloaded=False)
    download = _Download(archive, target, progress)
    download.run(wait)
    return download.finish(recorded)


class _Download:
    """One archive being downloaded into its `.part` file."""

    def __init__(self, archive: Archive, target: Path, progress: Progress) -> None:
        self.archive = archive
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")
        self.progress = progress
        self.state: dict[str, Any] = {}  # the url, and its `validator` and `length`, where known
        self.hash = hashlib.sha256()
        self.received = 0
        self._take_up()

    def _take_up(self) -> None:
        """Go on from what an earlier call left, if it left it of the same address."""
        try:
            state = json.loads(self.note.read_bytes())
            if state["url"] != self.archive.url:
                return
            with self.part.open("rb") as file:
                while piece := file.read(PIECE):
                    self.hash.update(piece)
                    self.received += len(piece)
                    total = state.get("length", 0)
                    self.progress(self.archive.name, self.received, total, "was here")
        except (OSError, ValueError, KeyError, TypeError):
            self._begin_anew()
            return
        self.state = state

    def _begin_anew(self) -> None:
        self.state, self.received, self.hash = {}, 0, hashlib.sha256()

    @property
    def is_whole(self) -> bool:
        return self.received > 0 and self.received == self.state.get("length")

    def run(self, wait: Callable[[float], None]) -> None:
        """Request until the archive is whole; see `fetch` for what is raised."""
        fruitless, answered, agreed = 0, False, False
        with requests.Session() as session:
            while not self.is_whole and not (agreed and "length" not in self.state):
                before, agreed, reason = self.received, False, "nothing came"
                try:
                    with self._request(session) as response:
                        answered = True
                        if self._agree(response):
                            self._receive(response)
                            agreed = True  # where the server does not say how much, that was all
                except requests.RequestException as error:
                    if not answered:
                        raise self._unreachable(error) from error
                    reason = str(_innermost(error))
                fruitless = 0 if self.received > before else fruitless + 1
                if fruitless == MOST_FRUITLESS:
                    raise DataError(
                        f"the download of {self.archive.name} was cut off at "
                        f"{byte_size(self.received)} of {byte_size(self.state.get('length', 0))} "
                        f"({reason}): run the same command to continue it"
                    )
                if fruitless:
                    wait(2.0**fruitless)

    def _request(self, session: requests.Session) -> requests.Response:
        """Ask for what is missing, if the file is still the one that we have a part of."""
        headers = {"Accept-Encoding": "identity"}
        if self.received:
            headers["Range"] = f"bytes={self.received}-"
            validator = self.state.get("validator")
            if validator and not validator.startswith("W/"):
                headers["If-Range"] = validator
        return opened(session, self.archive.url, headers)

    def _agree(self, response: requests.Response) -> bool:
        """Whether the response's body goes on where the part ends, or begins a new one.

        False where the part must be begun anew by another request.
        """
        status = response.status_code
        if status >= 500:
            raise requests.HTTPError(f"its server answers {status} {response.reason}")
        found = {"url": self.archive.url, **_facts(response)}
        if self.received and (
            status == 416 or (status == 206 and not self._goes_on(response, found))
        ):
            self._begin_anew()
            return False
        if status not in ((200, 206) if self.received else (200,)):
            raise InputError(
                f"{self.archive.url} cannot be downloaded: its server answers {status} "
                f"{response.reason}. {self._by_hand()}"
            )
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise self._web_page()
        check_size(self.archive.name, found.get("length", 0))
        if status == 200:
            self._begin_anew()
        self.state = found
        write_bytes(self.note, json.dumps(found, indent=1).encode())
        return True

    def _goes_on(self, response: requests.Response, found: dict[str, Any]) -> bool:
        """Whether a partial response is the rest of what we have a part of."""
        start = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        return start == str(self.received) and all(
            self.state.get(key) == found.get(key) for key in ("validator", "length")
        )

    def _receive(self, response: requests.Response) -> None:
        total = self.state.get("length", 0)
        self._check_space(total - self.received)
        with self.part.open("r+b" if self.received else "wb") as file:
            file.seek(self.received)
            file.truncate()
            for piece in pieces(response, self.archive.name, self.received):
                if self.received == 0 and piece.lstrip()[:1] == b"<":
                    raise self._web_page()
                file.write(piece)
                self.hash.update(piece)
                self.received += len(piece)
                self.progress(self.archive.name, self.received, total)

    def _check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if needed > free:
            raise InputError(
                f"{self.archive.name} needs {byte_size(needed)} more, and {self.part.parent} has "
                f"{byte_size(free)} left: free some, or name another folder (FOMO_RELEASE_IMAGES)"
            )

    def finish(self, recorded: dict[str, Any] | None) -> Fetched:
        """Check what came against the last download, and give it its name."""
        problem = _no_archive(self.part, said_how_long="length" in self.state)
        if problem is not None:
            self.part.unlink()
            self.note.unlink(missing_ok=True)
            raise DataError(f"what {self.archive.url} sent is no {problem}: it was deleted")
        checksum: dict[str, Any] = {"sha256": self.hash.hexdigest(), "size": self.received}
        folder = self.target.parent
        if recorded is not None and recorded != checksum:
            raise DataError(
                f"{self.archive.name} differs from the file downloaded before (its sha256 "
                f"was {recorded['sha256'][:12]}… and is {checksum['sha256'][:12]}…). If the "
                f"new one is right, delete its entry in {folder / CHECKSUMS} and fetch "
                f"again: it is kept as {self.part.name}"
            )
        with lease(folder / f".{CHECKSUMS}.lease"):
            known = {**_recorded(folder), self.archive.name: checksum}
            write_bytes(
                folder / CHECKSUMS, (json.dumps(known, indent=1, sort_keys=True) + "\n").encode()
            )
        fsync(self.part)
        os.replace(self.part, self.target)
        fsync(folder)
        self.note.unlink(missing_ok=True)
        return Fetched(self.target, self.received, downloaded=True)

    def _web_page(self) -> InputError:
        return InputError(
            f"{self.archive.url} leads to a web page, not to an archive: its owner may have "
            f"moved it, or the day's downloads are used up. {self._by_hand()}"
        )

    def _unreachable(self, error: requests.RequestException) -> InputError:
        host = urlsplit(self.archive.url).hostname
        return InputError(
            f"cannot reach {host} to download {self.archive.name} ({_innermost(error)}). Where the "
            f"network does not allow it: {self._by_hand()}"
        )

    def _by_hand(self) -> str:
        return f"download {self.archive.url} elsewhere, and put it at {self.target}"


def _no_archive(path: Path, *, said_how_long: bool) -> str | None:
    """What a file is not that should be an archive, and whole. Where its server did not say how
    long it is, a connection that broke is told by the archive's end alone."""
    if not tarfile.is_tarfile(path):
        return "tar archive"
    if said_how_long:
        return None
    try:
        with tarfile.open(path) as tar:
            for _ in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            is_plain = tar.fileobj is not None and isinstance(tar.fileobj, io.BufferedReader)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError):
        return "whole tar archive"
    with path.open("rb") as file:
        file.seek(-min(_END_BYTES, path.stat().st_size), os.SEEK_END)
        return "whole tar archive" if is_plain and any(file.read()) else None


def _facts(response: requests.Response) -> dict[str, Any]:
    """What a response tells of the whole file: its length, and what changes when it does."""
    facts: dict[str, Any] = {}
    headers = response.headers
    if validator := headers.get("ETag") or headers.get("Last-Modified"):
        facts["validator"] = validator
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        length = headers.get("Content-Length", "")
    if length.isdecimal():
        facts["length"] = int(length)
    return facts


def _innermost(error: BaseException) -> BaseException:
    """The first cause: libraries wrap the operating system's words several times."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _recorded(folder: Path) -> dict[str, dict[str, Any]]:
    """Archive → sha256 and size of what was downloaded before."""
    path = folder / CHECKSUMS
    try:
        recorded: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): repair it, or delete it to record checksums anew"
        ) from error
    return recorded

"""One remote folder on any filesystem of fsspec, with limited time and attempts.

A refusal of the remote becomes one sentence with its URL, without the secrets that a URL can hold.
"""

from __future__ import annotations

import hashlib
import queue
import re
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import fsspec

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.store.digests import DIGEST_LENGTH

WAITS_SECONDS = (1.0, 4.0)  # before each further attempt, beside those that a driver makes itself
ANSWER_SECONDS = 60.0  # for an answer, after all attempts of the driver
SLOWEST = 100_000  # bytes a second; what is slower has stopped
_PIECE = 16 * 2**20
_PROBE = ".writable"
_PROBE_OF_CREATION = ".claims/probe"
# Stores of objects: one is put whole or not at all, and there are no folders to be made.
_LOCAL = {"file", "local"}
_WEB = {"http", "https"}
_ABSENT = (403, 404, 410)  # with 403 a bucket answers that may not be listed
_WITH_BUCKETS = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci"))
_OF_OBJECTS = _WITH_BUCKETS | {"http", "https", "memory"}
_CONDITIONAL = _WITH_BUCKETS | {"memory"}  # whose drivers pass on that an object must be new
_FINAL = (PermissionError, ImportError, NotImplementedError, IsADirectoryError, NotADirectoryError)

T = TypeVar("T")


class _FailedError(Exception):
    """The remote's own error, told from those of this machine's disk."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _NoAnswerError(Exception):
    """Nothing came within the time."""


class TooLongError(Exception):
    """A file goes on past the size that it should have."""


class Connection:
    """The folder at `url`; `path(name)` is that of a file in it.

    If a file does not exist, `FileNotFoundError` is raised at once. Any other refusal raises
    `StoreError` after a few attempts. A malformed URL raises `InputError`.
    """

    def __init__(self, url: str) -> None:
        self._given = url
        self._secrets = _secrets_of(self._given)
        self.url = self._without_secrets(self._given)
        self._checked: set[str] = set()

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        if "://" not in self._given and not self._given.startswith(("/", "~")):
            raise InputError(
                f"FOMO_STORE {self.url!r} is no URL: `://` was expected, as in s3://bucket/folder, "
                "or a whole path of this machine"
            )
        try:
            filesystem, root = _within(ANSWER_SECONDS, lambda: fsspec.url_to_fs(self._given))
        except (ValueError, ImportError) as error:
            raise InputError(
                f"the remote store {self.url} cannot be opened: {self._said_by(error)}; FOMO_STORE "
                "must be a URL that fsspec knows, such as s3://bucket/folder, and its package must "
                "be installed, such as fomo-dagster[s3]"
            ) from None
        except Exception as error:
            raise self._refusal("opened", error) from None
        if not root.strip("/"):
            raise InputError(f"FOMO_STORE {self.url!r} names no bucket or folder")
        return filesystem, root.rstrip("/")

    @property
    def _filesystem(self) -> Any:
        return self._opened[0]

    def path(self, name: str) -> str:
        """The filesystem's path of a file in the folder."""
        return f"{self._opened[1]}/{name}"

    def check(self) -> None:
        """Raise if nothing can be read there; asks once."""
        if "read" in self._checked:
            return
        filesystem, root = self._opened
        if self._protocols & _WEB:  # a web server need not list anything
            return
        bucket = root.split("/")[0] if self._protocols & _WITH_BUCKETS else None
        try:
            self._patiently("read", lambda: self._call(filesystem.ls, root, detail=False), waits=())
        except FileNotFoundError as error:
            if bucket == root:
                raise self._refusal("read", error) from None
            if bucket is not None:
                self._check_bucket(bucket)
        self._checked.add("read")

    def _check_bucket(self, bucket: str) -> None:
        try:
            self._patiently("read", lambda: self._call(self._filesystem.ls, bucket, detail=False))
        except FileNotFoundError as error:
            raise self._refusal("read", error) from None

    def check_writable(self) -> None:
        """Raise if nothing can be written there; asks once."""
        if "written" in self._checked:
            return
        self.write(b"fomo", self.path(_PROBE))
        self._checked.add("written")

    def read(self, path: str, most: int) -> bytes:
        """The first `most` bytes of a small file."""

        def attempt() -> bytes:
            with self._call(self._filesystem.open, path, "rb") as stream:
                data: bytes = self._call(stream.read, most)
                return data

        self._filesystem.invalidate_cache()
        return self._patiently("read", attempt)

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """In bytes; None if the remote does not tell. Raises `FileNotFoundError` if any is
        absent."""
        self._filesystem.invalidate_cache()
        sizes = self._patiently("read", lambda: self._call(self._filesystem.sizes, list(paths)))
        return [size if isinstance(size, int) else None for size in sizes]

    def download(self, path: str, target: Path, size: int) -> tuple[int, str]:
        """Copy a file to the new file `target`; the number of its bytes, and their digest.

        Raises `TooLongError` once there are more than `size`, `OSError` if `target` cannot be
        written.
        """

        def attempt() -> tuple[int, str]:
            target.unlink(missing_ok=True)
            digest, count = hashlib.sha256(), 0
            stream = self._call(self._filesystem.open, path, "rb")
            with stream, target.open("xb") as file:
                while piece := self._call(stream.read, _PIECE, bytes_=_PIECE):
                    count += len(piece)
                    if count > size:
                        raise TooLongError
                    digest.update(piece)
                    file.write(piece)
            return count, digest.hexdigest()[:DIGEST_LENGTH]

        return self._patiently("read", attempt)

    def check_inside(self, path: str, folder: str) -> None:
        """Raise where links of a local file system lead `path` out of `folder`."""
        if not self._protocols & _LOCAL:
            return
        there, inside = Path(path).resolve(), Path(folder).resolve()
        if not there.is_relative_to(inside):
            raise StoreError(
                f"{path} leads to {there}, outside of {inside}, where nothing is written: remove "
                "the symlink"
            )

    def upload(self, source: Path, path: str) -> None:
        """Copy a file there. Afterwards `path` holds the whole file, or what was there before."""
        size = source.stat().st_size
        self._put(path, size, lambda at: self._filesystem.put_file(str(source), at))

    def write(self, data: bytes, path: str) -> None:
        """As `upload`, of a small file."""
        self._put(path, len(data), lambda at: self._filesystem.pipe_file(at, data))

    @cached_property
    def creates(self) -> bool:
        """Whether `create` keeps its promise there. It is tried, since some stores ignore the
        condition of a request."""
        if not self._protocols & (_LOCAL | _CONDITIONAL):
            return False
        probe = self.path(_PROBE_OF_CREATION)
        try:
            return not self.create(b"fomo", probe) or not self.create(b"fomo", probe)
        except StoreError:  # as of an older driver, or where that is not allowed
            return False

    def create(self, data: bytes, path: str) -> bool:
        """Write a small file unless there is one; whether this did. Of several who try at once, one
        succeeds, if this `creates`."""

        def attempt() -> bool:
            try:
                self._call(self._created, path, data)
            except _FailedError as failed:
                if isinstance(failed.error, FileExistsError) or _is_condition(failed.error):
                    return False
                raise
            return True

        try:
            return self._patiently("written", attempt)
        except FileNotFoundError as error:
            raise self._refusal("written", error) from None

    def _created(self, path: str, data: bytes) -> None:
        if not self._protocols & _LOCAL:
            self._filesystem.pipe_file(path, data, mode="create")
            return
        whole, begun = Path(path), Path(f"{path}.{uuid.uuid4().hex}")
        whole.parent.mkdir(parents=True, exist_ok=True)
        try:
            begun.write_bytes(data)
            whole.hardlink_to(begun)
        finally:
            begun.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        """Remove a file, if it is there."""
        with suppress(FileNotFoundError):
            self._patiently("written", lambda: self._call(self._filesystem.rm_file, path))

    def remove_below(self, path: str) -> None:
        """Remove a folder with all its files, if it is there."""

        def attempt() -> None:
            self._call(self._filesystem.rm, path, recursive=True)

        self._filesystem.invalidate_cache()
        with suppress(FileNotFoundError):
            self._patiently("written", attempt)

    @property
    def is_writable_kind(self) -> bool:
        """Whether anything can ever be written there: not on a web server."""
        return not self._protocols & _WEB

    def listing(self, path: str) -> dict[str, int]:
        """The files below a folder: name from there → bytes; empty where there is none."""

        def attempt() -> dict[str, Any]:
            found: dict[str, Any] = self._call(self._filesystem.find, path, detail=True)
            return found

        self._filesystem.invalidate_cache()
        try:
            found = self._patiently("read", attempt)
        except FileNotFoundError:
            return {}
        return {
            name.removeprefix(f"{path}/"): int(about.get("size") or 0)
            for name, about in found.items()
        }

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove files; some may not be there."""
        if (
            self._protocols & _WITH_BUCKETS
        ):  # where many go in one request, and absent ones are fine
            if paths:
                self._patiently("written", lambda: self._call(self._filesystem.rm, list(paths)))
            return
        for path in paths:
            self.remove(path)

    def _put(self, path: str, size: int, put: Callable[[str], None]) -> None:
        filesystem = self._filesystem

        def attempt() -> None:
            if self._protocols & _OF_OBJECTS:
                self._call(put, path, bytes_=size)
                return
            folder, _, name = path.rpartition("/")
            begun = f"{folder}/.{name}.{uuid.uuid4().hex}"
            self._call(filesystem.makedirs, folder, exist_ok=True)
            try:
                self._call(put, begun, bytes_=size)
                self._call(filesystem.mv, begun, path)
            except BaseException:
                with suppress(_FailedError, FileNotFoundError):
                    self._call(filesystem.rm_file, begun)
                raise

        try:
            self._patiently("written", attempt)
        except FileNotFoundError as error:  # the bucket, or the folder that should have been made
            raise self._refusal("written", error) from None

    @property
    def _protocols(self) -> set[str]:
        protocol = self._filesystem.protocol
        return {protocol} if isinstance(protocol, str) else set(protocol)

    def _call(self, ask: Callable[..., T], *arguments: Any, bytes_: int = 0, **options: Any) -> T:
        """`ask(…)`, or `_FailedError` where the remote fails at it."""
        try:
            return _within(ANSWER_SECONDS + bytes_ / SLOWEST, lambda: ask(*arguments, **options))
        except FileNotFoundError as error:
            cause = error.__cause__
            # Of a web server, fsspec says so whatever happened, even where there is no server.
            if (
                isinstance(cause, Exception)
                and self._protocols & _WEB
                and getattr(cause, "status", None) not in _ABSENT
            ):
                raise _FailedError(cause) from error
            raise
        except Exception as error:
            raise _FailedError(error) from error

    def _patiently(
        self, doing: str, attempt: Callable[[], T], waits: Sequence[float] | None = None
    ) -> T:
        for wait in (*(WAITS_SECONDS if waits is None else waits), None):
            try:
                return attempt()
            except _FailedError as failed:
                error = failed.error
                if wait is None or isinstance(error, (*_FINAL, _NoAnswerError)):
                    raise self._refusal(doing, error) from None
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _refusal(self, doing: str, error: Exception) -> StoreError:
        name = type(error).__name__
        if isinstance(error, PermissionError) or "Credentials" in name:
            way_out = "see that its credentials are set here and may read and write there"
        elif isinstance(error, (FileNotFoundError, FileExistsError, NotADirectoryError)):
            way_out = "create the bucket or folder, or correct FOMO_STORE"
        elif isinstance(error, ImportError):
            way_out = "install that package"
        else:
            way_out = "see that it can be reached from this machine, and run again"
        return StoreError(
            f"the remote store {self.url} cannot be {doing} ({self._said_by(error)}): {way_out}; "
            "or leave FOMO_STORE unset to work without it"
        )

    def _said_by(self, error: Exception) -> str:
        words = " ".join(str(error).split())
        return self._without_secrets(words)[:300] or type(error).__name__

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _is_condition(error: Exception) -> bool:
    """Whether a store says that a condition does not hold, in a way that its driver does not know
    as `FileExistsError`."""
    response = getattr(error.__cause__, "response", None)
    said = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return said in ("PreconditionFailed", "412")


def _secrets_of(url: str) -> list[str]:
    """The password and the parameters in a URL, longest first; a password may hold any `/`."""
    user = re.search(r"://[^/@:]*:(.*)@", url)
    parameters = re.search(r"\?(.+)", url)
    found = [match[1] for match in (user, parameters) if match is not None]
    found += [value for text in found for _, value in parse_qsl(text)]
    return sorted({secret for text in found for secret in (text, unquote(text))}, key=len)[::-1]


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """`ask()`, in a thread of its own, which is left behind where it takes longer."""
    answers: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise _NoAnswerError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    result: T = answer
    return result

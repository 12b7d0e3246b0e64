"""Writing files so that a crash or a full disk leaves the old one or the new one, never half."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from fomo_dagster.errors import FomoError, InputError, StoreError


def fsync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path, *, named: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its place at the end.

    named: as of `explained`.
    """
    temporary = _beside(path)
    with explained(path, named=named):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
    try:
        with explained(path, named=named):
            yield temporary
            with_usual_permissions(temporary)
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # a read-only disk refuses to unlink what is not there
            temporary.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; what was written there becomes `path` at the end, at
    once. Nothing is left where it fails.

    Raises `InputError` if `path`, which a person gave, is there and is no empty folder.
    """
    check_free(path)
    temporary = _beside(path)
    with explained(path, named=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        temporary.mkdir()
    try:
        with explained(path, named=True):
            yield temporary
            for written in sorted(temporary.rglob("*")):
                if written.is_file():
                    with_usual_permissions(written)
                fsync(written)
            fsync(temporary)
            check_free(path)  # somebody may have written there meanwhile
            temporary.replace(path)
            fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(path: Path) -> None:
    """Raise `InputError` if `path` is there and is no empty folder."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        what = "a folder that is not empty" if path.is_dir() else "a file"
        raise InputError(
            f"{path} is {what}, and nothing is written over: give another folder, or remove it"
        )


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")


def with_usual_permissions(path: Path) -> None:
    """Give a file the permissions of any new one beside it: those that the safetensors library
    writes are their owner's alone, and others of a team could not read them."""
    if path.stat().st_mode & 0o077:
        return
    other = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    other.touch()
    try:
        shutil.copymode(other, path)
    finally:
        other.unlink()


def _remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine that were killed had begun to write beside `path`."""
    for begun in path.parent.glob(f".{glob.escape(path.name)}.*-*"):
        process = begun.name.rpartition(".")[2].partition("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            if begun.is_dir():
                shutil.rmtree(begun, ignore_errors=True)
            else:
                begun.unlink(missing_ok=True)
        except (ValueError, PermissionError):  # of another origin, or alive under another user
            continue


def write_bytes(path: Path, data: bytes, *, named: bool = False) -> None:
    """Replace `path` by `data`, whole or not at all. named: as of `explained`."""
    with replacing(path, named=named) as temporary:
        temporary.write_bytes(data)


def create_bytes(path: Path, data: bytes) -> bool:
    """Write a file, whole or not at all, unless there is one; whether this did. Of several who try
    at once, one succeeds."""
    begun = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        # One of the same name, of a process of this number that was killed, may be linked already.
        begun.unlink(missing_ok=True)
        try:
            begun.write_bytes(data)
            fsync(begun)
            path.hardlink_to(begun)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            # A file system without links: only here could a kill leave half a file.
            try:
                with path.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
            fsync(path)
        finally:
            begun.unlink(missing_ok=True)
        fsync(path.parent)
    return True


@contextlib.contextmanager
def skipped_where_refused() -> Iterator[None]:
    """Wraps the writing of caches: if the disk is read-only or full, reading still works."""
    try:
        yield
    except StoreError as error:
        if _refusal(error) is None:
            raise


def signature_of(path: Path) -> list[int]:
    """What changes with every change of a file: a writer can set mtime back, but not ctime."""
    return signature(path.stat())


def signature(status: os.stat_result) -> list[int]:
    """As `signature_of`, where the file was looked at already."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


@contextlib.contextmanager
def explained(path: Path, *, named: bool = False) -> Iterator[None]:
    """Turn the refusal to write `path`, or into that folder, into an error that says what to do.

    named: whether a person gave the path, as of a command's output; else it is below FOMO_HOME.
    """
    try:
        yield
    except FomoError:  # it says already what is the matter, whatever was behind it
        raise
    except Exception as error:
        refusal = _refusal(error)
        if refusal in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            elsewhere = "write to another disk" if named else "set FOMO_HOME to a larger disk"
            raise StoreError(
                f"no space left while writing {path} ({os.strerror(refusal)}): free some, or "
                f"{elsewhere}, and run again; what was finished is kept"
            ) from error
        reason = os.strerror(refusal) if refusal in _DENIED else _what_is_in_the_way(error, path)
        if reason:
            elsewhere = "write to another place" if named else "set FOMO_HOME to a folder that can"
            raise StoreError(f"{path} cannot be written ({reason}): {elsewhere}") from error
        raise


_DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)


def _what_is_in_the_way(error: Exception, path: Path) -> str:
    """A file where a folder should be, or the other way round; nothing if it is another error,
    as of what is read meanwhile."""
    if not isinstance(error, OSError) or error.filename is None:
        return ""
    other = Path(os.fsdecode(error.filename))
    if isinstance(error, IsADirectoryError) and other.parent == path.parent:
        return "there is a folder of that name"
    if path.is_relative_to(other) and isinstance(
        error, FileExistsError | NotADirectoryError | FileNotFoundError
    ):
        return f"{other} is no folder and cannot become one"
    if other.parent == path.parent and other.name.startswith((path.name, f".{path.name}.")):
        return error.strerror or ""
    return ""


_NATIVE = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust report one


def _refusal(error: BaseException | None) -> int | None:
    """The operating system's number behind an error, or behind what it was raised from.

    Polars, safetensors and PyTorch raise classes of their own where a write fails.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:  # Polars leaves it out
            return error.errno
        native = _NATIVE.search(str(error))
        if native is not None:
            return int(native[1])
        error = error.__cause__ or error.__context__
    return None

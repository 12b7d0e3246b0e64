"""Writing files so that a crash or a full disk leaves the old one or the new one, never half."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

from fomo_dagster.errors import FomoError, StoreError


def fsync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its place at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with explained(path):
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what processes of this machine that were killed had begun to write beside `path`."""
    for begun in path.parent.glob(f".{glob.escape(path.name)}.*-*"):
        process = begun.name.rpartition(".")[2].partition("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            begun.unlink(missing_ok=True)
        except (ValueError, PermissionError):  # of another origin, or alive under another user
            continue


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the refusal to write into an error that says what to do."""
    try:
        yield
    except FomoError:  # it says already what is the matter, whatever was behind it
        raise
    except Exception as error:
        refusal = _refusal(error)
        if refusal in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(
                f"no space left while writing {path} ({os.strerror(refusal)}): free some, or set "
                "FOMO_HOME to a larger disk, and run again; what was finished is kept"
            ) from error
        if refusal in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(
                f"{path} cannot be written ({os.strerror(refusal)}): set FOMO_HOME to a folder "
                "that can"
            ) from error
        raise


_NATIVE = re.compile(r"\(os error (\d+)\)")  # how libraries written in Rust report one


def _refusal(error: BaseException | None) -> int | None:
    """The operating system's number behind an error, or behind what it was raised from.

    Polars, safetensors and PyTorch raise classes of their own where a write fails.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        native = _NATIVE.search(str(error))
        if native is not None:
            return int(native[1])
        error = error.__cause__ or error.__context__
    return None

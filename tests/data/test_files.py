"""Digests of files are right, and unchanged files are not read again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import polars as pl
import pytest

from fomo_dagster.data.sources.files import (
    DigestCache,
    read_reference,
    reference_of,
    shortlist,
)
from fomo_dagster.errors import DataError
from fomo_dagster.store.digests import digest_of_bytes

NOW = 0.0  # seconds until a file counts as settled
FORGED = "f" * 32


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """More than one task's worth, each of its own content, and older than the clock's tick."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(150):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    time.sleep(0.02)
    return [str(folder / f"{number}.png") for number in range(150)]


def forge(cache: Path) -> None:
    """Replace every digest kept: one that comes back was not taken from the file."""
    pl.read_parquet(cache).with_columns(digest=pl.lit(FORGED)).write_parquet(cache)


def expected(files: list[str]) -> list[str]:
    return [digest_of_bytes(Path(file).read_bytes()) for file in files]


def test_digests_are_those_of_the_bytes_in_order(tmp_path: Path, files: list[str]) -> None:
    cache = DigestCache(tmp_path / "cache" / "a.parquet", NOW)
    backwards = files[::-1] + files[:3]
    assert cache.digests(backwards, "test") == expected(backwards)
    assert cache.digests(files, "test") == expected(files)
    assert cache.digests([], "test") == []


def test_unchanged_files_are_not_read_again(tmp_path: Path, files: list[str]) -> None:
    cache = DigestCache(tmp_path / "cache.parquet", NOW)
    cache.digests(files, "test")
    forge(cache.path)
    assert cache.digests(files, "test") == [FORGED] * len(files)


@pytest.mark.parametrize("change", ["bytes", "times put back", "replaced", "touched"])
def test_a_changed_file_alone_is_read_again(tmp_path: Path, files: list[str], change: str) -> None:
    cache = DigestCache(tmp_path / "cache.parquet", NOW)
    cache.digests(files, "test")
    forge(cache.path)
    path = Path(files[7])
    before = path.stat()
    if change == "replaced":
        other = path.with_name("other")
        other.write_bytes(b"8")
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(path)
    elif change == "touched":
        path.touch()
    else:
        path.write_bytes(b"8")
    if change == "times put back":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    digests = cache.digests(files, "test")
    assert digests.pop(7) == digest_of_bytes(path.read_bytes())
    assert digests == [FORGED] * (len(files) - 1)


@pytest.mark.parametrize("modified_at", [None, 10**9])
def test_a_file_that_changed_just_now_is_read_again_next_time(
    tmp_path: Path, files: list[str], modified_at: int | None
) -> None:
    if modified_at is not None:
        for file in files:
            os.utime(file, (modified_at, modified_at))
    cache = DigestCache(tmp_path / "cache.parquet", settle_seconds=3600)
    cache.digests(files, "test")
    forge(cache.path)
    assert cache.digests(files, "test") == expected(files)


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None])
def test_a_cache_that_is_not_whole_is_made_anew(
    tmp_path: Path, files: list[str], content: bytes | None
) -> None:
    cache = DigestCache(tmp_path / "cache.parquet", NOW)
    cache.digests(files, "test")
    if content is None:
        pl.DataFrame({"path": files, "digest": FORGED}).write_parquet(cache.path)
    else:
        cache.path.write_bytes(content)
    assert cache.digests(files, "test") == expected(files)
    forge(cache.path)
    assert cache.digests(files, "test") == [FORGED] * len(files)


def test_the_cache_forgets_files_that_are_gone(tmp_path: Path, files: list[str]) -> None:
    cache = DigestCache(tmp_path / "cache.parquet", NOW)
    cache.digests(files, "test")
    cache.digests(files[:2], "test")
    assert pl.read_parquet(cache.path)["path"].to_list() == files[:2]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["cache.parquet"]


def test_files_that_cannot_be_read_are_named_and_counted(tmp_path: Path, files: list[str]) -> None:
    gone = [str(tmp_path / f"gone {i}.png") for i in range(7)]
    with pytest.raises(DataError) as raised:
        DigestCache(tmp_path / "cache.parquet").digests([*files, *gone], "the folder X")
    for part in ("the folder X: 7 of 157 images", "gone 0.png (No such file", "and 2 more"):
        assert part in str(raised.value)


def test_a_reference_gives_the_bytes_of_its_digest_only(tmp_path: Path) -> None:
    path = tmp_path / "a:b.png"
    path.write_bytes(b"before")
    reference = reference_of(str(path), digest_of_bytes(b"before"))
    assert read_reference(reference) == b"before"
    path.write_bytes(b"after")
    with pytest.raises(DataError, match=r"a:b\.png changed after its folder was scanned"):
        read_reference(reference)
    path.unlink()
    with pytest.raises(DataError, match=r"a:b\.png .* cannot be read now \(No such file"):
        read_reference(reference)


def test_a_shortlist_names_five() -> None:
    assert shortlist(list("abcde")) == "'a', 'b', 'c', 'd', 'e'"
    assert shortlist(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"

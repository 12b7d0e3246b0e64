"""Reading single images out of tars: which are found, which are refused, what is kept."""

from __future__ import annotations

import io
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from fomo_dagster.data.sources.release.tars import TarMembers, read_member
from fomo_dagster.errors import DataError
from fomo_dagster.store.digests import digest_of_bytes

LONG = "d/" + "x" * 300 + ".png"  # beyond what a plain header holds


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once, so that what is kept is used."""
    monkeypatch.setattr("fomo_dagster.data.sources.table_cache.SETTLE_SECONDS", -60)


def pack(path: Path, files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in files.items():
            add(tar, tarfile.TarInfo(name), data)
    return path


def add(tar: tarfile.TarFile, member: tarfile.TarInfo, data: bytes = b"") -> None:
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def members(path: Path) -> TarMembers:
    return TarMembers(path, path.with_suffix(".parquet"))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_found_by_name_and_read_where_they_lie(tmp_path: Path, format: int) -> None:
    files = {"d/a.png": b"a" * 1000, "./d/b.png": b"", "d/ü:{}.png": b"c" * 513}
    if format != tarfile.USTAR_FORMAT:
        files[LONG] = b"long"
    tar = members(pack(tmp_path / "t.tar", files, format))
    wanted = ["d/ü:{}.png", "d/b.png", "d/gone.png", "d/a.png", *list(files)[3:]]
    located = tar.locate(wanted)
    assert located["name"].to_list() == wanted
    assert located["problem"].to_list() == [None, None, "not there", *[None] * (len(wanted) - 3)]
    for name, _, digest, reference in located.filter(
        name != "d/gone.png" for name in wanted
    ).rows():
        data = files.get(name, b"")
        assert digest == digest_of_bytes(data)
        assert read_member(reference) == data
    assert tar.holds_folder("d")
    assert not tar.holds_folder("d/a")


def test_links_and_devices_are_never_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("s", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE), ("c", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            add(tar, member)
        add(tar, tarfile.TarInfo("f"), b"file")
    located = members(path).locate(["s", "h", "c", "f"])
    assert located["problem"].to_list() == ["a link", "a link", "a device", None]
    assert located["reference"].is_null().to_list() == [True, True, True, False]


def test_of_two_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    path = pack(tmp_path / "t.tar", {"a": b"old"})
    with tarfile.open(path, "a") as tar:
        add(tar, tarfile.TarInfo("a"), b"new")
    assert read_member(members(path).locate(["a"])["reference"][0]) == b"new"


def test_only_what_is_asked_for_is_digested_and_that_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "t.tar", {"a": b"1", "b": b"2", "c": b"3"})
    read: list[int] = []
    real = TarMembers._digests

    def counted(self: TarMembers, wanted):  # type: ignore[no-untyped-def]
        read.extend(wanted["name"].to_list())
        return real(self, wanted)

    monkeypatch.setattr(TarMembers, "_digests", counted)
    first = members(path).locate(["b"])
    again = members(path).locate(["b", "c"])
    assert read == ["b", "c"]
    assert again.row(0) == first.row(0)
    pack(path, {"a": b"1", "b": b"22", "c": b"3"})
    assert members(path).locate(["b"])["digest"][0] == digest_of_bytes(b"22")


@pytest.mark.parametrize("keep", [100, 512 + 100, 1024 + 511])
def test_a_tar_that_ends_early_is_refused(tmp_path: Path, keep: int) -> None:
    path = pack(tmp_path / "t.tar", {"a": b"1" * 512, "b": b"2" * 600})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"not a whole tar .*: delete it, and fetch it again"):
        members(path).locate(["a"])


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = pack(tmp_path / "t.tar", {"a": b"1" * 512, "b": b"2", "c": b"3"})
    data = bytearray(path.read_bytes())
    data[1024:1034] = b"\xff" * 10  # in the name of b, so that its checksum is wrong
    path.write_bytes(data)
    with pytest.raises(DataError, match="no header at byte 1024"):
        members(path).locate(["a"])


@pytest.mark.parametrize(
    ("mode", "tool"), [("w:gz", "gunzip"), ("w:bz2", "bunzip2"), ("w:xz", "unxz")]
)
def test_a_compressed_tar_is_refused_with_what_decompresses_it(
    tmp_path: Path, mode: Any, tool: str
) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, mode) as tar:
        add(tar, tarfile.TarInfo("a"), b"1")
    with pytest.raises(DataError, match=f"is compressed, .*`{tool}`"):
        members(path).locate(["a"])


def test_names_are_found_in_either_form_of_unicode(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "d/é.png") for form in ("NFC", "NFD"))
    tar = members(pack(tmp_path / "t.tar", {decomposed: b"from a Mac"}))
    for name in (composed, decomposed):
        located = tar.locate([name])
        assert located["name"].to_list() == [name]
        assert read_member(located["reference"][0]) == b"from a Mac"


def test_names_that_are_not_utf_8_are_written_out_and_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        add(tar, tarfile.TarInfo("d/é.png"), b"latin")
        add(tar, tarfile.TarInfo("d/e.png"), b"plain")
    located = members(path).locate(["d/e.png", r"d/\udce9.png"])
    assert [read_member(reference) for reference in located["reference"]] == [b"plain", b"latin"]


def test_a_hard_link_to_a_member_is_that_member(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, tarfile.TarInfo("./d/a"), b"data")
        for name, target in (("d/b", "./d/a"), ("d/c", "d/b"), ("d/e", "d/later")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            tar.addfile(member)
    located = members(path).locate(["d/b", "d/c", "d/e"])
    assert located["problem"].to_list() == [None, None, "a link"]
    assert [read_member(reference) for reference in located["reference"][:2]] == [b"data"] * 2


def test_what_changed_since_it_was_scanned_is_not_read(tmp_path: Path) -> None:
    path = pack(tmp_path / "t.tar", {"a": b"one"})
    reference = members(path).locate(["a"])["reference"][0]
    pack(path, {"a": b"two"})
    with pytest.raises(DataError, match="changed after it was scanned"):
        read_member(reference)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read now"):
        read_member(reference)

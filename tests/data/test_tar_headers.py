"""Headers of tars that mean harm: refused by what they declare, in no time and in no memory."""

import io
import os
import tarfile
import time

import pytest

from fomo_dagster.data.sources.release.tars import TarMembers
from fomo_dagster.data.sources.webdataset.members import scan_tar
from fomo_dagster.data.tar_headers import headers
from fomo_dagster.errors import DataError

PAX = tarfile.XHDTYPE
HUGE = 64 << 30


def header(name, *, size=0, kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member.tobuf(tarfile.GNU_FORMAT)


def member(name, data=b"", **options):
    return header(name, size=len(data), **options) + data + b"\0" * (-len(data) % 512)


def records(**values):
    """Extended attributes, each of them `<length> <name>=<value>\\n`."""
    data = b""
    for name, value in values.items():
        record = f" {name.replace('__', '.')}={value}\n".encode()
        length = len(record) + 2 + (len(record) > 97)
        data += str(length).encode() + record
    return data


END = b"\0" * 1024
HOSTILE = {
    "an extended header of 64 GiB": header("x", size=HUGE, kind=PAX),
    "a name of 64 GiB": header("x", size=HUGE, kind=tarfile.GNUTYPE_LONGNAME),
    "a chain of extended headers": member("x", records(path="a"), kind=PAX) * 5000,
    "a chain of long names": member("x", b"a\0", kind=tarfile.GNUTYPE_LONGNAME) * 5000,
    "a map of a sparse file that is no map": (
        member("x", records(GNU__sparse__major="1", GNU__sparse__minor="0"), kind=PAX)
        + member("y.jpg", b"no numbers" * 60)
    ),
    "a size that is none": member("x", records(size="many"), kind=PAX) + member("y.jpg", b"1"),
    "a size below nothing": member("x", records(size="-512"), kind=PAX) + member("y.jpg", b"1"),
    "a map with a number of a million digits": (
        member("x", records(GNU__sparse__map="1" * 900_000), kind=PAX) + member("y.jpg", b"1")
    ),
    "a length that is none": member("x", b"9999999999999999999 a=b\n", kind=PAX),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_hostile_header_is_damage(tmp_path, name, sparse):
    path = tmp_path / "x.tar"
    path.write_bytes(member("a.txt", b"1") + HOSTILE[name] + END)
    if sparse:
        os.truncate(path, 2 * HUGE)  # all that is declared is there, and takes no room
    started = time.monotonic()
    with path.open("rb") as file, pytest.raises(tarfile.ReadError):
        list(headers(file))
    found = scan_tar(path, ("jpg",), digests=True)
    assert "the tar is damaged or ends early" in found.broken["reason"][0]
    with pytest.raises(DataError, match="is not a whole tar"):
        TarMembers(path, tmp_path / "kept").locate(["a.txt"])
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.CONTTYPE])
def test_a_member_of_64_gib_is_refused_by_its_declared_size(tmp_path, tars, kind):
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.write(member("a.txt", b"a text") + header("a.jpg", size=HUGE, kind=kind))
        file.seek(HUGE, os.SEEK_CUR)
        file.write(member("b.json", b'{"caption": "b"}') + member("b.jpg", tars.picture(1)))
        file.write(header("c.txt", size=HUGE))
        file.seek(HUGE, os.SEEK_CUR)
        file.write(member("c.jpg", tars.picture(1)) + END)
    for digests in (True, False):
        found = scan_tar(path, ("jpg",), digests=digests)
        assert found.samples["key"].to_list() == ["b"]
        assert found.broken["reason"].to_list() == [
            "its image has 68,719,476,736 bytes, more than 536,870,912",
            "its txt has 68,719,476,736 bytes, more than 1,048,576",
        ]
    located = TarMembers(path, tmp_path / "kept").locate(["a.jpg", "b.jpg"])
    assert located["problem"].to_list() == ["68,719,476,736 bytes, more than any image", None]


def test_names_links_and_devices_lead_nowhere(tmp_path, tars):
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(tars.picture(1))
    content = b"".join(
        member(f"{name}.txt", b"text") + member(f"{name}.jpg", tars.picture(n))
        for n, name in enumerate(("/etc/passwd", "../../up", "a/../b"))
    )
    for n, (kind, link) in enumerate(
        [(tarfile.SYMTYPE, str(outside)), (tarfile.LNKTYPE, str(outside)), (tarfile.CHRTYPE, ""),
         (tarfile.FIFOTYPE, ""), (tarfile.LNKTYPE, "../outside.jpg")]
    ):  # fmt: skip
        content += member(f"l{n}.txt", b"text") + member(f"l{n}.jpg", kind=kind, link=link)
    path = tmp_path / "x.tar"
    path.write_bytes(content + END)
    before = sorted(tmp_path.rglob("*"))
    found = scan_tar(path, ("jpg",), digests=True)
    assert found.samples["key"].to_list() == ["/etc/passwd", "../../up", "a/../b"]
    assert found.broken["reason"].to_list() == [f"l{n}.jpg is not a plain file" for n in range(5)]
    assert sorted(tmp_path.rglob("*")) == before


def test_headers_are_those_of_tarfile(tmp_path):
    path = tmp_path / "x.tar"
    names = ["a", "b/" + "long" * 60, "c" * 99, "ü" * 80, "d"]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for n, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 700 * n
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    with path.open("rb") as file, tarfile.open(path) as tar:
        ours = [(m.name, m.offset_data, m.size) for m in headers(file, ends_in_mark=True)]
        assert ours == [(m.name, m.offset_data, m.size) for m in tar]

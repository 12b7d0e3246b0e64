"""Usable samples of a tar, held against tarfile's own reading, and every kind of breakage."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from fomo_dagster.data.webdataset.members import TarScan, scan_tar
from fomo_dagster.store.digests import digest_of_bytes

IMAGES = ("jpg", "png", "jpeg", "webp")


def scan(path: Path) -> TarScan:
    return scan_tar(path, IMAGES, digests=True)


def test_every_sample_is_found_with_its_captions_place_and_digest(tmp_path, tars):
    path = tars.shard(tmp_path, 2, 30)
    samples, broken, *_ = scan(path)
    assert broken.is_empty()
    with tarfile.open(path) as tar:
        for key, captions, digest, offset, size in samples.rows():
            data = tar.extractfile(f"{key}.jpg").read()
            assert path.read_bytes()[offset : offset + size] == data
            assert digest == digest_of_bytes(data)
            assert captions == [tar.extractfile(f"{key}.txt").read().decode()]
    assert len(samples) == 30
    assert "000020002" not in samples["key"]  # the numbering has gaps
    places = scan_tar(path, IMAGES, digests=False).samples
    assert places.drop("digest").equals(samples.drop("digest"))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_every_image_extension_and_case_counts(tmp_path, tars, kind):
    name = "a/b.C".rpartition(".")[0] + "." + kind  # extensions in capitals, names with folders
    path = tars.write(tmp_path / "x.tar", {name: tars.picture(1, kind), "a/b.txt": b"one"})
    assert scan(path).samples["key"].to_list() == ["a/b"]


@pytest.mark.parametrize(
    ("about", "key", "captions"),
    [
        ('{"caption": "from json"}', "x", ["from json"]),
        ('{"caption": ["one", " ", "two"], "key": "named"}', "named", ["one", "two"]),
    ],
)
def test_a_json_stands_in_for_a_text(tmp_path, tars, about, key, captions):
    content = {"x.jpg": tars.picture(1), "x.json": about.encode()}
    samples, broken, *_ = scan(tars.write(tmp_path / "x.tar", content))
    assert samples.select("key", "captions").rows() == [(key, captions)]
    assert broken.is_empty()


def test_texts_of_a_json_that_are_not_read_are_counted(tmp_path, tars):
    content = {
        "x.jpg": tars.picture(1), "x.txt": b"one",
        "x.json": b'{"caption": "one ", "alt": "two", "width": 3, "tags": ["a"], "note": ""}',
        "y.jpg": tars.picture(2), "y.txt": b"one", "y.json": b'{"caption": "two", "alt": "three"}',
        "z.jpg": tars.picture(2), "z.txt": b"one", "z.json": b"{",
    }  # fmt: skip
    unused = scan(tars.write(tmp_path / "x.tar", content)).unused
    assert [(u.reason, u.members, u.example) for u in unused] == [
        ("the field 'alt' of a JSON", 2, "x.json"),
        ("the field 'tags' of a JSON", 1, "x.json"),
        ("the caption of a JSON that is not the text's, which counts", 1, "y.json"),
        ("a JSON that cannot be read", 1, "z.json"),
    ]


def test_half_characters_and_bytes_in_tars_cost_their_sample_alone(tmp_path, tars):
    picture = tars.picture(1)
    content = {
        "x.jpg": picture, "x.json": b'{"caption": "\\ud83d"}',
        "y.jpg": picture, "y.json": b'{"caption": "fine", "key": "\\udce9"}',
        "z\udcff.jpg": picture, "z\udcff.txt": b"fine",
        "e\u0301.jpg": picture, "\u00e9.txt": "e\u0301".encode(),
        "w.jpg": picture, "w.json": b"[" * 100_000,
        "v.jpg": picture, "v.json": b'{"caption": "fine", "n": ' + b"1" * 5000 + b"}",
    }  # fmt: skip
    samples, broken, *_ = scan(tars.write(tmp_path / "x.tar", content))
    assert samples.select("key", "captions").rows() == [
        ("\\udce9", ["fine"]), ("z\\udcff", ["fine"]), ("\u00e9", ["\u00e9"])
    ]  # fmt: skip
    assert dict(broken.select("key", "reason").rows()) == {
        "x": "its text has half a character (a lone surrogate)",
        "w": "its JSON cannot be read, and it has no other text",
        "v": "its JSON cannot be read, and it has no other text",
    }


BREAKAGES = {
    "it has no text": lambda t: {"x.jpg": t.picture(1)},
    "it has no image": lambda t: {"x.txt": b"a text", "x.json": b"{}"},
    "its text is empty": lambda t: {"x.jpg": t.picture(1), "x.txt": b" \n"},
    "its text is not UTF-8": lambda t: {"x.jpg": t.picture(1), "x.txt": b"\xff\xfe\xfa"},
    "its image is of no known format": lambda t: {"x.jpg": b"<html>404", "x.txt": b"a text"},
}


@pytest.mark.parametrize("reason", BREAKAGES)
def test_a_broken_sample_is_named_and_its_neighbours_stay(tmp_path, tars, reason):
    content = tars.members(1) | BREAKAGES[reason](tars) | tars.members(2)
    samples, broken, *_ = scan(tars.write(tmp_path / "x.tar", content))
    assert samples["key"].to_list() == ["000000001", "000000002"]
    assert broken.select("key", "reason").rows() == [("x", reason)]


def test_an_empty_image_and_a_json_that_is_none_are_broken(tmp_path, tars):
    content = {
        "x.jpg": b"",
        "x.txt": b"a",
        "y.jpg": tars.picture(1),
        "y.json": b"{",
    }
    samples, broken, *_ = scan(tars.write(tmp_path / "x.tar", content))
    assert samples.is_empty()
    assert dict(broken.select("key", "reason").rows()) == {
        "x": "its image is of no known format",
        "y": "its JSON cannot be read, and it has no other text",
    }


def test_two_members_of_one_name_and_links_are_broken(tmp_path, tars):
    path = tars.write(tmp_path / "x.tar", tars.members(1))
    with tarfile.open(path, "a") as tar:
        again = tarfile.TarInfo("000000001.jpg")
        again.size = 0
        tar.addfile(again)
        for name, kind in (("y.jpg", tarfile.SYMTYPE), ("y.txt", tarfile.REGTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            tar.addfile(link)
    samples, broken, *_ = scan(path)
    assert samples.is_empty()
    assert [reason for *_, reason in broken.rows()] == [
        "two members are called 000000001.jpg",
        "y.jpg is not a plain file",
    ]


@pytest.mark.parametrize("keep", [0.999, 0.7, 0.5, 0.31])
def test_a_tar_that_ends_early_gives_what_comes_before(tmp_path, tars, keep):
    path = tars.shard(tmp_path, 0, 20)
    whole = scan(path).samples
    data = path.read_bytes()
    end = int(whole["offset"].max() + whole["size"][-1])
    path.write_bytes(data[: int(end * keep)])
    samples, broken, *_ = scan(path)
    assert samples.equals(whole.head(len(samples)))
    assert 0 < len(samples) < 20
    assert broken["reason"].str.contains("ends early|ends within|no text|no image").all()
    assert not broken.is_empty()


@pytest.mark.parametrize("data", [b"", b"not a tar" * 100])
def test_what_is_no_tar_is_one_broken_thing(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    samples, broken, *_ = scan(tmp_path / "x.tar")
    assert samples.is_empty()
    assert broken["reason"].str.contains("damaged or ends early").to_list() == [True]


def test_a_damaged_header_is_said(tmp_path, tars):
    path = tars.shard(tmp_path, 0, 9)
    data = bytearray(path.read_bytes())
    fifth = scan(path).samples["offset"][4] - 512
    data[fifth : fifth + 512] = b"x" * 512
    path.write_bytes(data)
    samples, broken, *_ = scan(path)
    assert len(samples) == 4
    assert broken["reason"].to_list() == [
        f"the tar is damaged or ends early: no header at byte {fifth}"
    ]

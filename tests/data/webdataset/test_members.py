"""Usable samples of a tar, held against tarfile's own reading, and every kind of breakage."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from fomo_dagster.data.decoding import Decoding
from fomo_dagster.data.formats import extensions
from fomo_dagster.data.sources.webdataset.members import TarScan, scan_tar
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


@pytest.mark.parametrize("joined", [2, 3])
def test_what_follows_the_end_of_a_tar_is_said(tmp_path, tars, joined):
    path = tars.shard(tmp_path, 0, 9)
    whole = scan(path).samples
    path.write_bytes(path.read_bytes() * joined)
    samples, broken, *_ = scan(path)
    assert samples.equals(whole)
    assert broken["reason"].str.contains("more follows its end mark at byte").to_list() == [True]


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path, tars):
    content = {"a.jpg": tars.picture(1), "a.txt": b"\xef\xbb\xbfa text\r\n"}
    content |= {"b.jpg": tars.picture(2), "b.json": b'\xef\xbb\xbf{"caption": "a text"}'}
    samples = scan(tars.write(tmp_path / "x.tar", content)).samples
    assert samples["captions"].to_list() == [["a text"], ["a text"]]


def test_what_is_no_tar_is_told_by_how_it_begins(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (reason,) = scan(tmp_path / "x.tar").broken["reason"]
    assert reason.endswith("it begins with b'version https://git-lfs.'")


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


def keys(path: Path, images: tuple[str, ...] = IMAGES) -> list[str]:
    return scan_tar(path, images, digests=True).samples["key"].to_list()


def test_a_dot_in_a_name_is_part_of_it(tmp_path, tars):
    content = {
        f"d.e/photo.v{n}.{kind}": data
        for n in (1, 2)
        for kind, data in (("jpg", tars.picture(n)), ("txt", b"text %d" % n))
    }
    samples, broken, *_ = scan(tars.write(tmp_path / "x.tar", content))
    assert samples.select("key", "captions").rows() == [
        ("d.e/photo.v1", ["text 1"]), ("d.e/photo.v2", ["text 2"])
    ]  # fmt: skip
    assert broken.is_empty()


def test_parts_of_one_sample_are_those_that_webdataset_groups(tmp_path, tars):
    wds = pytest.importorskip("webdataset")
    content = {
        "a.jpg": tars.picture(1), "a.txt": b"whole", "a.mask.png": tars.picture(2, "PNG"),
        "b.img.jpg": tars.picture(3), "b.txt": b"by its text",
        "c.jpg": tars.picture(4), "c.caption.txt": b"by its image",
        "d.rgb.png": tars.picture(5, "PNG"), "d.words.txt": b"by its key",
    }  # fmt: skip
    path = tars.write(tmp_path / "x.tar", content)
    found = scan(path)
    grouped = [s["__key__"] for s in wds.WebDataset(str(path), shardshuffle=False)]
    assert found.samples["key"].to_list() == grouped
    assert [texts for (texts,) in found.samples.select("captions").rows()] == [
        ["whole"], ["by its text"], ["by its image"], ["by its key"]
    ]  # fmt: skip
    assert found.broken.is_empty()
    assert [tuple(each) for each in found.unused] == [("further parts of samples", 1, "a.mask.png")]
    masks = scan_tar(path, ("mask.png", "jpg"), digests=True).samples
    assert masks.height == 3
    assert masks["size"][0] == len(content["a.mask.png"])


def test_parts_that_could_be_of_several_samples_are_broken_and_each_counts(tmp_path, tars):
    content = {"a.x.jpg": tars.picture(1), "a.y.jpg": tars.picture(2), "a.txt": b"whose?"}
    samples, broken, *_ = scan(tars.write(tmp_path / "x.tar", content))
    assert samples.is_empty()
    assert broken.select("key", "samples", "reason").rows() == [
        ("a", 2, "a.x.jpg and a.y.jpg could be its part, 2 members in all")
    ]  # fmt: skip


def test_further_images_of_a_sample_are_counted(tmp_path, tars):
    content = {
        "a.jpg": tars.picture(1), "a.png": tars.picture(2, "PNG"), "a.txt": b"one",
        "b.png": tars.picture(3, "PNG"), "b.words.txt": b"two", "b.mask.jpg": tars.picture(4),
    }  # fmt: skip
    found = scan(tars.write(tmp_path / "x.tar", content))
    assert found.samples["size"].to_list() == [len(content["a.jpg"]), len(content["b.png"])]
    assert {tuple(each) for each in found.unused} == {
        ("further images of samples", 1, "a.png"), ("further parts of samples", 1, "b.mask.jpg")
    }  # fmt: skip


def test_every_format_that_pillow_decodes_is_used(tmp_path, tars):
    kinds = {"AVIF": "avif", "TIFF": "tif", "GIF": "gif", "JPEG2000": "jp2", "BMP": "bmp",
             "PPM": "ppm", "TGA": "TGA", "JPEG": "jfif"}  # fmt: skip
    content = {}
    for n, (kind, extension) in enumerate(kinds.items()):
        content |= {f"{n}.{extension}": tars.picture(n, kind), f"{n}.txt": b"text"}
    path = tars.write(tmp_path / "x.tar", content)
    assert len(keys(path, extensions())) == len(kinds)
    assert scan_tar(path, extensions(), digests=False).samples.height == len(kinds)


def test_members_that_are_no_part_of_a_sample_are_counted(tmp_path, tars):
    content = tars.members(1) | {
        "1.npy": b"", "2.npy": b"", "3.cls": b"", "README": b"", "._000000001.jpg": b"\0\5\x16\7",
        ".hidden.jpg": b"", "__MACOSX/._x.jpg": b"", "a/Thumbs.db": b"", "e.heic": b"",
        "f.txt": b"t",
    }  # fmt: skip
    found = scan(tars.write(tmp_path / "x.tar", content))
    assert found.samples.height == 1
    assert {u.reason: (u.members, u.example) for u in found.unused} == {
        ".npy": (2, "1.npy"), ".cls": (1, "3.cls"), "no extension": (1, "README"),
        "hidden": (1, ".hidden.jpg"), ".heic": (1, "e.heic"),
    }  # fmt: skip
    assert found.reasons()[0] == "2 × .npy (1.npy)"
    assert found.broken["reason"].to_list() == ["it has no image"]


def test_keys_that_repeat_in_the_jsons_of_a_tar_give_way_to_names(tmp_path, tars):
    content = {}
    for name, key in (("a", "same"), ("b", "same"), ("c", "b")):
        content |= {f"{name}.jpg": tars.picture(ord(name)), f"{name}.txt": b"text",
                    f"{name}.json": json.dumps({"key": key}).encode()}  # fmt: skip
    assert keys(tars.write(tmp_path / "x.tar", content)) == ["a", "b", "c"]
    for name in "ab":
        del content[f"{name}.jpg"]
    assert keys(tars.write(tmp_path / "x.tar", content)) == ["b"]  # alone, its JSON's


def test_copies_of_a_member_count_each(tmp_path, tars):
    path = tars.write(tmp_path / "x.tar", tars.members(1) | tars.members(2))
    with tarfile.open(path, "a") as tar:
        for _ in range(2):
            again = tarfile.TarInfo("000000001.jpg")
            tar.addfile(again)
    samples, broken, *_ = scan(path)
    assert samples["key"].to_list() == ["000000002"]
    assert broken.select("samples", "reason").rows() == [
        (3, "3 members are called 000000001.jpg")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        (rb'{"caption": "half \ud83d"}', "half a character"),
        (b'{"caption": ' + b"[" * 100_000, "JSON cannot be read"),
        (b'{"caption": 1' + b"0" * 9999 + b"}", "JSON cannot be read"),
    ],
)
def test_a_json_that_means_harm_breaks_its_sample_alone(tmp_path, tars, about, reason):
    content = {"x.jpg": tars.picture(1), "x.json": about} | tars.members(2)
    samples, broken, *_ = scan(tars.write(tmp_path / "x.tar", content))
    assert samples["key"].to_list() == ["000000002"]
    assert reason in broken["reason"].item()


def test_a_name_that_is_no_text_is_written_out(tmp_path, tars):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8",
                      errors="surrogateescape") as tar:  # fmt: skip
        for kind, data in (("jpg", tars.picture(1)), ("txt", b"text")):
            member = tarfile.TarInfo(f"caf\udce9.{kind}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert keys(path) == [r"caf\udce9"]


def test_what_decoding_would_change_is_seen_and_no_other_image_is(tmp_path, tars):
    drawing = io.BytesIO()
    Image.new("RGBA", (9, 9), (9, 0, 0, 99)).save(drawing, "PNG")
    content = {"x.png": drawing.getvalue(), "x.txt": b"text"} | tars.members(2)
    path = tars.write(tmp_path / "x.tar", content)
    white, black = (
        scan_tar(path, IMAGES, digests=True, decoding=Decoding(colour))
        for colour in ("#ffffff", "#000000")
    )
    assert white.odd.select("offset", "transparent", "flat").rows() == [
        (white.samples["offset"][0], True, True), (white.samples["offset"][1], False, True)
    ]  # fmt: skip
    same = white.samples["digest"] == black.samples["digest"]
    assert dict(zip(white.samples["key"], same, strict=True)) == {"x": False, "000000002": True}

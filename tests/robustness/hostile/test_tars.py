"""Tars that are damaged, of another kind, or meant ill, as an experiment's pretraining pool."""

import io
import os
import tarfile

import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.slow

HUGE = 64 << 30


def pool(*tars, **settings):
    """A change that writes tars and makes them the pool."""

    def change(project):
        folder = project.root / "tars"
        for number, write in enumerate(tars):
            write(folder / f"{number:05d}.tar")
        web = {"source": {"type": "webdataset", "shards": "../tars", **settings}}
        limit = web["source"].pop("unreadable_limit", None)
        if limit is not None:
            web["unreadable_limit"] = limit
        (project.root / "datasets/web.yaml").write_text(yaml.safe_dump({"web": web}))
        project.write(
            "toy", pretraining_pool={"name": "web", "datasets": ["web"]},
            mixture={"update": 0.5, "buffer": 0.0, "pretraining": 0.5},
        )  # fmt: skip

    return change


def picture(number, kind="JPEG"):
    data = io.BytesIO()
    Image.new("RGB", (12, 10), (number * 3 % 256, 40, 128)).save(data, kind)
    return data.getvalue()


def of(content):
    def write(path):
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))

    return write


def shard(samples=5, number=0, **more):
    content = {}
    for n in range(100 * number, 100 * number + samples):
        content |= {f"{n:05d}.jpg": picture(n), f"{n:05d}.txt": b"a text"}
    return of(content | more)


def holding(data):
    def write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


def large_member(path):
    """Of a declared size that is there, and takes no room."""
    shard()(path)
    with tarfile.open(path) as tar:
        end = max(member.offset_data + 512 * -(-member.size // 512) for member in tar)
    with path.open("r+b") as file:
        file.seek(end)
        for name, size in (("x.txt", 1), ("x.jpg", HUGE)):
            member = tarfile.TarInfo(name)
            member.size = size
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.seek(-(-size // 512) * 512, os.SEEK_CUR)
        file.truncate(file.tell() + 1024)


def links_out(path):
    shard()(path)
    with tarfile.open(path, "a") as tar:
        for name, kind in (("l.jpg", tarfile.SYMTYPE), ("m.jpg", tarfile.LNKTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "/etc/passwd"
            tar.addfile(link)
            tar.addfile(tarfile.TarInfo(name.replace("jpg", "txt")))


SAME_KEY = {
    f"{n}.{kind}": data
    for n in range(6)
    for kind, data in (("jpg", picture(n)), ("txt", b"text"), ("json", b'{"key": "same"}'))
}
CASES = {
    "nothing but labels": (
        pool(of({"1.jpg": picture(1), "1.cls": b"3", "2.jpg": picture(2)})),
        ["plan", "toy"], 1,
        ["no sample that can be used", "00000.tar/1 (it has no text) and 1 more", "1 × .cls"],
    ),
    "nothing but arrays": (
        pool(of({"1.npy": b"1", "2.npy": b"2"})), ["plan", "toy"], 1,
        ["no sample that can be used", "2 × .npy (1.npy)", "A sample is an image with a .txt"],
    ),
    "compressed": (
        pool(holding(b"\x1f\x8b\x08" + b"\0" * 600)), ["plan", "toy"], 1,
        ["the tar is compressed: `gunzip` it"],
    ),
    "a page in the place of a tar": (
        pool(holding(b"<!DOCTYPE html>" * 90)), ["plan", "toy"], 1, ["the tar is damaged"]
    ),
    "formats, names and members of many kinds": (
        pool(shard(5, 0, **{
            "a.v1.avif": picture(1, "AVIF"), "a.v1.txt": b"one",
            "a.v2.TIF": picture(2, "TIFF"), "a.v2.txt": b"two", "a.npy": b"",
        })),
        ["plan", "toy"], 0, ["1 members and fields of the tars", ".npy"],
    ),
    "one key for all": (pool(of(SAME_KEY), of(SAME_KEY)), ["plan", "toy"], 0, []),
    "a test split in the pool's folder": (
        lambda p: (pool(shard(5, 0), shard(5, 1))(p),
                   (p.root / "tars/00000.tar").rename(p.root / "tars/web-train.tar"),
                   (p.root / "tars/00001.tar").rename(p.root / "tars/web-test.tar")),
        ["plan", "toy"], 0, [],
    ),
    "a validation shard among others": (
        lambda p: (pool(shard(5, 0), shard(5, 1))(p),
                   (p.root / "tars/00001.tar").rename(p.root / "tars/val.tar")),
        ["plan", "toy"], 1, ["named as splits (val)", "'00000.tar'"],
    ),
    "an extension with a dot": (
        pool(shard(), image_extensions=[".jpg"]), ["plan", "toy"], 2, ["'.jpg'", "write 'jpg'"]
    ),
    "an extension in capitals": (
        pool(shard(), image_extensions=["JPG"]), ["plan", "toy"], 2, ["write 'jpg'"]
    ),
    "an extension of no image": (
        pool(shard(), image_extensions=["jpg", "txt"]), ["plan", "toy"], 2,
        ["'txt' is not an extension of images"],
    ),
    "an extension that is misspelled": (
        pool(shard(), image_extensions=["jpgg"]), ["plan", "toy"], 2, ["did you mean 'jpg'"]
    ),
    "a shard that is lost, a member of 64 GiB, and links that lead out": (
        lambda p: (pool(large_member, shard(20, 1), links_out,
                        shards="../tars/{00000..00002}.tar")(p),
                   (p.root / "tars/00001.tar").unlink()),
        ["run", "toy"], 1,
        ["8 of 18 samples (44.44%)", "00001.tar (it is not there) and 4 more",
         "00000.tar/x (its image has 68,719,476,736 bytes", "l.jpg is not a plain file"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_tar_as_it_comes_is_read_right_or_refused_in_a_sentence(ends, case):
    ends(*CASES[case])

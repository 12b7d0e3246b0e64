"""Folders of images as they come: spelled otherwise, broken, huge, or no images at all."""

import os
import shutil
import struct
import zlib

import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.slow


def declare(project, **settings):
    """Settings of the source of `birds`, or of the dataset where it has them."""
    path = project.root / "datasets/toy.yaml"
    declared = yaml.safe_load(path.read_text())
    for key, value in settings.items():
        of = declared["birds"] if key in ("background", "unreadable_limit") else None
        (declared["birds"]["source"] if of is None else of)[key] = value
    path.write_text(yaml.safe_dump(declared))


def birds(project):
    return project.root / "images/birds"


def rename(*pairs):
    def change(project):
        for old, new in pairs:
            (birds(project) / old).rename(birds(project) / new)

    return change


def with_splits(splits, *pairs):
    def change(project):
        rename(*pairs)(project)
        declare(project, splits=splits)

    return change


def copy(source, target):
    return lambda project: shutil.copytree(birds(project) / source, birds(project) / target)


def classes_first(project):
    for split in ("train", "test"):
        for concept in list((birds(project) / split).iterdir()):
            (birds(project) / concept.name).mkdir(exist_ok=True)
            concept.rename(birds(project) / concept.name / split)
        (birds(project) / split).rmdir()


def put(name, data):
    return lambda project: (birds(project) / "train/crow" / name).write_bytes(data)


def sparse(name):
    def change(project):
        path = birds(project) / "train/crow" / name
        path.touch()
        os.truncate(path, 64 << 30)

    return change


def litter(project):
    crow = birds(project) / "train/crow"
    for name in (".DS_Store", "._0.png", "Thumbs.db"):
        (crow / name).write_bytes(b"\0\5\x16\7")
    (birds(project) / "__MACOSX/train/crow").mkdir(parents=True)
    os.symlink("../..", crow / "up")
    os.mkfifo(crow / "pipe.png")
    (crow / "notes.heic").write_bytes(b"")


def bomb(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + b"5\xaf\x06\x1e"


def frames(project):
    shades = [Image.new("L", (18, 18), n % 256) for n in range(3000)]
    shades[0].save(birds(project) / "train/crow/many.gif", save_all=True, append_images=shades[1:])


CASES = {
    "splits in capitals": (rename(("train", "Train"), ("test", "TEST")), ["plan", "toy"], 0, []),
    "splits by other usual names": (
        rename(("train", "training_set"), ("test", "Evaluation")), ["plan", "toy"], 0,
        ["no test split", "'Evaluation' is taken for it"],
    ),
    "two spellings of a split": (
        copy("train", "Training"), ["plan", "toy"], 1, ["'Training' and 'train'", "splits"],
    ),
    "two validation splits": (
        lambda p: (copy("test", "val")(p), rename(("test", "dev"))(p)), ["plan", "toy"], 1,
        ["'dev' and 'val'", "both are called validation"],
    ),
    "splits below classes": (
        classes_first, ["plan", "toy"], 1, ["splits belong above the classes"]
    ),
    "splits of any name": (
        with_splits({"train": ["a"], "test": ["b"]}, ("train", "a"), ("test", "b")),
        ["plan", "toy"], 0, [],
    ),
    "a split that is not there": (
        with_splits({"train": ["trian"], "test": ["test"]}), ["plan", "toy"], 2,
        ["no split 'trian'", "'train'"],
    ),
    "a split outside of the folder": (
        with_splits({"train": ["../cats/train"], "test": ["test"]}), ["plan", "toy"], 2,
        ["no split '../cats/train'"],
    ),
    "what systems leave behind, circles and pipes": (
        litter, ["plan", "toy"], 0,
        ["2 files that are not used", "'train/crow/notes.heic'", "no plain file"],
    ),
    "a colour that is none": (
        lambda p: declare(p, background="#12"), ["plan", "toy"], 2,
        ["'#12' is not an opaque colour"],
    ),
    "images that are none, and sizes that none has": (
        lambda p: [change(p) for change in (
            sparse("a.jpg"), put("b.png", bomb(100_000, 100_000)), put("c.png", b""),
            put("d.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n"), frames,
        )],
        ["run", "toy"], 1,
        ["4 of 29 images (13.79%)", "'crow/a.jpg (it has 68,719,476,736 bytes", "DecompressionBomb",
         "'crow/c.png (it is not an image of a known format)'", "'crow/d.jpg (it is not an image"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_as_it_comes_is_read_right_or_refused_in_a_sentence(ends, case):
    ends(*CASES[case])

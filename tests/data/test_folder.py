"""Folders of images: what counts as a sample, a concept, a split; and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import polars as pl
import pytest

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.images import UnreadableImageError
from fomo_dagster.data.samples import SCAN
from fomo_dagster.data.sources.folder.source import FolderSource
from fomo_dagster.data.sources.source import (
    ListingSource,
    Source,
    inspect,
    remarks,
    repeats_said,
    wordless_said,
)
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.store.digests import digest_of_bytes


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def source(base: Path, *, task: str = "classification", **options: object) -> Source:
    declared = FolderSource.model_validate({"path": "images", **options})
    dataset = Dataset.model_validate({"source": declared, "task": task})
    return dataset.open("pets", base, base / "cache")


def scan(base: Path, **options: object) -> pl.DataFrame:
    return source(base, **options).scan()  # type: ignore[arg-type]


def found(frame: pl.DataFrame) -> list[tuple[str, str, str]]:
    return frame.select("split", "key", "concept").rows()


def test_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/2.png", "train/cat/1.JPG", "train/dog/a/b.jpeg")
    write(tmp_path / "images", "test/cat/1.webp")
    frame = scan(tmp_path)
    assert dict(frame.schema) == SCAN
    assert found(frame) == [
        ("test", "cat/1.webp", "cat"),
        ("train", "cat/1.JPG", "cat"),
        ("train", "cat/2.png", "cat"),
        ("train", "dog/a/b.jpeg", "dog"),
    ]
    assert frame["digest"][0] == digest_of_bytes(b"test/cat/1.webp")
    assert frame["captions"].to_list() == [[]] * 4


def test_a_pickled_source_reads_each_image(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "test/cat/1.png")
    opened = source(tmp_path)
    references = opened.scan()["reference"]
    sent = pickle.loads(pickle.dumps(opened))
    assert [sent.read(reference) for reference in references] == [
        b"test/cat/1.png", b"train/cat/1.png"
    ]  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_without_a_test_folder_a_share_of_each_concept_is_held_out(
    tmp_path: Path, prefix: str
) -> None:
    names = [f"{concept}/{i}.png" for concept in ("cat", "dog") for i in range(50)]
    write(tmp_path / "images", *(prefix + name for name in names))
    frame = scan(tmp_path, test_share=0.5)
    assert sorted(frame["key"]) == sorted(names)
    for concept in ("cat", "dog"):
        splits = frame.filter(concept=concept)["split"].to_list()
        assert 12 <= splits.count("test") <= 38
    assert set(scan(tmp_path, test_share=0)["split"]) == {"train"}


def test_a_test_folder_alone_is_an_evaluation_set(tmp_path: Path) -> None:
    write(tmp_path / "images", "test/cat/1.png")
    assert found(scan(tmp_path)) == [("test", "cat/1.png", "cat")]


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / "images", "cat/1.png", "cat/.2.png", "cat/.git/3.png", "cat/Thumbs.db")
    write(tmp_path / "images", ".cache/4.png", "README.md", "cat/1.png.txt", "cat/png")
    assert found(scan(tmp_path)) == [("train", "cat/1.png", "cat")]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "images", "cat/1.png", "cat/deep/2.png", "dog/3.png")
    write(tmp_path / "elsewhere", "4.png")
    for link, target in {
        "cat/up": "..", "cat/deep/self": ".", "cat/deep/cat": "../../cat", "dog/cat": "../cat",
        "dog/circle": "circle", "fox": "../elsewhere", "dog/top": "../../images",
    }.items():  # fmt: skip
        os.symlink(target, tmp_path / "images" / link)
    keys = scan(tmp_path, test_share=0)["key"].to_list()
    assert keys == [
        "cat/1.png", "cat/deep/2.png", "dog/3.png", "dog/cat/1.png", "dog/cat/deep/2.png",
        "fox/4.png",
    ]  # fmt: skip


def test_captions_come_from_the_table_in_its_order(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "train/cat/2.png", "test/cat/1.png")
    table = "path,caption\ntrain/cat/1.png,zwei\n./test/cat/1.png,\ntrain/cat/1.png,eins\n"
    (tmp_path / "captions.csv").write_text(table)
    frame = scan(tmp_path, captions="captions.csv")
    assert frame.select("split", "captions").rows() == [
        ("test", []), ("train", ["zwei", "eins"]), ("train", [])
    ]  # fmt: skip


def test_a_table_of_captions_is_looked_for_in_the_folder_of_images_first(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "test/cat/1.png")
    inside, beside = tmp_path / "images" / "texts.csv", tmp_path / "texts.csv"
    inside.write_text("path,caption\ntrain/cat/1.png,inside\n")
    told = inspect(source(tmp_path, captions="texts.csv"))
    assert (told.scan["captions"].to_list(), told.warnings) == ([[], ["inside"]], ())
    beside.symlink_to(inside)  # one file by two names could not be another
    assert scan(tmp_path, captions="texts.csv").equals(told.scan)
    beside.unlink()
    beside.write_text("path,caption\ntrain/cat/1.png,beside\n")
    with pytest.raises(InputError, match=f"could be {inside} or {beside}: declare the whole path"):
        scan(tmp_path, captions="texts.csv")
    assert scan(tmp_path, captions=str(beside))["captions"][1].to_list() == ["beside"]
    inside.unlink()
    assert scan(tmp_path, captions="texts.csv")["captions"][1].to_list() == ["beside"]
    beside.unlink()
    with pytest.raises(InputError, match=f"no file {inside} and there is no file {beside}"):
        scan(tmp_path, captions="texts.csv")


def test_a_table_of_captions_may_call_its_columns_otherwise(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "test/cat/1.png")
    table = "file_name,text,caption\ntrain/cat/1.png,one,no\n"
    (tmp_path / "images" / "metadata.csv").write_text(table)
    columns = {"path": "file_name", "caption": "text"}
    told = inspect(source(tmp_path, captions="metadata.csv", columns=columns))
    assert told.scan["captions"].to_list() == [[], ["one"]]
    assert told.warnings[0].endswith("columns that are not read: 'caption'")
    with pytest.raises(ValueError, match="classes and splits are folders here; `type: manifest`"):
        scan(tmp_path, captions="metadata.csv", columns={"concept": "label"})


def test_each_split_may_have_its_own_table_of_captions(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "test/cat/1.png", "test/cat/2.png")
    for split in ("train", "test"):
        table = f"file_name,text\ncat/1.png,of {split}\n"
        (tmp_path / "images" / split / "metadata.csv").write_text(table)
    declared = {"captions": "metadata.csv", "columns": {"path": "file_name", "caption": "text"}}
    told = inspect(source(tmp_path, **declared))
    assert told.scan.select("split", "key", "captions").rows() == [
        ("test", "cat/1.png", ["of test"]), ("test", "cat/2.png", []),
        ("train", "cat/1.png", ["of train"]),
    ]  # fmt: skip
    assert told.warnings == ()
    (tmp_path / "images" / "test" / "metadata.csv").write_text("file_name,text\ntest/cat/1.png,x\n")
    with pytest.raises(
        DataError, match=r"'test/test/cat/1.png'; its paths start from its folder 'test'"
    ):
        scan(tmp_path, **declared)
    (tmp_path / "images" / "metadata.csv").write_text("file_name,text\ntrain/cat/1.png,of all\n")
    assert scan(tmp_path, **declared)["captions"].to_list() == [[], [], ["of all"]]


def test_a_retrieval_set_without_class_folders_is_one_concept(tmp_path: Path) -> None:
    write(tmp_path / "images", "test/b.png", "test/a.png")
    assert found(scan(tmp_path, task="retrieval")) == [
        ("test", "a.png", "pets"), ("test", "b.png", "pets")
    ]  # fmt: skip
    write(tmp_path / "images", "train/cat/a.png")
    assert ("train", "cat/a.png", "cat") in found(scan(tmp_path, task="retrieval"))


def test_a_second_scan_sees_what_was_added_and_changed(tmp_path: Path) -> None:
    write(tmp_path / "images", "cat/1.png", "cat/2.png")
    before = scan(tmp_path, test_share=0)
    assert scan(tmp_path, test_share=0).equals(before)
    write(tmp_path / "images", "cat/3.png")
    (tmp_path / "images" / "cat" / "1.png").write_bytes(b"other")
    after = scan(tmp_path, test_share=0)
    assert after["digest"][0] == digest_of_bytes(b"other")
    assert after["digest"][1] == before["digest"][1]
    assert after["key"].to_list() == ["cat/1.png", "cat/2.png", "cat/3.png"]


REFUSED = {
    "empty concept": (["train/cat/1.png", "train/dog/x.txt"], r"dog has no images \(other files"),
    "image outside": (["train/cat/1.png", "train/2.png"], r"outside of class folders: '2\.png'"),
    "flat": (["train/2.png"], "declare `task: retrieval`"),
    "another split": (
        ["train/cat/1.png", "extra/cat/1.png"],
        "'train', which could be a split or a class, beside 'extra'",
    ),
    "splits by parts of their names": (
        ["seg_train/cat/1.png", "seg_test/cat/1.png", "seg_pred/1.png"],
        "'seg_test', which could be a split or a class, beside 'seg_pred', 'seg_train'",
    ),
    "two domains of two splits": (
        ["trainA/1.png", "trainB/1.png", "testA/1.png", "testB/1.png"], "'testA', which could be"
    ),
    "a test split of unlabelled images": (
        ["train/cat/1.png", "train/dog/1.png", "test/images/1.png"],
        "no class in common: 'train' has 'cat', 'dog', 'test' has 'images'",
    ),
    "numbered splits without classes": (
        ["train/cat.1.png", "test1/1.png"], "train has images outside of class folders"
    ),
    "two spellings": (
        ["Train/cat/1.png", "train/cat/2.png"], "'Train' and 'train', and both are called train"
    ),
    "two validation splits": (
        ["train/cat/1.png", "val/cat/1.png", "validation/cat/1.png"], "both are called validation"
    ),
    "a split in its like": (
        ["train/train/cat/1.png", "test/test/cat/1.png"], r"`splits: \{train: \[train/train\]\}`"
    ),
    "splits below classes": (
        ["cat/train/1.png", "cat/test/1.png"], "splits belong above the classes"
    ),
    "nothing": (["train/readme.txt"], "no images and no class folders"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_layout_that_means_nothing_is_refused(tmp_path: Path, case: str) -> None:
    names, message = REFUSED[case]
    write(tmp_path / "images", *names)
    with pytest.raises(DataError, match=message):
        scan(tmp_path)


NESTED = ["animals/1.png", "animals/dogs/1.png", "animals/dogs/old/2.png", "plants/old/3.png"]
CLASSES = {
    "top": ["animals", "animals", "animals", "plants"],
    "nearest": ["animals", "dogs", "old", "old"],
    "path": ["animals", "animals/dogs", "animals/dogs/old", "plants/old"],
}


@pytest.mark.parametrize("prefix", ["", "train/"])
@pytest.mark.parametrize("which", CLASSES)
def test_the_declared_folder_names_the_class(tmp_path: Path, which: str, prefix: str) -> None:
    write(tmp_path / "images", *(prefix + name for name in NESTED))
    told = inspect(source(tmp_path, class_folder=which, test_share=0))
    assert told.scan.select("key", "concept").rows() == [*zip(NESTED, CLASSES[which], strict=True)]
    if which == "nearest":
        (warning,) = told.warnings
        assert "1 classes that are made of several folders of one name, such as 'old': " in warning
        assert "'animals/dogs/old', 'plants/old'; `class_folder: path` tells them" in warning
    else:
        assert told.warnings == ()
    by_default = scan(tmp_path, test_share=0)
    assert by_default.equals(told.scan) is (which == "top")


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/1.png", "plane/1.png")
    assert set(scan(tmp_path)["concept"]) == {"train", "plane"}


def test_classes_named_after_one_kind_of_split_are_classes(tmp_path: Path) -> None:
    write(tmp_path / "images", "test_tube/old/1.png", "test_tube/new/1.png", "vial/1.png")
    assert set(scan(tmp_path)["concept"]) == {"test_tube", "vial"}


def test_splits_without_a_common_class_are_taken_where_declared(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "test/dog/1.png")
    frame = scan(tmp_path, splits={"train": ["train"], "test": ["test"]})
    assert found(frame) == [("test", "dog/1.png", "dog"), ("train", "cat/1.png", "cat")]


@pytest.mark.parametrize("above", ["PetImages", "train/PetImages"])
def test_a_class_that_could_be_the_folder_of_all_classes_is_said(
    tmp_path: Path, above: str
) -> None:
    write(tmp_path / "images", f"{above}/Cat/1.png", f"{above}/Dog/1.png", "readme.md")
    warning = inspect(source(tmp_path)).warnings[0]
    assert "one class 'PetImages', and all images lie in 2 folders below it" in warning
    write(tmp_path / "images", f"{above}/1.png")
    assert "one class" not in inspect(source(tmp_path)).warnings[0]


@pytest.mark.parametrize("split", ["", "train/"])
def test_classes_that_could_be_domains_or_folds_of_the_same_classes_are_said(
    tmp_path: Path, split: str
) -> None:
    write(tmp_path / "images", *(f"{split}{a}/{b}/1.png" for a in ("art", "photo") for b in "xyz"))
    (warning,) = inspect(source(tmp_path)).warnings
    assert "2 classes, and folders below several of them have the same names: 'x', 'y'" in warning
    assert inspect(source(tmp_path, class_folder="path")).warnings == ()
    write(tmp_path / "images", *(f"{split}fungi/{name}/1.png" for name in "abcdefg"))
    assert inspect(source(tmp_path)).warnings == ()  # few of the names are shared


def test_test_images_that_are_training_images_are_said(tmp_path: Path) -> None:
    names = ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png"]
    write(tmp_path / "images", *names)
    assert repeats_said("pets", inspect(source(tmp_path))) == ()
    for copy in ("train/dog/copy.png", "test/dog/copy.png"):
        (tmp_path / "images" / copy).write_bytes(b"train/cat/1.png")
    assert repeats_said("pets", inspect(source(tmp_path))) == (
        "dataset 'pets' has 1 of its 3 test images among its training images, byte for byte, such "
        "as 'dog/copy.png' ('cat/1.png')",
    )
    found = source(tmp_path)
    assert isinstance(found, ListingSource)
    assert repeats_said("pets", found.listing()) == ()  # nothing was read


def test_training_images_without_a_caption_among_others_with_one_are_said(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "train/cat/2.png", "test/cat/3.png")
    (tmp_path / "images" / "texts.csv").write_text("path,caption\ntrain/cat/1.png,one\n")
    assert wordless_said("pets", inspect(source(tmp_path))) == ()
    found = inspect(source(tmp_path, captions="texts.csv"))
    assert remarks("pets", found) == (
        "1 of the 2 training images of dataset 'pets' have no caption and train on the prompt: "
        "'cat/2.png'",
    )
    for name in ("train/cat/1.txt", "test/cat/3.txt"):
        (tmp_path / "images" / name).write_text("one")
    found = inspect(source(tmp_path, captions="beside"))
    assert remarks("pets", found) == found.warnings  # which say so
    (tmp_path / "images" / "train/cat/2.txt").write_text("two")
    assert wordless_said("pets", inspect(source(tmp_path, captions="beside"))) == ()


def test_a_caption_table_with_the_separators_of_windows_is_told_so(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png")
    (tmp_path / "images" / "texts.csv").write_text("path,caption\ntrain\\cat\\1.png,one\n")
    with pytest.raises(DataError, match="separated by / here, not by a backslash"):
        scan(tmp_path, captions="texts.csv")


def test_a_declared_split_within_another_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "images", "a/x/cat/1.png", "b/cat/1.png")
    for splits in ({"train": ["a"], "test": ["a/x"]}, {"train": ["a", "a/x"]}):
        with pytest.raises(InputError, match="names 'a/x', which is part of 'a': leave one"):
            scan(tmp_path, splits=splits)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*images"):
        scan(tmp_path)


@pytest.mark.parametrize("target", ["gone.png", "2.png"])
def test_an_image_that_is_a_link_to_nothing_is_unreadable(tmp_path: Path, target: str) -> None:
    write(tmp_path / "images", "cat/1.png")
    os.symlink(target, tmp_path / "images" / "cat" / "2.png")
    opened = source(tmp_path, test_share=0)
    for _ in range(2):  # the second time from what is kept
        good, link = opened.scan()["reference"]
        assert opened.read(good) == b"cat/1.png"
        with pytest.raises(UnreadableImageError, match="a link to nothing"):
            opened.read(link)


def test_an_image_of_a_size_that_none_has_is_refused_without_a_look(tmp_path: Path) -> None:
    write(tmp_path / "images", "cat/1.png")
    os.truncate(tmp_path / "images" / "cat" / "1.png", 64 << 30)  # a sparse file
    opened = source(tmp_path, test_share=0)
    with pytest.raises(UnreadableImageError, match="68,719,476,736 bytes"):
        opened.read(opened.scan()["reference"].item())


def test_the_usual_names_of_splits_are_known_in_either_case(tmp_path: Path) -> None:
    write(tmp_path / "images", "Training/cat/1.png", "TEST_set/cat/1.png", "Training/dog/1.png")
    assert found(scan(tmp_path)) == [
        ("test", "cat/1.png", "cat"), ("train", "cat/1.png", "cat"), ("train", "dog/1.png", "dog")
    ]  # fmt: skip


def test_a_validation_folder_is_the_test_split_where_there_is_no_other(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "val/cat/2.png")
    told = inspect(source(tmp_path))
    assert told.scan["split"].to_list() == ["test", "train"]
    assert "no test split: 'val' is taken for it" in told.warnings[0]
    write(tmp_path / "images", "test/cat/3.png")
    told = inspect(source(tmp_path))
    assert found(told.scan) == [("test", "cat/3.png", "cat"), ("train", "cat/1.png", "cat")]
    assert "'val' beside 'test'" in told.warnings[0]
    assert "1 outside of the splits: 'val/cat/2.png'" in told.warnings[1]


def test_declared_splits_map_folders_of_any_name(tmp_path: Path) -> None:
    write(tmp_path / "images", "fit/cat/1.png", "val/cat/1.png", "raw/held/cat/1.png", "x/y/3.png")
    splits = {"train": ["fit", "val"], "test": ["raw/held"]}
    told = inspect(source(tmp_path, splits=splits))
    assert found(told.scan) == [
        ("test", "cat/1.png", "cat"), ("train", "fit/cat/1.png", "cat"),
        ("train", "val/cat/1.png", "cat"),
    ]  # fmt: skip
    assert "'x', in none of the declared `splits`" in told.warnings[0]
    with pytest.raises(InputError, match=r"no split 'fot'; did you mean 'fit'"):
        scan(tmp_path, splits={"train": ["fot"]})
    for outside in ("../images/fit", str(tmp_path / "images" / "fit")):
        with pytest.raises(InputError, match="no split"):
            scan(tmp_path, splits={"train": [outside]})


def test_folders_named_like_splits_are_classes_where_it_is_declared(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/a/1.png", "dev/test/1.png", "dev/train/1.png")
    frame = scan(tmp_path, splits={}, test_share=0)
    assert set(frame["concept"]) == {"train", "dev"}


def test_what_ends_as_an_image_is_one_whatever_pillow_calls_it(tmp_path: Path) -> None:
    names = ["a.avif", "b.PGM", "c.jp2", "d.jfif", "e.TIF", "f.apng", "g.tga", "h.mpo"]
    write(tmp_path / "images", *(f"cat/{name}" for name in names))
    (tmp_path / "images" / "cat" / "photo?w=64").write_bytes(b"\xff\xd8\xff\xe0")
    keys = scan(tmp_path, test_share=0)["key"].to_list()
    assert keys == [f"cat/{name}" for name in [*names, "photo?w=64"]]


def test_files_that_are_no_samples_are_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path / "images", "train/cat/1.png", "train/cat/2.heic", "train/cat/deep/3.HEIC")
    write(tmp_path / "images", "train/cat/.4.png", "train/cat/5", "stray.png", "captions.csv")
    litter = ["train/@eaDir/cat/thumb.jpg", "train/cat/@eaDir/1.png/thumb.jpg"]
    litter += ["train/cat/Thumbs.db", "train/cat/._1.png", "train/cat/.DS_Store"]
    write(tmp_path / "images", *litter, "__MACOSX/train/cat/._1.png", "train/.git/6.png")
    os.mkfifo(tmp_path / "images" / "train" / "cat" / "7.png")
    (tmp_path / "images" / "captions.csv").write_text("path,caption\ntrain/cat/1.png,one\n")
    told = inspect(source(tmp_path, captions="images/captions.csv"))
    assert told.scan["key"].to_list() == ["cat/1.png"]
    (warning,) = told.warnings
    assert "holds 6 files that are not used: 2 no image by its suffix (.heic): " in warning
    for said in (
        "'train/cat/2.heic', 'train/cat/deep/3.HEIC'", "1 hidden: 'train/cat/.4.png'",
        "1 no image by its suffix (none): 'train/cat/5'", "1 no plain file: 'train/cat/7.png'",
        "1 outside of the splits: 'stray.png'",
    ):  # fmt: skip
        assert said in warning

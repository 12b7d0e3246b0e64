"""Datasets read from a release in its layout: the six kinds, as tars and as folders."""

import io
import json
import tarfile
import unicodedata

import pytest

from fomo_dagster.data.samples import SCAN, content_digest
from fomo_dagster.data.sources.source import inspect
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.store.digests import digest_of_bytes


@pytest.fixture(params=["tar", "folder"])
def settle(request, release):
    """Leave a dataset's images as they are, or put them into their tar."""
    return release.pack if request.param == "tar" else lambda handle: None


def by_key(scan, split):
    return {
        row["key"]: (row["concept"], row["captions"])
        for row in scan.filter(split=split).iter_rows(named=True)
    }


def test_plain_dataset_gives_its_merged_captions_and_its_bytes(release, settle):
    release.add(
        "dtd",
        train={
            "dtd/images/1.png": {
                "classname": "banded", "target": 0, "synthetic_caption": ["not this"],
                "primer_caption": "nor this", "synthetic_merged_caption": ["a banded wall"],
            },
            "dtd/images/2.png": {
                "classname": "zigzag", "target": 1, "synthetic_merged_caption": "a zigzag rug",
            },
        },
        test={"dtd/images/3.png": {"classname": "zigzag", "target": 1}},
        classes=["banded", "zigzag"],
    )  # fmt: skip
    data = (release.images / "DTD/dtd/images/2.png").read_bytes()
    settle("dtd")
    source = release.source("dtd")
    scan = source.scan()
    assert dict(scan.schema) == SCAN
    assert by_key(scan, "train") == {
        "dtd/images/1.png": ("banded", ["a banded wall"]),
        "dtd/images/2.png": ("zigzag", ["a zigzag rug"]),
    }
    assert by_key(scan, "test") == {"dtd/images/3.png": ("zigzag", [])}
    row = scan.filter(key="dtd/images/2.png").row(0, named=True)
    assert row["digest"] == digest_of_bytes(data)
    assert source.read(row["reference"]) == data
    assert inspect(source).warnings == ()


def test_tar_and_folder_hold_the_same_dataset(release):
    rows = {f"{i}.png": {"classname": "ab"[i % 2], "target": i % 2} for i in range(4)}
    release.add("dtd", train=rows, test={"t.png": {"target": 0}}, classes=["a", "b"])
    as_folder = release.source("dtd").scan()
    release.pack("dtd")
    assert content_digest(release.source("dtd").scan()) == content_digest(as_folder)


def test_resized_copies_are_read_under_the_keys_of_the_images_they_were_made_from(release, settle):
    rows = {f"m/{i}.png": {"classname": "howler", "target": 0} for i in range(3)}
    said = {
        place: {**row, "synthetic_merged_caption": [f"howler {place}"]}
        for place, row in reversed(rows.items())
    }
    release.add("monkeys10", train=rows, test={"m/t.png": {"target": 0}}, classes=["howler"])
    release.add_resized("monkeys10", "train", said)
    release.add_resized("monkeys10", "test", {"m/t.png": {"target": 0}})
    folder = release.images / "MONKEYS10"
    small = (folder / "MONKEYS10_train_224/m/1.png").read_bytes()
    large = (folder / "m/1.png").read_bytes()
    assert small != large
    settle("monkeys10")
    captions = {place: ("howler", [f"howler {place}"]) for place in rows}
    for resized, data in ((True, small), (False, large)):
        source = release.source("monkeys10", resized=resized)
        found = inspect(source)
        # Only the resized copies' info file has captions: they are those of the same images.
        assert by_key(found.scan, "train") == captions
        assert source.read(found.scan.filter(key="m/1.png")["reference"][0]) == data
        assert found.warnings == ()


def test_full_size_images_stand_in_for_copies_that_are_not_there(release, settle):
    rows = {f"m/{i}.png": {"classname": "howler", "target": 0} for i in range(3)}
    release.add("monkeys10", train=rows, test={"m/t.png": {"target": 0}}, classes=["howler"])
    release.write_info(
        "MONKEYS10_train_224.json", {f"MONKEYS10_train_224/{p}": r for p, r in rows.items()}
    )
    settle("monkeys10")
    found = inspect(release.source("monkeys10"))
    assert found.scan.height == 4
    assert len(found.warnings) == 2
    assert "no copies at 224 pixels of its train images" in found.warnings[0]


def test_list_captions_are_several_and_classes_without_samples_are_still_classes(release, settle):
    release.add(
        "clevr",
        train={
            "c/1.png": {"classname": "2 cubes", "target": 1, "default_caption": ["one", "two"],
                        "synthetic_merged_caption": "never"},
            "c/2.png": {"classname": "2 cubes", "target": 1, "default_caption": [],
                        "synthetic_merged_caption": "merged"},
        },
        test={"c/3.png": {"classname": "1 cube", "target": 0, "default_caption": [" ", "x"]}},
        classes=["1 cube", "2 cubes", "9 cubes"],
    )  # fmt: skip
    settle("clevr")
    found = inspect(release.source("clevr", resized=False))
    assert by_key(found.scan, "train") == {
        "c/1.png": ("2 cubes", ["one", "two"]),
        "c/2.png": ("2 cubes", ["merged"]),
    }
    assert by_key(found.scan, "test") == {"c/3.png": ("1 cube", ["x"])}
    assert found.classes == ("1 cube", "2 cubes", "9 cubes")


def test_retrieval_without_classes_is_one_concept_with_five_captions_an_image(release, settle):
    captions = [f"caption {i}" for i in range(5)]
    release.add(
        "flickr30k",
        train={},
        test={f"f/{i}.png": {"target": i, "default_caption": captions} for i in range(3)},
        classes=None,
    )
    settle("flickr30k")
    found = inspect(release.source("flickr30k"))
    assert by_key(found.scan, "test") == {f"f/{i}.png": ("flickr30k", captions) for i in range(3)}
    assert found.classes == ()
    assert by_key(found.scan, "train") == {}


def test_fscoco_is_retrieval_with_classes_counted_from_its_class_list(release, settle):
    release.add(
        "fscoco",
        train={"s/1.png": {"classname": "sheep", "target": 1, "default_caption": "A sketch of a"}},
        test={"s/2.png": {"classname": "sheep", "target": 1, "default_caption": "A sketch of b"}},
        classes=["air", "sheep"],
    )
    settle("fscoco")
    found = inspect(release.source("fscoco"))
    assert by_key(found.scan, "test") == {"s/2.png": ("sheep", ["A sketch of b"])}
    assert found.classes == ("air", "sheep")


def test_splits_of_other_names_are_train_and_test(release, settle):
    release.add(
        "mtsd",
        train={"m/1.png": {"classname": "food", "target": 0}},
        test={"m/2.png": {"classname": "food", "target": 0}},
        classes=["food"],
    )
    assert (release.info / "MTSD_val.json").is_file()
    settle("mtsd")
    scan = release.source("mtsd").scan()
    assert scan.select("split", "key").rows() == [("test", "m/2.png"), ("train", "m/1.png")]


def test_imagenet_v2_lists_the_classes_of_imagenet_without_regard_to_case(release):
    release.add("imagenet", {}, {"1.png": {"target": 0}}, classes=["tench", "Bee", "ant"])
    release.add("imagenet_v2", {}, {"1.png": {"target": 1}}, classes=["ant", "Bee", "tench"])
    (release.info / "IMAGENET_V2_classnames.json").unlink()
    found = inspect(release.source("imagenet_v2", resized=False))
    assert found.classes == ("ant", "Bee", "tench")
    assert found.scan["concept"].to_list() == ["Bee"]
    assert inspect(release.source("imagenet", resized=False)).classes == ("tench", "Bee", "ant")


def test_images_that_are_missing_are_listed_or_left_out_with_a_warning(release, settle):
    rows = {f"d/{i}.png": {"classname": "a", "target": 0} for i in range(5)}
    release.add("dtd", train=rows, test={"d/t.png": {"target": 0}}, classes=["a"])
    for i in (1, 3):
        (release.images / f"DTD/d/{i}.png").unlink()
    settle("dtd")
    message = r"2 of 5 train images cannot be read from .*'d/1.png \(not there\)', 'd/3.png"
    with pytest.raises(DataError, match=message):
        release.source("dtd").scan()
    found = inspect(release.source("dtd", allow_incomplete=True))
    assert sorted(by_key(found.scan, "train")) == ["d/0.png", "d/2.png", "d/4.png"]
    assert len(found.warnings) == 1
    assert "2 of 5 train images" in found.warnings[0]


def test_counts_that_are_not_the_registrys_are_named_with_both_numbers(release):
    rows = {"d/1.png": {"classname": "a", "target": 0}}
    release.add("dtd", train=rows, test={"d/t.png": {"target": 0}}, classes=["a"])
    release.expect("dtd", train=7, test=2, classes=4)
    with pytest.raises(DataError) as raised:
        release.source("dtd").scan()
    for text in ("1 classes are listed instead of 4", "lists 1 train images instead of 7",
                 "lists 1 test images instead of 2", "allow_incomplete: true"):  # fmt: skip
        assert text in str(raised.value)
    assert len(inspect(release.source("dtd", allow_incomplete=True)).warnings) == 3


def test_a_missing_info_file_is_a_missing_split(release):
    rows = {"d/1.png": {"classname": "a", "target": 0}}
    release.add("dtd", train=rows, test={"d/t.png": {"target": 0}}, classes=["a"])
    (release.info / "DTD_train.json").unlink()
    with pytest.raises(DataError, match=r"there is no DTD_train.json for its 1 train images"):
        release.source("dtd").scan()
    found = inspect(release.source("dtd", allow_incomplete=True))
    assert found.scan["split"].to_list() == ["test"]
    (release.info / "DTD_test.json").unlink()
    with pytest.raises(DataError, match=r"no DTD_test\.json"):  # nothing at all is never allowed
        release.source("dtd", allow_incomplete=True).scan()


def test_the_number_names_the_class_whatever_the_row_calls_it(release):
    rows = {"d/1.png": {"classname": "femur-right", "target": 1}}
    release.add("dtd", train=rows, test={"d/t.png": {"target": 0}}, classes=["a", "femur right"])
    found = inspect(release.source("dtd"))
    assert by_key(found.scan, "train") == {"d/1.png": ("femur right", [])}
    assert "'femur-right'" in found.warnings[0]
    release.write_info("DTD_train.json", {"d/1.png": {"target": 2}})
    with pytest.raises(DataError, match=r"'d/1.png' is of class 2, and there are 2"):
        release.source("dtd").scan()


@pytest.mark.parametrize("place", ["../outside.png", "/etc/passwd", "a/../../b.png", ""])
def test_a_path_that_leaves_the_datasets_folder_is_refused(release, place):
    release.add("dtd", {"d/1.png": {"target": 0}}, {"d/t.png": {"target": 0}}, classes=["a"])
    release.write_info("DTD_train.json", {place: {"target": 0}})
    with pytest.raises(DataError, match="no path inside the dataset's folder"):
        release.source("dtd").scan()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"target": "0"}, "`target` of 'd/1.png' must be a number"),
        ({"target": True}, "`target` of 'd/1.png' must be a number"),
        ({"target": 2**64}, "`target` of 'd/1.png' must be a number"),
        ({"target": 0, "classname": 3}, "`classname` of 'd/1.png' must be text"),
        ({"target": 0, "default_caption": 3}, "'default_caption' of 'd/1.png' must be text"),
        ({"target": 0, "default_caption": [["x"]]}, "'default_caption' of 'd/1.png' must be text"),
    ],
)
def test_a_row_of_another_form_is_named(release, row, message):
    release.add("dtd", {"d/1.png": {"target": 0}}, {"d/t.png": {"target": 0}}, classes=["a"])
    release.write_info("DTD_train.json", {"d/1.png": row})
    with pytest.raises(DataError, match=message):
        release.source("dtd").scan()


def test_names_of_any_alphabet_are_found_however_they_were_written(release, settle):
    """The info file has accents as one character, the images' names as two (from a Mac)."""
    names = ["sp ace/ü+.v2.PNG", "日本/é.JPEG"]
    rows = {unicodedata.normalize("NFC", name): {"target": 0} for name in names}
    release.add("dtd", train={}, test={}, classes=["ünïcode"])
    release.expect("dtd", train=2, test=1)
    release.write_info("DTD_train.json", rows)
    release.write_info("DTD_test.json", {"t.png": {"target": 0}})
    for place in [*names, "t.png"]:
        release.draw("DTD", unicodedata.normalize("NFD", place))
    settle("dtd")
    assert by_key(release.source("dtd").scan(), "train") == dict.fromkeys(rows, ("ünïcode", []))


def test_text_that_is_not_unicode_is_written_out(release):
    """Python writes a file name in Latin-1, and half of an emoji, as lone surrogates."""
    release.add("dtd", train={}, test={"t.png": {"target": 0}}, classes=["a"])
    release.expect("dtd", train=1)
    release.write_info(
        "DTD_train.json", {"\udce9.png": {"target": 0, "default_caption": "so \ud83d"}}
    )
    release.write_info("DTD_test.json", {"t.png": {"target": 0}})
    with tarfile.open(release.images / "DTD.tar", "w", encoding="latin-1", format=1) as tar:
        for name in ("é.png", "t.png"):
            data = release.draw("elsewhere", "x.png")
            member = tarfile.TarInfo(f"DTD/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert by_key(release.source("dtd").scan(), "train") == {"\\udce9.png": ("a", ["so \\ud83d"])}


def test_an_info_file_that_changed_is_read_again(release, monkeypatch):
    monkeypatch.setattr("fomo_dagster.data.sources.table_cache.SETTLE_SECONDS", -60)
    release.add("dtd", {"d/1.png": {"target": 0}}, {"d/t.png": {"target": 0}}, classes=["a"])
    assert by_key(release.source("dtd").scan(), "train") == {"d/1.png": ("a", [])}
    path = release.info / "DTD_train.json"
    kept = list((release.base / "cache").glob("DTD_train-*.parquet"))
    assert len(kept) == 1
    written = kept[0].stat().st_mtime_ns
    release.source("dtd").scan()
    assert kept[0].stat().st_mtime_ns == written  # it was not read again
    path.write_text(json.dumps({"d/1.png": {"target": 0, "default_caption": "now said"}}))
    assert by_key(release.source("dtd").scan(), "train") == {"d/1.png": ("a", ["now said"])}


def test_a_release_that_is_nowhere_says_how_to_name_it(release, monkeypatch):
    release.add("dtd", {"d/1.png": {"target": 0}}, {"d/t.png": {"target": 0}}, classes=["a"])
    monkeypatch.delenv("FOMO_RELEASE_IMAGES")
    with pytest.raises(InputError, match=r"no .*repository/data/DTD.tar.*FOMO_RELEASE_IMAGES"):
        release.source("dtd").scan()
    named = {"release": "repository", "images": "images"}  # relative to the file that declares it
    monkeypatch.delenv("FOMO_RELEASE")
    assert release.source("dtd", **named).scan().height == 2
    with pytest.raises(InputError, match="FOMO_RELEASE to a copy of its repository"):
        release.source("dtd")


def test_what_is_no_release_is_told_with_what_is_there_and_which_is_meant(release):
    repository = release.base / "repository"
    (release.base / "bare").mkdir()
    (release.base / "page.html").touch()
    for named, said in {
        "images": "it has no folder data_lib/00_info, but ",
        "bare": "but nothing at all. Set FOMO_RELEASE, or the dataset's `release`, to the folder",
        "gone": "it does not exist. Set",
        "page.html": "Not a directory. Set",
        ".": f"; {repository} is one. Set",
        "repository/data_lib": f"but 00_info; {repository} is one. Set",
    }.items():
        with pytest.raises(InputError, match="is no copy of the benchmark's repository: ") as no:
            release.source("dtd", release=named)
        assert said in str(no.value)


def test_a_dataset_may_go_by_a_name_of_its_own(release):
    release.add("flickr30k", {}, {"1.png": {"target": 0, "default_caption": "x"}}, classes=None)
    scan = release.source("pictures", dataset="FLICKR30K").scan()
    assert scan["concept"].to_list() == ["pictures"]
    with pytest.raises(InputError, match="no dataset 'FLICKR30'; did you mean 'FLICKR30K'"):
        release.source("pictures", dataset="FLICKR30")

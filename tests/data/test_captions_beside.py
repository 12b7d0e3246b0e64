"""Captions in a file beside each image of a folder."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.folder.source import FolderSource
from fomo_dagster.data.sources.source import Inspection, inspect
from fomo_dagster.data.sources.webdataset.members import scan_tar
from fomo_dagster.errors import DataError
from fomo_dagster.experiment.stream import Arriving
from fomo_dagster.graph.build.declared_streams import with_arrivals


def write(base: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = base / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def look(base: Path, **options: object) -> Inspection:
    source = {"type": "folder", "path": "images", "test_share": 0, "captions": "beside"} | options
    dataset = Dataset.model_validate({"source": source})
    return inspect(dataset.open("pets", base, base / "cache"))


def captions(found: Inspection) -> dict[str, list[str]]:
    return dict(found.scan.select("key", "captions").iter_rows())


READ: dict[str, tuple[dict[str, str | bytes], list[str]]] = {
    "a text": ({"1.txt": " A dog.\r\n\n"}, ["A dog."]),
    "kohya's ending": ({"1.caption": "A dog."}, ["A dog."]),
    "another case": ({"1.TXT": "A dog."}, ["A dog."]),
    "marked UTF-16": ({"1.txt": "\ufeffFuß".encode("utf-16-le")}, ["Fuß"]),
    "decomposed": ({"1.txt": "Cafe\u0301"}, ["Caf\u00e9"]),
    "an object's text": ({"1.json": '{"caption": " A dog. ", "url": "x"}'}, ["A dog."]),
    "an object's list": ({"1.json": '{"caption": ["A dog.", " ", "A"]}'}, ["A dog.", "A"]),
    "a bare text": ({"1.json": '"A dog."'}, ["A dog."]),
    "a bare list": ({"1.json": '["A dog.", "A pet."]'}, ["A dog.", "A pet."]),
    "a text before a JSON": ({"1.txt": "A dog.", "1.json": '"No."'}, ["A dog."]),
    "the whole name before the stem": ({"1.png.json": '"A dog."', "1.txt": "No."}, ["A dog."]),
    "a blank text": ({"1.txt": " \n"}, []),
    "null": ({"1.json": '{"caption": null}'}, []),
    "an object about other things": ({"1.json": '{"shapes": [1]}'}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_what_lies_beside_an_image_is_its_caption(tmp_path: Path, case: str) -> None:
    beside, expected = READ[case]
    write(tmp_path, {"cat/0.png": "0", "cat/0.txt": "Zero."})
    write(tmp_path, {"cat/1.png": "1"} | {f"cat/{name}": text for name, text in beside.items()})
    found = look(tmp_path)
    assert captions(found) == {"cat/0.png": ["Zero."], "cat/1.png": expected}
    assert found.unusable.is_empty()
    assert not any("files that are not used" in warning for warning in found.warnings)


def test_lines_of_a_text_are_what_is_declared(tmp_path: Path) -> None:
    write(tmp_path, {"cat/1.png": "1", "cat/1.txt": "One.\n\n two \r\ndrei\u2028vier\n"})
    write(tmp_path, {"cat/2.png": "2", "cat/2.txt": "A single line."})
    with pytest.raises(DataError, match=r"1 of 2 captions in .* have several lines: 'cat/1.txt'; "):
        look(tmp_path)
    for lines, expected in {
        "first": ["One."], "each": ["One.", "two", "drei\u2028vier"],
        "whole": ["One.\n\n two \r\ndrei\u2028vier"],
    }.items():  # fmt: skip
        found = look(tmp_path, caption_lines=lines)
        assert captions(found) == {"cat/1.png": expected, "cat/2.png": ["A single line."]}


SPOILED: dict[str, tuple[dict[str, str | bytes], str]] = {
    "another encoding": (
        {"1.txt": "Hund\nF\xfc\xdfe".encode("latin-1")},
        "line 2 of cat/1.txt is not utf-8: declare its `encoding`, such as cp1252 or utf-16",
    ),
    "no JSON": (
        {"1.json": "{"},
        "cat/1.json is not JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)",
    ),
    "a number": (
        {"1.json": '{"caption": 3}'},
        "'caption' in cat/1.json must be text or a list of texts, not 3",
    ),
    "half a character": (
        {"1.json": r'{"caption": "\ud83d"}'},
        "'caption' in cat/1.json has half a character (a lone surrogate)",
    ),
    "too large": (
        {"1.txt": b"x" * (1 + (1 << 20))},
        "cat/1.txt has 1,048,577 bytes, more than 1,048,576: it is no caption",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_an_image_whose_caption_cannot_be_read_is_left_out(tmp_path: Path, case: str) -> None:
    beside, reason = SPOILED[case]
    write(tmp_path, {"cat/0.png": "0", "cat/0.txt": "Zero.", "cat/1.png": "1"})
    write(tmp_path, {f"cat/{name}": text for name, text in beside.items()})
    found = look(tmp_path)
    assert captions(found) == {"cat/0.png": ["Zero."]}
    assert found.unusable.rows() == [("train", "cat/1.png", "", 1, reason)]


def test_the_declared_encoding_and_key_are_those_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, {"cat/1.png": "1", "cat/1.txt": "F\xfc\xdfe".encode("cp1252")})
    write(tmp_path, {"cat/2.png": "2", "cat/2.json": '{"caption": "no", "text": "yes"}'})
    found = look(tmp_path, encoding="cp1252", columns={"caption": "text"})
    assert captions(found) == {"cat/1.png": ["Füße"], "cat/2.png": ["yes"]}


def test_a_text_that_two_images_could_have_is_neithers(tmp_path: Path) -> None:
    write(tmp_path, {"cat/1.png": "1", "cat/1.jpg": "2", "cat/1.txt": "Which?", "cat/2.png": "3"})
    write(tmp_path, {"cat/2.txt": "Two.", "dog/1.png": "4", "dog/1.txt": "Its own."})
    found = look(tmp_path)
    assert captions(found) == {"cat/2.png": ["Two."], "dog/1.png": ["Its own."]}
    assert found.unusable["key"].to_list() == ["cat/1.jpg", "cat/1.png"]
    assert found.unusable["reason"][1] == (
        "cat/1.txt could be the caption of cat/1.png or of cat/1.jpg: name it by the image's whole "
        "name, such as cat/1.png.txt"
    )
    write(tmp_path, {"cat/1.png.txt": "This one."})
    assert captions(look(tmp_path))["cat/1.png"] == ["This one."]
    assert captions(look(tmp_path))["cat/1.jpg"] == ["Which?"]


def test_images_without_captions_and_texts_without_images_are_named(tmp_path: Path) -> None:
    write(
        tmp_path, {"cat/1.png": "1", "cat/1.txt": "One.", "cat/2.png": "2", "cat/readme.txt": "x"}
    )
    write(tmp_path, {"cat/3.png": "3", "cat/3.json": '{"title": "Three."}', "cat/1.json": "[]"})
    missing, further, unused = look(tmp_path).warnings
    assert "2 of 3 images in" in missing
    assert (
        "train on the prompt: 'cat/2.png', 'cat/3.png'; 1 JSONs have no 'caption', such as"
        in missing
    )
    assert "cat/3.json, whose keys are 'title': `columns: {caption: …}`" in missing
    assert "1 files beside images in" in further
    assert further.endswith("since another text of their name counts: 'cat/1.json'")
    assert unused.endswith(
        "1 files that are not used: 1 no image by its suffix (.txt): 'cat/readme.txt'"
    )


def test_a_folder_without_any_caption_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"cat/1.png": "1", "cat/1.json": '{"text": "One."}'})
    with pytest.raises(DataError, match=r"no image in .* expected cat/1\.txt, .*keys are 'text'"):
        look(tmp_path)
    assert captions(look(tmp_path, columns={"caption": "text"})) == {"cat/1.png": ["One."]}


def test_undeclared_texts_change_no_sample_and_are_said(tmp_path: Path) -> None:
    write(tmp_path, {"cat/1.png": "1"})
    before = look(tmp_path, captions=None)
    write(tmp_path, {"cat/1.txt": "One.\nTwo."})
    after = look(tmp_path, captions=None)
    assert after.scan.equals(before.scan)
    assert before.warnings == ()
    assert (
        "1 images with a text of their name, such as 'cat/1.txt', which is not read"
        in (after.warnings[0])
    )


def test_a_text_that_changes_changes_the_caption(tmp_path: Path) -> None:
    write(tmp_path, {"cat/1.png": "1", "cat/1.txt": "One."})
    assert captions(look(tmp_path)) == {"cat/1.png": ["One."]}
    write(tmp_path, {"cat/1.txt": "Two."})
    assert captions(look(tmp_path)) == {"cat/1.png": ["Two."]}


def test_lines_go_with_captions_beside_alone() -> None:
    with pytest.raises(ValueError, match="caption_lines goes with `captions: beside` alone"):
        FolderSource.model_validate({"path": "x", "caption_lines": "first"})
    with pytest.raises(ValueError, match="caption_lines goes with `captions: beside` alone"):
        Arriving.model_validate({"captions": "captions.csv", "caption_lines": "first"})


def test_arrivals_are_declared_with_captions_beside_their_images(project: Any) -> None:
    write(project.root, {"one/cat/1.png": "1", "one/cat/1.json": '{"text": "One."}'})
    arriving = {"captions": "beside", "columns": {"caption": "text", "concept": "label"}}
    stream = {"name": "live", "growing": "../images", "arriving": arriving}
    project.write("toy", stream=stream)
    loaded = with_arrivals(project.load(), project.root / "images")
    found = loaded.datasets["live_one"].open("live_one", project.root, project.home.cache).scan()
    assert found["captions"].to_list() == [["One."]]


def test_names_composed_in_two_ways_are_one(tmp_path: Path) -> None:
    write(tmp_path, {"cat/Cafe\u0301.png": "1", "cat/Caf\u00e9.txt": "One."})
    write(tmp_path, {"cat/Fu\u00df.png": "2", "cat/Fu\u00df.json": '"Two."'})
    assert captions(look(tmp_path)) == {"cat/Caf\u00e9.png": ["One."], "cat/Fu\u00df.png": ["Two."]}


def test_a_retrieval_set_without_class_folders_has_captions_beside(tmp_path: Path) -> None:
    write(tmp_path, {"test/1.jpg": "1", "test/1.txt": "A dog.\nA pet.", "test/2.jpg": "2"})
    write(tmp_path, {"test/2.txt": "A cat."})
    source = {"type": "folder", "path": "images", "captions": "beside", "caption_lines": "each"}
    dataset = Dataset.model_validate({"source": source, "task": "retrieval"})
    frame = dataset.open("pets", tmp_path, tmp_path / "cache").scan()
    assert frame.select("key", "concept", "captions").rows() == [
        ("1.jpg", "pets", ["A dog.", "A pet."]), ("2.jpg", "pets", ["A cat."])
    ]  # fmt: skip


def test_each_split_finds_its_own(tmp_path: Path) -> None:
    write(tmp_path, {f"{split}/cat/1.png": split for split in ("train", "test")})
    write(tmp_path, {f"{split}/cat/1.txt": split for split in ("train", "test")})
    frame = look(tmp_path).scan.select("split", "captions")
    assert frame.equals(
        pl.DataFrame({"split": ["test", "train"], "captions": [["test"], ["train"]]})
    )


@pytest.mark.parametrize(
    "beside",
    [
        {"1.txt": " A dog.\n"},
        {"1.json": json.dumps({"caption": ["A dog.", " A pet "], "url": "x"})},
        {"1.txt": "A dog.", "1.json": json.dumps({"caption": "No."})},
    ],
)
def test_the_same_files_in_a_tar_bring_the_same_captions(
    tmp_path: Path, beside: dict[str, str]
) -> None:
    write(tmp_path, {"cat/1.png": b"\x89PNG\r\n\x1a\n" + bytes(8)})
    write(tmp_path, {f"cat/{name}": text for name, text in beside.items()})
    with tarfile.open(tmp_path / "1.tar", "w") as tar:
        tar.add(tmp_path / "images" / "cat", ".")
    in_tar = scan_tar(tmp_path / "1.tar", ["png"], digests=False).samples["captions"].to_list()
    assert captions(look(tmp_path)) == {"cat/1.png": in_tar[0]}

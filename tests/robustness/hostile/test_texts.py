"""Names and captions in every form that Unicode has for them, and bytes that are no text at all."""

import io
import json
import os
import unicodedata

import polars as pl
import pytest
from PIL import Image

from fomo_dagster.cli.main import main
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.source import inspect, twins_said
from fomo_dagster.data.sources.webdataset.listing import find_shards
from fomo_dagster.errors import DataError, FomoError, InputError
from fomo_dagster.home import Home, project_folder
from fomo_dagster.streams.entries import canonical_entry, read_entries
from fomo_dagster.streams.growing import arrived_datasets

COMPOSED = {
    "an accent": "café",
    "two accents": "Việt",
    "Hangul": "한국",
    "a compatibility ideograph": "塚",
    "a ring that is a unit": "Åland",
}
DECOMPOSED = {name: unicodedata.normalize("NFD", text) for name, text in COMPOSED.items()}
DECOMPOSED["a compatibility ideograph"] = "\ufa10"
DECOMPOSED["a ring that is a unit"] = "\u212bland"


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)


def looked_at(base, source, task="classification"):
    declared = Dataset.model_validate({"source": source, "task": task})
    opened = declared.open("own", base, base / "cache")
    found = inspect(opened)
    for reference in found.scan["reference"]:
        assert opened.read(reference)  # by the name that the disk has
    return found


def rows(found):
    return found.scan.select("split", "concept", "key", "captions").rows()


@pytest.mark.parametrize("name", COMPOSED)
def test_a_class_is_one_however_its_letters_are_composed(tmp_path, name):
    one, other = COMPOSED[name], DECOMPOSED[name]
    assert one != other
    draw(tmp_path / "images/train" / one / "1.png")
    draw(tmp_path / "images/test" / other / f"{other}.png")
    captions = f"path,caption\ntest/{one}/{one}.png,a {other}\n"
    (tmp_path / "captions.csv").write_text(captions)
    found = looked_at(tmp_path, {"type": "folder", "path": "images", "captions": "captions.csv"})
    assert rows(found) == [
        ("test", one, f"{one}/{one}.png", [f"a {one}"]), ("train", one, f"{one}/1.png", [])
    ]  # fmt: skip
    (tmp_path / "images/table.jsonl").write_text(
        "\n".join(
            json.dumps({"path": path, "concept": concept, "split": path.partition("/")[0]})
            for path, concept in (
                (f"train/{other}/1.png", other),
                (f"test/{one}/{one}.png", f" {one}\u00a0"),
            )
        )
    )
    found = looked_at(tmp_path, {"type": "manifest", "path": "images/table.jsonl"})
    assert rows(found) == [
        ("test", one, f"test/{one}/{one}.png", []), ("train", one, f"train/{one}/1.png", [])
    ]  # fmt: skip


def test_a_folder_is_found_however_its_declaration_composes_its_name(tmp_path):
    draw(tmp_path / DECOMPOSED["an accent"] / "cat/1.png")
    found = looked_at(tmp_path, {"type": "folder", "path": COMPOSED["an accent"], "test_share": 0})
    assert rows(found) == [("train", "cat", "cat/1.png", [])]


def test_the_same_images_hold_out_the_same_in_any_form(tmp_path):
    for form in ("NFC", "NFD"):
        for number in range(20):
            name = unicodedata.normalize(form, f"é{number}.png")
            draw(tmp_path / form / unicodedata.normalize(form, "ü") / name)
    composed, decomposed = (
        rows(looked_at(tmp_path, {"type": "folder", "path": form, "test_share": 0.5}))
        for form in ("NFC", "NFD")
    )
    assert composed == decomposed


def test_two_images_of_one_name_in_one_class_are_refused(tmp_path):
    for name in ("\u00e9.png", "e\u0301.png"):
        draw(tmp_path / "images/cat" / name)
    with pytest.raises(DataError, match=r"\\xe9\.png' .* are one name|e\\u0301\.png' and .*\\xe9"):
        looked_at(tmp_path, {"type": "folder", "path": "images"})


UNSEEN = {
    "no width": "cr\u200bane",
    "a mark of direction": "crane\u200e",
    "a soft hyphen": "cra\u00adne",
}


@pytest.mark.parametrize("name", UNSEEN)
def test_classes_that_look_the_same_and_are_not_are_said(tmp_path, name):
    for concept in ("crane", UNSEEN[name], "crane fly", "crane\u00a0bird"):
        draw(tmp_path / "images" / concept / "1.png")
    found = looked_at(tmp_path, {"type": "folder", "path": "images"})
    (warning,) = twins_said("own", found)
    assert warning.startswith("dataset 'own' has classes that look the same and are not: ")
    assert "'crane'" in warning
    assert ascii(UNSEEN[name]) in warning
    assert "fly" not in warning


def test_entries_of_streams_are_compared_in_one_form(tmp_path):
    path = tmp_path / "stream.json"
    path.write_text(json.dumps(["birds+++cafe\u0301", " birds+++ crane\u00a0"]))
    entries = [canonical_entry(entry, ("birds",)) for entry in read_entries(path)]
    assert entries == ["birds+++café", "birds+++crane"]


def test_a_stream_runs_over_classes_written_otherwise(project, capsys, monkeypatch):
    images = project.root / "images/birds"
    for split in ("train", "test"):
        (images / split / "robin").rename(images / split / DECOMPOSED["an accent"])
    concepts = ["birds+++café", "birds+++wren", "cats+++lion"]
    project.write("toy", stream={"name": "toy", "concepts": concepts, "stages": 3})
    monkeypatch.setattr("sys.argv", ["fomo", "plan", "toy"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code, capsys.readouterr()


def test_huggingface_classes_and_captions_are_in_one_form(tmp_path):
    datasets = pytest.importorskip("datasets")
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    image = {"bytes": picture.getvalue(), "path": None}
    parts = {
        split: datasets.Dataset.from_dict(
            {"image": [image], "label": [label], "text": ["e\u0301"]},
            features=datasets.Features(
                image=datasets.Image(), label=datasets.Value("string"),
                text=datasets.Value("string"),
            ),
        )
        for split, label in (("train", "café "), ("test", DECOMPOSED["an accent"]))
    }  # fmt: skip
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    found = looked_at(tmp_path, {"type": "huggingface", "path": "set"})
    assert found.warnings[0].endswith("columns that are not read: 'text'")
    found = looked_at(tmp_path, {"type": "huggingface", "path": "set", "caption": "text"})
    assert not found.warnings
    assert [(concept, captions) for _, concept, _, captions in rows(found)] == [("café", ["é"])] * 2


def test_huggingface_images_outside_the_dataset_need_leave(tmp_path):
    pytest.importorskip("datasets")
    draw(tmp_path / "secret.png")
    draw(tmp_path / "set/inside.png")
    image = pl.Struct({"bytes": pl.Binary, "path": pl.String})
    source = {"type": "huggingface", "path": "set/table.parquet", "test_share": 0}
    for name in ("set/inside.png", "set/../secret.png"):
        images = pl.Series([{"bytes": None, "path": str(tmp_path / name)}], dtype=image)
        pl.DataFrame({"image": images, "label": ["x"]}).write_parquet(tmp_path / source["path"])
        if "secret" in name:
            with pytest.raises(DataError, match=r"secret\.png, outside .*`allow_outside: true`"):
                looked_at(tmp_path, source)
            source["allow_outside"] = True
        assert looked_at(tmp_path, source).scan.height == 1


def named_in_bytes(folder, name, other):
    os.rename(folder / name, os.fsencode(folder) + b"/" + other)


def left_out(found):
    return found.unusable.select("split", "key", "reason").rows()


def test_an_image_whose_name_is_no_text_counts_as_unreadable(tmp_path):
    draw(tmp_path / "images/train/cat/1.png")
    draw(tmp_path / "images/test/cat/1.png")
    named_in_bytes(tmp_path / "images/test/cat", "1.png", b"\xff.png")
    found = looked_at(tmp_path, {"type": "folder", "path": "images"})
    assert found.scan.height == 1
    assert left_out(found) == [
        ("test", "cat/\\udcff.png", "its name is not UTF-8: rename the file")
    ]


def test_a_class_folder_whose_name_is_no_text_is_refused(tmp_path):
    draw(tmp_path / "images/cat/1.png")
    named_in_bytes(tmp_path / "images", "cat", b"\xff")
    with pytest.raises(DataError, match=r"class folder .* not UTF-8: rename") as refused:
        looked_at(tmp_path, {"type": "folder", "path": "images"})
    str(refused.value).encode()


def test_an_image_with_half_a_character_in_its_caption_counts_as_unreadable(tmp_path):
    for name in ("1.png", "2.png"):
        draw(tmp_path / "images/cat" / name)
    lines = [{"path": "cat/1.png", "caption": "x"}, {"path": "cat/2.png", "caption": "\ud83d"}]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"type": "folder", "path": "images", "captions": "captions.jsonl", "test_share": 0}
    found = looked_at(tmp_path, source)
    assert rows(found) == [("train", "cat", "cat/1.png", ["x"])]
    ((split, key, reason),) = left_out(found)
    assert (split, key) == ("train", "cat/2.png")
    assert "lone surrogate" in reason
    assert "line 2 of" in reason


def test_half_a_character_in_an_entry_of_a_stream_is_refused_by_number(tmp_path):
    path = tmp_path / "stream.json"
    path.write_text('["birds+++wren", "birds+++\\ud800"]')
    with pytest.raises(InputError, match=r"stream\.json has half a character .* number 2"):
        read_entries(path)


def test_names_of_shards_arrivals_and_homes_that_are_no_text_are_refused(tmp_path, monkeypatch):
    for folder, name in (("tars", "0.tar"), ("incoming", "0.csv")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
        named_in_bytes(tmp_path / folder, name, b"\xff" + name[1:].encode())
    with pytest.raises(DataError, match=r"1 shards have names that are not UTF-8: .*udcff\.tar"):
        find_shards(["tars/*.tar"], tmp_path)
    with pytest.raises(InputError, match=r"udcff\.csv' in .*incoming has a name that is not UTF-8"):
        arrived_datasets("live", tmp_path / "incoming")
    for variable, read in (("FOMO_HOME", Home.from_environment), ("FOMO_PROJECT", project_folder)):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(tmp_path / "\udcff"))
            with pytest.raises(InputError, match=r"is not UTF-8: rename that folder"):
                read()


def test_every_sentence_can_be_written_whatever_it_quotes():
    assert str(FomoError("no \udcff")) == "no \\udcff"
    pl.DataFrame({"said": [str(DataError("\ud800"))]})


def test_captions_of_images_that_are_not_there_are_said(tmp_path):
    draw(tmp_path / "images/cat/1.png")
    table = "path,caption,text\ncat/1.png,x,y\ncat/2.png,x,y\n"
    (tmp_path / "captions.csv").write_text(table)
    source = {"type": "folder", "path": "images", "captions": "captions.csv"}
    found = looked_at(tmp_path, source)
    assert rows(found) == [("train", "cat", "cat/1.png", ["x"])]
    absent, unread = found.warnings
    assert "captions of 1 images that are not in" in absent
    assert "'cat/2.png'" in absent
    assert unread.endswith("columns that are not read: 'text'")
    (tmp_path / "captions.csv").write_text("path,caption\nimages/cat/1.png,x\n")
    with pytest.raises(DataError, match=r"captions of 1 images .* paths start from that folder"):
        looked_at(tmp_path, source)


def with_variable(project):
    os.environ["OWN_PROMPT"] = "a photo \udcff of a {}"
    project.write("toy", evaluation={"held_out": ["old"], "prompts": ["${OWN_PROMPT}"]})


CASES = {
    "half a character in YAML": (
        lambda p: (p.root / "experiments/toy.yaml").write_text('name: "\\ud800"\n'),
        ["plan", "toy"], 2, ["toy.yaml"],
    ),
    "a variable that is no text": (with_variable, ["plan", "toy"], 2, ["toy.yaml, line", "half a"]),
    "an argument that is no text": (lambda p: None, ["plan", "to\udcff"], 2, ["no experiment 'to"]),
    "a value that is no text": (
        lambda p: None, ["plan", "toy", "--set", "description=\udcff"], 2, ["--set", "half a"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_text_ends_a_command_in_a_sentence(ends, monkeypatch, case):
    monkeypatch.delenv("OWN_PROMPT", raising=False)
    ends(*CASES[case])
    os.environ.pop("OWN_PROMPT", None)

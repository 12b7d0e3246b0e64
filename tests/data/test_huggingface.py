"""Hugging Face datasets from local files: rows, splits, columns, encoded images, and caching."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.samples import SCAN
from fomo_dagster.data.sources.huggingface import HuggingfaceImages, HuggingfaceSource
from fomo_dagster.data.sources.source import Source
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.store.digests import digest_of_bytes

hf = pytest.importorskip("datasets")


def png(grey: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), grey).save(file, "PNG")
    return file.getvalue()


def table(count: int, first: int = 0, **columns: Sequence[Any]) -> Any:
    """Images of rising grey, classes cat and dog in turn, with further columns."""
    features = hf.Features(
        {"image": hf.Image(), "label": hf.ClassLabel(names=["cat", "tabby dog"])}
        | {name: _feature(values) for name, values in columns.items()}
    )
    data = {
        "image": [{"bytes": png(first + i), "path": None} for i in range(count)],
        "label": [i % 2 for i in range(count)],
        **columns,
    }
    return hf.Dataset.from_dict(data, features=features)


def _feature(values: Sequence[Any]) -> Any:
    if isinstance(values[0], list):
        return hf.List(hf.Value("string"))
    return hf.Value("string" if isinstance(values[0], str) else "int64")


def source(base: Path, task: str = "classification", **options: object) -> Source:
    declared = HuggingfaceSource.model_validate({"path": "pets", **options})
    dataset = Dataset.model_validate({"source": declared, "task": task})
    return dataset.open("pets", base, base / "cache")


def found(source: Source) -> list[tuple[str, str, str]]:
    return source.scan().select("split", "key", "concept").rows()


def save(base: Path, parts: Mapping[str, Any]) -> None:
    hf.DatasetDict(parts).save_to_disk(str(base / "pets"))


def test_a_saved_dataset_brings_its_rows_and_the_very_bytes(tmp_path: Path) -> None:
    save(tmp_path, {"train": table(3), "test": table(1, first=9)})
    opened = source(tmp_path)
    scan = opened.scan()
    assert dict(scan.schema) == SCAN
    assert found(opened) == [
        ("test", "test/0000000", "cat"),
        ("train", "train/0000000", "cat"),
        ("train", "train/0000001", "tabby dog"),
        ("train", "train/0000002", "cat"),
    ]
    assert scan["digest"].to_list() == [digest_of_bytes(png(grey)) for grey in (9, 0, 1, 2)]
    sent = pickle.loads(pickle.dumps(opened))
    assert [sent.read(reference) for reference in scan["reference"]] == [
        png(grey) for grey in (9, 0, 1, 2)
    ]


@pytest.mark.parametrize("base", ["plain", "a[b] * ?"])
@pytest.mark.parametrize("layout", ["file", "folder"])
def test_parquet_files_bring_the_same_wherever_they_lie(
    tmp_path: Path, layout: str, base: str
) -> None:
    tmp_path = tmp_path / base
    tmp_path.mkdir()
    (tmp_path / "pets").mkdir()
    table(40).to_parquet(str(tmp_path / "pets" / "train-00000-of-00001.parquet"))
    path = "pets/train-00000-of-00001.parquet" if layout == "file" else "pets"
    opened = source(tmp_path, path=path, test_share=0.5)
    scan = opened.scan()
    assert sorted(scan["key"]) == [f"train/{number:07d}" for number in range(40)]
    assert 8 <= scan["split"].to_list().count("test") <= 32
    row = scan.filter(key="train/0000017").row(0, named=True)
    assert row["concept"] == "tabby dog"
    assert opened.read(row["reference"]) == png(17)
    assert not list((tmp_path / "pets").glob("*.arrow"))


@pytest.mark.parametrize("names", [("tabby dog", "cat"), ("cat", "lynx", "tabby dog"), ("cat",)])
@pytest.mark.parametrize("file", ["test.parquet", "train-00001-of-00002.parquet"])
def test_files_that_number_their_classes_differently_are_refused(
    tmp_path: Path, file: str, names: tuple[str, ...]
) -> None:
    (tmp_path / "pets").mkdir()
    table(2).to_parquet(str(tmp_path / "pets" / "train-00000-of-00002.parquet"))
    table(2).to_parquet(str(tmp_path / "pets" / file))
    assert [concept for *_, concept in found(source(tmp_path))] == ["cat", "tabby dog"] * 2
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=list(names))})
    rows = {"image": [{"bytes": png(7), "path": None}], "label": [0]}
    hf.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "pets" / file))
    place, said = (0, names[0]) if names[0] != "cat" else (1, (*names, None)[1])
    expected = f"{place} is {('cat', 'tabby dog')[place]!r} in .*00000.* and {said!r} in .*{file}"
    with pytest.raises(DataError, match=expected):
        source(tmp_path).scan()


@pytest.mark.parametrize("images", [[1, 2], [[b"a"], [b"b"]]], ids=["numbers", "lists of bytes"])
def test_a_column_without_images_is_named(tmp_path: Path, images: list[Any]) -> None:
    part = hf.Dataset.from_dict({"image": images, "label": ["cat", "dog"]})
    save(tmp_path, {"train": part})
    with pytest.raises(DataError, match=r"'image' of .* holds no images \(.*name another column"):
        source(tmp_path).scan()


def test_an_unchanged_dataset_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, {"train": table(3), "test": table(1)})
    first = source(tmp_path).scan()
    with monkeypatch.context() as closed:
        closed.setattr(HuggingfaceImages, "_rows", None)
        assert source(tmp_path).scan().equals(first)
    save(tmp_path / "other", {"train": table(3, first=1), "test": table(1)})
    (tmp_path / "pets").rename(tmp_path / "old")
    (tmp_path / "other" / "pets").rename(tmp_path / "pets")
    assert (source(tmp_path).scan()["digest"] != first["digest"]).to_list() == [False] + [True] * 3


def test_captions_are_texts_or_lists(tmp_path: Path) -> None:
    several = [["a", " "], [], ["b", "c"]]
    save(tmp_path, {"test": table(3, alt=["one", "two", ""], several=several)})
    assert source(tmp_path, caption="alt").scan()["captions"].to_list() == [["one"], ["two"], []]
    retrieval = source(tmp_path, "retrieval", caption="several", label=None).scan()
    assert retrieval["captions"].to_list() == [["a"], [], ["b", "c"]]
    assert set(retrieval["concept"]) == {"pets"}
    with pytest.raises(InputError, match="has no label: name its column, or declare"):
        source(tmp_path, label=None).scan()


def test_classes_are_names_texts_or_numbers(tmp_path: Path) -> None:
    save(tmp_path, {"test": table(2, kind=["owl", "elk"], code=[7, 12])})
    assert [row[2] for row in found(source(tmp_path, label="kind"))] == ["owl", "elk"]
    assert [row[2] for row in found(source(tmp_path, label="code"))] == ["7", "12"]
    unlabelled = table(2).map(lambda row: {"label": -1})
    hf.DatasetDict({"test": unlabelled}).save_to_disk(str(tmp_path / "blank"))
    with pytest.raises(DataError, match=r"row 0 of 'test' .* has no class in 'label' \(-1\)"):
        source(tmp_path, path="blank").scan()


def test_splits_are_the_usual_ones_or_those_declared(tmp_path: Path) -> None:
    save(tmp_path, {"train": table(1), "validation": table(1, 5), "extra": table(2, 7)})
    assert [row[:2] for row in found(source(tmp_path))] == [
        ("test", "validation/0000000"), ("train", "train/0000000")
    ]  # fmt: skip
    chosen = source(tmp_path, splits={"train": ["train", "extra"], "test": ["validation"]})
    assert [row[1] for row in found(chosen)] == [
        "validation/0000000", "extra/0000000", "extra/0000001", "train/0000000"
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"no split 'extar'; did you mean 'extra'"):
        source(tmp_path, splits={"test": ["extar"]}).scan()


def test_what_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"there is no file or folder"):
        source(tmp_path).scan()
    save(tmp_path, {"train": table(1, image_url=["x"])})
    with pytest.raises(InputError, match=r"no column 'image_ulr' .* did you mean 'image_url'"):
        source(tmp_path, image="image_ulr").scan()
    (tmp_path / "pets.csv").write_text("image,label\n")
    with pytest.raises(InputError, match=r"is no dataset: expected a file \.parquet, \.arrow"):
        source(tmp_path, path="pets.csv").scan()
    with pytest.raises(ValueError, match="exactly one of path and name"):
        source(tmp_path, name="somebody/pets")
    # not installed; or, where Python takes a project's folder of that name for it, hidden
    for module in (None, ModuleType("datasets")):
        monkeypatch.setitem(sys.modules, "datasets", module)
        with pytest.raises(InputError, match=r"pip install 'fomo-dagster\[huggingface\]'"):
            source(tmp_path).scan()


def test_a_row_without_an_image_is_an_error(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": png(1), "path": None}, None], "label": ["a", "b"]}
    features = hf.Features({"image": hf.Image(), "label": hf.Value("string")})
    save(tmp_path, {"train": hf.Dataset.from_dict(rows, features=features)})
    with pytest.raises(DataError, match=r"row 1 of 'train' of the dataset .* has no image"):
        source(tmp_path).scan()


def test_the_hub_out_of_reach_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def refuse(*arguments: Any, **options: Any) -> None:
        asked.append((*arguments, options["revision"]))
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hf, "load_dataset", refuse)
    by_name = {"path": None, "name": "somebody/pets", "config": "small", "revision": "v1"}
    with pytest.raises(InputError, match=r"somebody/pets cannot be loaded: no route .* its `path`"):
        source(tmp_path, **by_name).scan()
    assert asked == [("somebody/pets", "small", "v1")]

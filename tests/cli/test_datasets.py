"""`fomo datasets`: every dataset with what is here of it, and one with its picture."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from fomo_dagster.cli.datasets import known_datasets, print_datasets
from fomo_dagster.cli.main import app
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.experiment.declared_datasets import shipped_datasets


@pytest.fixture(autouse=True)
def _no_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOMO_RELEASE", raising=False)
    monkeypatch.delenv("FOMO_RELEASE_IMAGES", raising=False)


@pytest.fixture
def plots() -> None:
    """They are drawn."""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["datasets", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def listed() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(run("--json"))}


def folder(path: str) -> dict[str, str]:
    return {"type": "folder", "path": path}


def declare(project: Any, **datasets: object) -> None:
    (project.root / "datasets" / "more.yaml").write_text(yaml.safe_dump(datasets))


def test_the_list_has_what_is_declared_what_ships_and_the_benchmarks_63(project: Any) -> None:
    sprites = {"type": "generated", "generator": "sprites"}
    declare(project, cifar10={"source": sprites}, gone={"source": folder("nowhere")})
    project.write("other", datasets={"inline": {"source": sprites}})
    (project.root / "experiments" / "broken.yaml").write_text("stream: 3\n")
    rows = listed()
    own = ["birds", "cats", "cifar10", "gone", "inline", "old"]
    assert list(rows)[:6] == own
    shipped = sorted(shipped_datasets().declared)
    assert list(rows)[6 : 6 + len(shipped)] == list(shipped_datasets().declared)
    assert {rows[name]["state"] for name in shipped} == {"on demand"}
    # The project's own cifar10 stands for the benchmark's.
    assert len(rows) == 6 + len(shipped) + 63 - 1
    assert rows["birds"]["state"] == "present"
    assert rows["birds"]["sharded"] is None
    assert rows["gone"]["state"] == "missing"
    assert rows["gone"]["note"].endswith("datasets/nowhere")
    assert rows["inline"]["state"] == rows["cifar10"]["state"] == "on demand"
    assert rows["cifar10"]["source"]["type"] == "generated"
    assert rows["mscoco"] == {
        **rows["mscoco"], "state": "missing", "role": "held_out", "task": "retrieval",
        "folder": "MSCOCO", "published_zero_shot": 72.0,
        "expected": {"concepts": None, "train": 0, "test": 5000},
    }  # fmt: skip


def test_shards_bring_their_counts(finished_project: Any) -> None:
    row = listed()["birds"]
    assert row["sharded"] == {"concepts": 4, "train": 16, "test": 8, "unreadable": 0}


@pytest.mark.parametrize("width", [80, 100])
def test_the_tables_fit_their_terminal(finished_project: Any, width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    known = known_datasets(finished_project.root, finished_project.home)
    print_datasets(known.values(), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert rows["birds"] == ["birds", "folder", "4", "16", "8", "present"]
    assert rows["imagenet_s"][:6] == ["imagenet_s", "held", "out", "(1,000)", "(50,889)", "missing"]
    assert rows["domainnet_infograph"][-2:] == ["no", "release"]
    assert "…" not in console.file.getvalue()
    assert len(lines) < len(known) + 20  # a line each


def test_one_dataset_is_shown_with_the_sheet_of_its_shards(finished_project: Any) -> None:
    told = run("show", "birds")
    for text in ("present", "a photo of a {}", "4 concepts, 16 train, 8 test", "type: folder"):
        assert text in told
    sheet = Path(told.rpartition("picture")[2].strip())
    assert sheet.is_relative_to(finished_project.home.root / "store")
    assert Image.open(sheet).format == "PNG"


def test_what_is_not_read_and_not_told_apart_is_shown(project: Any) -> None:
    images = project.root / "images/cats"
    for split in ("train", "test"):
        (images / split / "lynx").rename(images / split / "LION")
    (images / "train/lion/0.txt").write_text("a lion")
    told = run("show", "cats")
    assert "'train/lion/0.txt'" in told
    assert "'LION' and 'lion'" in told
    remarks = json.loads(run("show", "cats", "--json"))["remarks"]
    assert len(remarks) == 3
    assert remarks[0].endswith("`captions: beside` reads it as their caption")
    assert json.loads(run("show", "birds", "--json"))["remarks"] == []


def test_without_shards_the_sheet_is_made_of_the_images(project: Any) -> None:
    told = run("show", "cats")
    sheet = Path(told.rpartition("picture")[2].strip())
    assert sheet.is_relative_to(project.home.cache)
    assert Image.open(sheet).size[0] > 100
    assert not list(project.home.root.glob("store/shards"))


GONE = {
    "folder": (folder("nowhere"), "there is no folder"),
    "table": ({"type": "manifest", "path": "nowhere"}, "is no file"),
    "tars": ({"type": "webdataset", "shards": "nowhere/*.tar"}, "no such tars"),
    "torchvision": (
        {"type": "torchvision", "dataset": "MNIST", "root": "nowhere"},
        "download: true brings it",
    ),
}


@pytest.mark.parametrize("source", GONE)
@pytest.mark.parametrize("options", [[], ["--json"]], ids=str)
def test_a_dataset_that_is_not_here_ends_in_a_status(
    project: Any, source: str, options: list[str]
) -> None:
    declare(project, gone={"source": GONE[source][0]})
    ended = CliRunner().invoke(app, ["datasets", "show", "gone", *options])
    assert isinstance(ended.exception, DataError), ended.output
    said = str(ended.exception)
    assert said.startswith("the images of dataset 'gone' are not here (")
    assert GONE[source][1] in said
    assert "nowhere" in said
    assert "missing" in ended.output
    assert "picture" not in ended.output


def test_a_dataset_that_cannot_be_read_is_shown_and_ends_in_a_status(project: Any) -> None:
    declare(project, empty={"source": folder("bare")}, torn={"source": folder("torn")})
    (project.root / "datasets" / "bare").mkdir()
    for split in ("train", "test"):
        path = project.root / "datasets" / "torn" / split / "red" / "1.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no image")
    folders = {"empty": "bare", "torn": "torn"}
    for arguments in (["empty"], ["empty", "--json"], ["torn"]):
        ended = CliRunner().invoke(app, ["datasets", "show", *arguments])
        assert isinstance(ended.exception, DataError), ended.output
        assert folders[arguments[0]] in str(ended.exception)
        assert "present" in ended.output


def test_the_look_at_a_dataset_comes_before_anything_is_stored(project: Any) -> None:
    told = run("show", "cats")
    assert "content    12 images of 2 classes: 8 to train on, 4 to test on" in told
    content = json.loads(run("show", "cats", "--json"))["content"]
    assert content["looked_at"] == 12
    assert content["classes"]["test"] == {"lion": 2, "lynx": 2}
    assert not list(project.home.root.glob("store/*"))
    assert json.loads(run("show", "mscoco", "--json"))["content"] is None


def test_of_tars_the_first_is_looked_at(project: Any) -> None:
    (project.root / "tars").mkdir()
    for number, count in enumerate((3, 2)):
        with tarfile.open(project.root / "tars" / f"{number}.tar", "w") as tar:
            for image in range(count):
                drawn = next(iter((project.root / "images/cats").rglob("*.png")))
                tar.add(drawn, f"{image}.png")
                if number or image:  # of the first tar, one has no text
                    about = tarfile.TarInfo(f"{image}.json")
                    data = json.dumps({"caption": "A cat."}).encode()
                    about.size = len(data)
                    tar.addfile(about, io.BytesIO(data))
    declare(project, web={"source": {"type": "webdataset", "shards": "../tars/*.tar"}})
    told = run("show", "web")
    for text in (
        "content    2 images of 1 class: 2 to train on, 0 to test on",
        "captions: 2 of 2 images have one, of 2 / 2 / 2 words",
        "1 image cannot be used and will be left out, such as 0 (it has no text)",
        "2 images have the same bytes as another, such as '1', '2'",
        "the look is at 0.tar, the first of 2 tars of ",
        "33.3% of the images of dataset 'web' that were looked at cannot be used",
    ):
        assert text in told
    assert Image.open(Path(told.rpartition("picture")[2].strip())).format == "PNG"


def test_more_unreadable_images_than_allowed_end_in_a_status(project: Any) -> None:
    (project.root / "images/cats/train/lion/0.png").write_bytes(b"no image")
    for arguments in (["cats"], ["cats", "--json"]):
        ended = CliRunner().invoke(app, ["datasets", "show", *arguments])
        assert "8.3% of the images of dataset 'cats'" in str(ended.exception)
        assert "more than `unreadable_limit: 0.01` allows" in str(ended.exception)


@pytest.mark.parametrize("arguments", [[], ["show", "dtd"]], ids=str)
def test_a_release_that_is_none_is_told_once_with_the_way_out(
    project: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert run(*arguments).count("Set FOMO_RELEASE to a copy of the benchmark's release") == 1
    monkeypatch.setenv("FOMO_RELEASE", str(project.root))
    lines = [one for one in run(*arguments).splitlines() if "FOMO_RELEASE" in one]
    lines = [one for one in lines if one.strip() != "$FOMO_RELEASE"]
    assert len(lines) == 1
    assert f"{project.root} is no copy of the benchmark's repository" in lines[0]
    assert "but datasets, experiments, images. Set FOMO_RELEASE" in lines[0]
    info = project.root / "data_lib" / "00_info"
    info.mkdir(parents=True)
    assert (
        run(*arguments).count("`fomo fetch NAME` downloads what is missing of FoMo-in-Flux.") == 1
    )


def test_the_benchmarks_are_found_by_any_of_their_names(project: Any) -> None:
    told = run("show", "FGVCAircraft")
    assert told == run("show", "fgvcaircraft")
    for text in ("100 concepts, 3,334 train, 3,333 test", "of 2013", "23.9 % published", "missing"):
        assert text in told
    assert json.loads(run("show", "FGVCAIRCRAFT", "--json"))["name"] == "fgvcaircraft"
    with pytest.raises(InputError, match="no dataset 'bird'; did you mean 'birds'"):
        run("show", "bird")

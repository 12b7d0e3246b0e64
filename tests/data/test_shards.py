"""Shards hold every readable image exactly once, whatever the number of processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import webdataset
from PIL import Image

from fomo_dagster.data import reading
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.index import Index
from fomo_dagster.data.reading import (
    IMAGES_PER_TASK,
    TASKS_PER_WORKER,
    Reading,
    Stored,
    read_in_order,
)
from fomo_dagster.data.samples import INDEX, SCAN
from fomo_dagster.data.shards import ShardReport, stored_samples, write_shards
from fomo_dagster.data.sources.folder.source import FolderSource
from fomo_dagster.data.sources.source import Inspection, Source
from fomo_dagster.errors import DataError
from fomo_dagster.store.digests import digest_of, digest_of_bytes

CONCEPTS = ("a cat", "cañón", "v1.5")
BROKEN = {"train/a cat/02.png": b"GIF89a", "train/v1.5/03.png": b""}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 training images and 2 test images of each of three concepts, and a table of captions."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    captions = []
    for split, count in (("train", 7), ("test", 2)):
        for concept in CONCEPTS:
            (folder / split / concept).mkdir(parents=True)
            for number in range(count):
                path = folder / split / concept / f"{number:02d}.png"
                size = (*rng.integers(20, 60, 2), 3)
                Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(path)
                if number % 2:
                    captions += [(path.relative_to(folder).as_posix(), f"{concept} № {number}")]
    table = pl.DataFrame(captions, schema=["path", "caption"], orient="row")
    table.write_csv(folder / "captions.csv")
    return folder


@pytest.fixture
def broken(tmp_path: Path, images: Path) -> Path:
    """The images, with two that cannot be read."""
    copy = tmp_path / "broken"
    for path in images.rglob("*.png"):
        name = path.relative_to(images).as_posix()
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(BROKEN.get(name, path.read_bytes()))
    return copy


def opened(folder: Path, cache: Path) -> Source:
    captions = folder / "captions.csv"
    declared = FolderSource(path=folder, captions=captions if captions.exists() else None)
    return Dataset(source=declared).open("pictures", folder, cache)


def shard(folder: Path, target: Path, **options: object) -> ShardReport:
    source = opened(folder, target.parent / "cache")
    of_reading = {name: options.pop(name) for name in Reading._fields if name in options}
    settings = {"unreadable_limit": 0.0, "samples_per_shard": 4, **options}
    reading = Reading(source, **of_reading)  # type: ignore[arg-type]
    return write_shards(Inspection(source.scan()), reading, target, **settings)  # type: ignore[arg-type]


def members_of(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return tar.getmembers()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_image_is_found_through_the_index_with_its_own_bytes_and_texts(
    tmp_path: Path, images: Path
) -> None:
    report = shard(images, tmp_path / "shards")
    index = Index(tmp_path / "shards")
    assert dict(index.samples.schema) == INDEX
    assert index.rows("train").height == 21
    assert index.samples.equals(index.samples.sort("split", "key"))
    for row in index.samples.iter_rows(named=True):
        data = (images / row["split"] / row["key"]).read_bytes()
        number = int(row["key"][-6:-4])
        assert index.read(row["shard"], row["offset"], row["size"]) == data
        assert row["digest"] == digest_of_bytes(data)
        assert row["concept"] == row["key"].split("/")[0]
        assert row["captions"] == ([f"{row['concept']} № {number}"] if number % 2 else [])
    tars = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*.tar"))
    assert report == ShardReport({"train": 21, "test": 6}, concepts=3, quarantined=0, bytes=tars)


def test_shards_are_cut_by_count_and_split(tmp_path: Path, images: Path) -> None:
    shard(images, tmp_path / "shards")
    members = {path.name: len(members_of(path)) for path in (tmp_path / "shards").glob("*.tar")}
    assert members == {f"train-{i:06d}.tar": 8 for i in range(5)} | {
        "train-000005.tar": 2, "test-000000.tar": 8, "test-000001.tar": 4
    }  # fmt: skip


def test_webdataset_reads_the_shards_in_order(tmp_path: Path, images: Path) -> None:
    shard(images, tmp_path / "shards")
    index = Index(tmp_path / "shards").rows("train")
    urls = [str(path) for path in sorted((tmp_path / "shards").glob("train-*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 21
    for sample, row in zip(samples, index.iter_rows(named=True), strict=True):
        about = json.loads(sample["json"])
        assert about == {name: row[name] for name in ("concept", "captions", "key", "digest")}
        assert sample["png"] == (images / "train" / row["key"]).read_bytes()
    assert len({sample["__key__"] for sample in samples}) == 21


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are started however little there is to read."""
    monkeypatch.setattr(reading, "PATIENCE_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
def test_the_bytes_do_not_depend_on_workers_or_on_the_order_of_the_scan(
    tmp_path: Path, broken: Path
) -> None:
    for workers, resize in ((1, None), (2, None), (1, 16), (3, 16)):
        shard(
            broken, tmp_path / f"{workers}-{resize}",
            workers=workers, resize=resize, unreadable_limit=0.1,
        )  # fmt: skip
    assert contents(tmp_path / "2-None") == contents(tmp_path / "1-None")
    assert contents(tmp_path / "3-16") == contents(tmp_path / "1-16")
    source = opened(broken, tmp_path / "cache")
    write_shards(
        Inspection(source.scan().reverse()), Reading(source, 16), tmp_path / "reverse",
        unreadable_limit=0.1, samples_per_shard=4,
    )  # fmt: skip
    assert contents(tmp_path / "reverse") == contents(tmp_path / "1-16")


def test_members_carry_nothing_of_the_machine_that_wrote_them(tmp_path: Path, images: Path) -> None:
    shard(images, tmp_path / "shards")
    for path in (tmp_path / "shards").glob("*.tar"):
        for member in members_of(path):
            owner = (member.uid, member.gid, member.uname, member.gname)
            assert (member.mtime, *owner, member.mode) == (0, 0, 0, "", "", 0o444)


def test_a_long_or_odd_key_survives(tmp_path: Path) -> None:
    keys = ["x" * 150 + "/" + "ü.z" * 30, "a b.c/d.tar.gz~%2E", "a b%2Ec/d.tar.gz~%2E", "…/…"]

    class Memory:
        def scan(self) -> pl.DataFrame:
            rows: list[tuple[object, ...]] = [("train", k, "c", [], "d", k) for k in keys]
            return pl.DataFrame(rows, schema=SCAN, orient="row")

        def read(self, reference: str) -> bytes:
            file = io.BytesIO()
            Image.new("L", (8, 8), keys.index(reference)).save(file, "PNG")
            return file.getvalue()

    write_shards(
        Inspection(Memory().scan()), Reading(Memory()), tmp_path, unreadable_limit=0
    )  # fmt: skip
    samples = list(webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False))
    found = {json.loads(sample["json"])["key"]: sample["png"] for sample in samples}
    assert found == {key: Memory().read(key) for key in keys}
    index = Index(tmp_path)
    for key, *place in index.samples.select("key", "shard", "offset", "size").iter_rows():
        assert index.read(*place) == found[key]


def test_resized_images_have_the_short_side_and_digests_of_their_own(
    tmp_path: Path, images: Path
) -> None:
    shard(images, tmp_path / "shards", resize=16)
    index = Index(tmp_path / "shards")
    for row in index.samples.iter_rows(named=True):
        path = images / row["split"] / row["key"]
        with Image.open(path) as original:
            short = min(original.size)
            size = (original.width * 16 // short, original.height * 16 // short)
            expected = np.asarray(original.resize(size, Image.Resampling.BICUBIC))
        stored = Image.open(io.BytesIO(index.read(row["shard"], row["offset"], row["size"])))
        np.testing.assert_array_equal(np.asarray(stored), expected)
        source_digest = digest_of_bytes(path.read_bytes())
        assert row["digest"] == digest_of({"image": source_digest, "resize": 16})


@pytest.mark.parametrize("resize", [None, 16])
def test_what_is_stored_can_be_foretold_from_the_scan(
    tmp_path: Path, images: Path, resize: int | None
) -> None:
    shard(images, tmp_path / "shards", resize=resize)
    scan = opened(images, tmp_path / "cache").scan()
    assert stored_samples(scan, resize).equals(Index(tmp_path / "shards").sample_table)


def test_unreadable_images_are_left_out_and_listed_with_reasons(
    tmp_path: Path, broken: Path
) -> None:
    report = shard(broken, tmp_path / "shards", unreadable_limit=2 / 27)
    assert (report.samples, report.quarantined) == ({"train": 19, "test": 6}, 2)
    quarantine = pl.read_parquet(tmp_path / "shards" / "quarantine.parquet")
    assert quarantine.rows() == [
        ("train", name.removeprefix("train/"), digest_of_bytes(data), 1, reason)
        for (name, data), reason in zip(
            BROKEN.items(), ["it is not an image of a known format"] * 2, strict=True
        )
    ]
    keys = set(Index(tmp_path / "shards").rows("train")["key"])
    assert keys.isdisjoint(name.removeprefix("train/") for name in BROKEN)


def test_too_many_unreadable_images_are_an_error_that_names_them(
    tmp_path: Path, broken: Path
) -> None:
    with pytest.raises(DataError) as raised:
        shard(broken, tmp_path / "shards", unreadable_limit=0.07)
    for part in ("2 of 27 images (7.41%)", "unreadable_limit = 7.00%", "a cat/02.png", "v1.5/03"):
        assert part in str(raised.value)


def test_a_bomb_is_left_out_before_it_is_decoded(tmp_path: Path, images: Path) -> None:
    pixels = {path: np.prod(Image.open(path).size) for path in images.rglob("*.png")}
    limit = int(sorted(pixels.values())[-2])
    report = shard(images, tmp_path / "shards", max_pixels=limit, unreadable_limit=0.1)
    largest = max(pixels, key=lambda path: pixels[path])
    quarantine = pl.read_parquet(tmp_path / "shards" / "quarantine.parquet")
    assert report.quarantined == 1
    assert largest.as_posix().endswith(quarantine["key"][0])
    assert f"more than {limit}" in quarantine["reason"][0]


def test_a_concept_that_loses_all_its_training_images_is_an_error(
    tmp_path: Path, images: Path, broken: Path
) -> None:
    for path in (broken / "train" / "cañón").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"1 concepts have no training image .* 'cañón'"):
        shard(broken, tmp_path / "shards", unreadable_limit=1.0)


def test_a_dataset_with_only_a_test_split_is_whole(tmp_path: Path, images: Path) -> None:
    source = opened(images, tmp_path / "cache")
    scan = source.scan().filter(pl.col("split") == "test")
    report = write_shards(
        Inspection(scan), Reading(source), tmp_path / "shards", unreadable_limit=0
    )  # fmt: skip
    assert report.samples == {"train": 0, "test": 6}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_changed_after_the_scan_is_an_error(
    tmp_path: Path, broken: Path, workers: int
) -> None:
    source = opened(broken, tmp_path / "cache")
    scan = source.scan()
    changed = broken / "train" / "v1.5" / "00.png"
    Image.new("L", (9, 9)).save(changed)
    with pytest.raises(DataError, match=r"v1\.5/00\.png changed after its folder was scanned"):
        write_shards(
            Inspection(scan), Reading(source), tmp_path / "shards", unreadable_limit=1.0,
            workers=workers,
        )  # fmt: skip


def test_a_dataset_without_samples_is_an_error(tmp_path: Path, images: Path) -> None:
    source = opened(images, tmp_path / "cache")
    with pytest.raises(DataError, match="no samples"):
        write_shards(
            Inspection(source.scan().clear()), Reading(source), tmp_path, unreadable_limit=1.0
        )  # fmt: skip


def test_progress_counts_every_image_to_the_end(tmp_path: Path, broken: Path) -> None:
    told: list[tuple[str, int, int, str]] = []
    source = opened(broken, tmp_path / "cache")
    write_shards(
        Inspection(source.scan()), Reading(source), tmp_path / "shards", unreadable_limit=0.1,
        progress=lambda what, done, total, detail="": told.append((what, done, total, detail)),
    )  # fmt: skip
    assert told == [("images", 16, 27, "1 unreadable"), ("images", 27, 27, "2 unreadable")]


@pytest.mark.parametrize("patience", [0.0, 1e-9, 1e9])
def test_processes_are_started_where_they_are_worth_it(
    tmp_path: Path, broken: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    monkeypatch.setattr(reading, "PATIENCE_SECONDS", patience)
    source = opened(broken, tmp_path / "cache")
    references = source.scan()["reference"].to_list()
    by_processes: list[int] = []
    read = reading._read_by_processes

    def watched(how: Reading, tasks: list[list[str]], workers: int) -> Iterator[Stored]:
        by_processes.append(len(tasks))
        yield from read(how, tasks, workers)

    monkeypatch.setattr(reading, "_read_by_processes", watched)
    how = Reading(source, None, 10**6)
    images = list(read_in_order(how, references * 2, 2))
    assert images == how.of(references) * 2
    # 54 images are 4 tasks: all, all but the first whose time is taken, none.
    assert by_processes == {0.0: [4], 1e-9: [3], 1e9: []}[patience]


@pytest.mark.usefixtures("impatient")
def test_images_stay_in_order_past_what_is_under_way_at_once(tmp_path: Path) -> None:
    count = IMAGES_PER_TASK * TASKS_PER_WORKER * 2 * 2
    folder = tmp_path / "many" / "train" / "c"
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("L", (1 + number % 7, 8), number % 256).save(folder / f"{number:03d}.png")
    shard(tmp_path / "many", tmp_path / "shards", workers=2, unreadable_limit=0.0)
    index = Index(tmp_path / "shards")
    assert index.samples.height == count
    for key, *place in index.samples.select("key", "shard", "offset", "size").iter_rows():
        assert index.read(*place) == (folder.parent / key).read_bytes()


SHARDING = """
import pathlib
from fomo_dagster.data import reading
from fomo_dagster.data.shards import write_shards
from fomo_dagster.data.sources.source import Inspection
from endless import Endless

if __name__ == "__main__":
    reading.PATIENCE_SECONDS = 0.0
    write_shards(
        Inspection(Endless().scan()), reading.Reading(Endless()), pathlib.Path("out"),
        unreadable_limit=1.0, workers=2,
    )
"""
ENDLESS = """
import os, pathlib, time
import polars as pl
from fomo_dagster.data.samples import SCAN

class Endless:
    def scan(self):
        rows = [("train", str(i), "c", [], "d", str(i)) for i in range(100)]
        return pl.DataFrame(rows, schema=SCAN, orient="row")

    def read(self, reference):
        pathlib.Path(f"worker-{os.getpid()}").touch()
        while True:
            time.sleep(1)
"""


class Run:
    """Sharding in a process of its own, whose two workers never come to an end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sharding.py").write_text(SHARDING)
        (folder / "endless.py").write_text(ENDLESS)
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(folder)])}
        self.process = subprocess.Popen(
            [sys.executable, "sharding.py"], cwd=folder, env=environment, stderr=subprocess.PIPE
        )
        self.deadline = time.monotonic() + 120

    def workers(self) -> list[int]:
        return [int(path.name.removeprefix("worker-")) for path in self.folder.glob("worker-*")]

    def living(self) -> list[int]:
        """The workers that run; a dead one may stay listed until its parent looks."""
        states = Path("/proc").glob("[0-9]*/stat")
        running = {
            int(path.parent.name) for path in states if ") Z " not in text_of(path)
        }  # fmt: skip
        return sorted(running & set(self.workers()))

    def wait_until(self, done: Callable[[], bool]) -> None:
        while not done():
            assert time.monotonic() < self.deadline
            time.sleep(0.05)


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ") Z "  # it ended while we looked


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    try:
        run.wait_until(lambda: len(run.workers()) == 2)
        yield run
    finally:
        run.process.kill()
        run.process.communicate()


@pytest.mark.kill
@pytest.mark.skipif(sys.platform != "linux", reason="looks processes up in /proc")
def test_no_worker_outlives_a_killed_run(run: Run) -> None:
    assert len(run.living()) == 2
    run.process.kill()
    run.wait_until(lambda: run.living() == [])


@pytest.mark.kill
def test_a_killed_worker_is_an_error_that_says_what_to_do(run: Run) -> None:
    os.kill(run.workers()[0], signal.SIGKILL)
    _, errors = run.process.communicate(timeout=60)
    assert run.process.returncode == 1
    assert b"DataError: a process that reads images was killed" in errors
    assert b"fewer processes" in errors

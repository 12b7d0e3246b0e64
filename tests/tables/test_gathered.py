"""What was gathered of many files is never believed once one of them is another."""

import json
import os
import random
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fomo_dagster.errors import StoreError
from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables import gathered, parts
from fomo_dagster.tables.files import table_path, write_table
from fomo_dagster.tables.gathered import FOLDER, Gathered
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.views import at_one_moment, query

ALL = "FROM evaluations", "FROM artifacts", "FROM damaged", "SELECT count(*) FROM training_steps"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files are worth gathering."""
    monkeypatch.setattr(gathered, "_FEWEST", 1)


def write(home: Path, asset: str, number: int, *values: float) -> Head:
    """Evaluations of an asset, and its head."""
    digest, experiment = f"{number:032x}", asset.partition("/")[0]
    rows = [(experiment, 1, f"d{i}", "held_out", "classification", "score", value, 7)
            for i, value in enumerate(values)]  # fmt: skip
    frame = pl.DataFrame(rows, schema=dict(SCHEMAS["evaluations"]), orient="row")
    path = write_table(home, "evaluations", asset, digest, frame)
    head = Head(
        asset=asset, kind="evaluation", experiment=experiment, stage=1, digest=digest,
        data_version=digest, code_version="", recipes={}, artifacts={}, facts={"number": number},
        status="hit", recorded_at="2026-03-04T05:06:07+00:00", seconds=1.0, cost={"seconds": 1.0},
        tables={"evaluations": digest_of_file(path)},
    )  # fmt: skip
    Heads(home / "heads").write(head)
    return head


def write_many(home: Path) -> list[Head]:
    return [write(home, f"e{n % 3}/evaluation_{n:03d}", n, n + 0.25, n / 3) for n in range(12)]


def answers(home: Path) -> list[pl.DataFrame]:
    return [query(home, sql) for sql in ALL]


def without_gathering(home: Path) -> list[pl.DataFrame]:
    """The answers of a home of which nothing was gathered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gathered, "read", lambda self: None)
        patch.setattr(Gathered, "write", lambda *arguments: None)
        return answers(home)


def assert_true(home: Path) -> None:
    for found, expected in zip(answers(home), without_gathering(home), strict=True):
        assert_frame_equal(found, expected)


@contextmanager
def opened(monkeypatch: pytest.MonkeyPatch):
    """The table files that queries within open by themselves."""
    files: list[str] = []
    with monkeypatch.context() as patch:
        in_sql = parts.in_sql
        patch.setattr(parts, "in_sql", lambda names: files.extend(names) or in_sql(names))
        yield files


def test_what_was_gathered_is_read_instead_of_the_files(tmp_path, monkeypatch) -> None:
    write_many(tmp_path)
    before = answers(tmp_path)
    with opened(monkeypatch) as files:
        again = answers(tmp_path)
    assert files == []
    for one, other in zip(before, again, strict=True):
        assert_frame_equal(one, other)
    assert before[0].height == 24
    assert before[1]["asset"].to_list() == sorted(before[1]["asset"])
    assert_true(tmp_path)


def test_whatever_happens_to_a_home_the_answers_are_those_of_its_files(tmp_path) -> None:
    random_, heads = random.Random(7), Heads(tmp_path / "heads")
    for step in range(15):
        asset = f"{random_.choice(['a', 'a-b', 'b'])}/evaluation_{random_.randrange(9):03d}"
        match random_.randrange(8):
            case 0:
                heads.remove(asset)
            case 1:
                write(tmp_path, asset, 0)  # without rows
            case 2 if heads.path(asset).exists():
                heads.path(asset).write_bytes(b"damaged")
            case 3:
                head = write(tmp_path, asset, step, step)
                heads.write(replace(head, tables=None))  # from before there were checksums
            case _:
                write(tmp_path, asset, step % 20, *(step % 20 + n / 7 for n in range(step % 4)))
        assert_true(tmp_path)


def test_a_table_file_that_is_damaged_after_it_was_gathered_is_named(tmp_path) -> None:
    head = write_many(tmp_path)[4]
    answers(tmp_path)
    path = table_path(tmp_path, "evaluations", head.asset, head.digest)
    good = path.read_bytes()
    path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    with pytest.raises(StoreError, match=rf"the rows of {head.asset} in .* are damaged"):
        query(tmp_path, "FROM evaluations")
    path.write_bytes(good)
    assert_true(tmp_path)


@pytest.mark.parametrize("part", ["rows", "members", "named"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "of another table"])
def test_a_damaged_gathering_is_none(tmp_path, part: str, damage: str) -> None:
    write_many(tmp_path)
    expected = answers(tmp_path)
    pattern = "evaluations.json" if part == "named" else f"evaluations-*-{part}.parquet"
    (path,) = (tmp_path / FOLDER).glob(pattern)
    (other,) = (tmp_path / FOLDER).glob(pattern.replace("evaluations", "heads"))
    data = path.read_bytes()
    middle = len(data) // 2
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({
            "flipped": data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :],
            "cut": data[:middle], "of another table": other.read_bytes(),
        }[damage])  # fmt: skip
    assert_frame_equal(query(tmp_path, ALL[0]), expected[0])
    assert_true(tmp_path)


def test_where_nothing_can_be_written_the_answers_are_the_same(tmp_path) -> None:
    write_many(tmp_path)
    (tmp_path / FOLDER).parent.mkdir(exist_ok=True)
    (tmp_path / FOLDER).touch()  # in the way of the folder, as a read-only disk is
    assert answers(tmp_path)[0].height == 24
    assert_true(tmp_path)


def test_what_is_removed_while_a_query_begins_is_done_without(tmp_path, monkeypatch) -> None:
    write_many(tmp_path)
    expected = answers(tmp_path)
    read = Gathered.read
    removed = []

    def read_and_lose(self):
        found = read(self)
        if found is not None and len(removed) < 2:
            removed.append(found.rows)
            found.rows.unlink()
        return found

    monkeypatch.setattr(Gathered, "read", read_and_lose)
    assert_frame_equal(query(tmp_path, ALL[0]), expected[0])
    removed.clear()
    with at_one_moment(tmp_path):
        assert_frame_equal(query(tmp_path, ALL[1]), expected[1])
    assert removed


def test_queries_at_one_moment_look_once(tmp_path) -> None:
    head = write(tmp_path, "e/evaluation_001", 1, 1.0)
    with at_one_moment(tmp_path):
        assert query(tmp_path, "SELECT value FROM evaluations").item() == 1.0
        write(tmp_path, head.asset, 2, 2.0)
        assert query(tmp_path, "SELECT value FROM evaluations").item() == 1.0
    assert query(tmp_path, "SELECT value FROM evaluations").item() == 2.0


def test_gathering_is_seldom_and_leaves_two_files(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(gathered, "_FEWEST", 4)
    folder = tmp_path / FOLDER
    write_many(tmp_path)
    answers(tmp_path)
    first = (folder / "evaluations.json").read_bytes()
    for number in range(3):
        write(tmp_path, f"e9/evaluation_{number:03d}", 1, 5.0)
        assert_true(tmp_path)
    assert (folder / "evaluations.json").read_bytes() == first
    for number in range(3, 6):
        write(tmp_path, f"e9/evaluation_{number:03d}", 1, 5.0)
    for path in folder.glob("*.parquet"):
        os.utime(path, (0, 0))  # a while ago, which makes them be gathered anew
    answers(tmp_path)
    answers(tmp_path)
    assert (folder / "evaluations.json").read_bytes() != first
    assert len(list(folder.glob("evaluations-*"))) == 2


@pytest.mark.slow
def test_processes_gather_side_by_side_while_others_write_and_one_is_killed(tmp_path) -> None:
    reader = """
import sys
from pathlib import Path
from fomo_dagster.tables import gathered
from fomo_dagster.tables.views import query
gathered._FEWEST, gathered._SHARE = 0, 1000
while True:
    rows = query(Path(sys.argv[1]), "SELECT asset, count(*) AS n, min(value) AS least, "
        "max(value) AS most FROM evaluations GROUP BY asset ORDER BY asset")
    assert (rows["n"] == 50).all() and (rows["least"] == rows["most"]).all(), rows
    print(rows.height, flush=True)
"""
    command = [sys.executable, "-c", reader, str(tmp_path)]
    for number in range(9):
        write(tmp_path, f"e/evaluation_{number:03d}", 1, *[float(number)] * 50)
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for _ in range(3)]  # fmt: skip
    for process in readers:
        assert process.stdout.readline() == "9\n", process.stderr.read()
    for number in range(40):
        write(tmp_path, f"e/evaluation_{number % 9:03d}", 9 + number, *[number / 3] * 50)
        if number == 20:
            readers.pop().kill()
    for process in readers:
        assert process.poll() is None, process.stderr.read()
        process.kill()
        process.communicate()
    last = query(tmp_path, "SELECT DISTINCT asset, value FROM evaluations ORDER BY asset")
    assert last["value"].to_list() == [n / 3 for n in (36, 37, 38, 39, 31, 32, 33, 34, 35)]
    assert json.loads((tmp_path / FOLDER / "heads.json").read_bytes())["rows"]

"""A home in which files were damaged, deleted or put in another's place."""

import json
import shutil

import pytest

from fomo_dagster.cli.running import run_experiment
from fomo_dagster.tables.views import query
from tests.conftest import Project, enter


@pytest.fixture
def project(finished_project):
    return finished_project


def table(project, name, asset):
    head = project.home.heads.read(asset)
    return project.home.root / "tables" / name / asset / f"{head.digest}.parquet"


def flip(path, place=-100):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def flip_table(project, name="scores", asset="toy/scores"):
    flip(table(project, name, asset))


def another_table(project):
    other = table(project, "evaluations", "toy/evaluation_001").read_bytes()
    table(project, "scores", "toy/scores").write_bytes(other)


def flip_head(project, asset="toy/scores"):
    flip(project.home.heads.path(asset))


def damaged_database(project):
    (project.home.root / "fomo.duckdb").write_bytes(b"no database")


def database_folder(project):
    (project.home.root / "fomo.duckdb").unlink()
    (project.home.root / "fomo.duckdb").mkdir()


def stamps(project):
    for path in (*project.home.root.glob("store/.verified/*/*.json"),
                 *project.home.root.glob("cache/*.json")):  # fmt: skip
        path.write_bytes(b"\x00[{")


def of_an_earlier_version(project):
    for path in project.home.root.glob("heads/**/*.json"):
        fields = json.loads(path.read_text())
        for name in ("checksum", "checked_at", "tables"):
            del fields[name]
        path.write_text(json.dumps(fields))


CASES = {
    "a bit of a table": (
        flip_table, ["results"], 1, ["toy/scores", "altered", "`fomo run`"],
    ),
    "a bit of a table, in a plan": (
        flip_table, ["plan", "toy"], 0, ["scores are written again: its bytes", "0 to compute"],
    ),
    "a bit of a table that a query does not read": (
        lambda p: flip_table(p, "samples", "shards/birds"), ["sql", "FROM scores"], 0, ["toy"],
    ),
    "an empty table": (
        lambda p: table(p, "scores", "toy/scores").write_bytes(b""),
        ["sql", "SELECT count(*) FROM leaderboard"], 1, ["toy/scores", "altered"],
    ),
    "a table that is gone": (
        lambda p: table(p, "evaluations", "toy/evaluation_002").unlink(),
        ["results", "--datasets"], 1, ["toy/evaluation_002", "it is missing"],
    ),
    "another table": (another_table, ["results", "toy"], 1, ["toy/scores", "altered"]),
    "a bit of a head": (
        flip_head, ["results"], 0, ["toy/scores.json is damaged", "`fomo run`"],
    ),
    "a folder in place of a head of another experiment": (
        lambda p: (p.home.heads.path("other/scores")).mkdir(parents=True),
        ["results"], 0, ["other/scores.json is damaged (Is a directory)"],
    ),
    "a folder in place of a head of a dataset": (
        lambda p: (p.home.heads.path("shards/birds").unlink(),
                   p.home.heads.path("shards/birds").mkdir()),
        ["datasets", "--quick"], 0, ["shards/birds", "Is a directory", "cats"],
    ),
    "a bit of a head, in a plan": (
        flip_head, ["plan", "toy"], 0, ["head of asset toy/scores", "0 to compute"],
    ),
    "a bit of a head that is exported": (
        lambda p: flip_head(p, "toy/trained_003"), ["export", "toy", "x.pt"], 2,
        ["toy/trained_003 in", "is damaged", "materialise it first"],
    ),
    "a bit of a head of a dataset": (
        lambda p: flip_head(p, "shards/birds"), ["datasets", "--quick"], 0,
        ["shards/birds in", "is damaged"],
    ),
    "a damaged database": (damaged_database, ["results"], 0, ["toy"]),
    "a damaged database, asked for": (
        damaged_database, ["sql", "--path"], 0, ["could not be read", "fomo.duckdb"],
    ),
    "a folder in place of the database": (database_folder, ["results"], 0, ["toy"]),
    "heads of an earlier version": (of_an_earlier_version, ["results"], 0, ["toy"]),
    "heads of an earlier version, in a plan": (
        of_an_earlier_version, ["plan", "toy"], 0, ["again, with checksums", "0 to compute"],
    ),
    "damaged stamps": (stamps, ["plan", "toy"], 0, ["0 to compute"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_home_is_said_and_never_shown_as_it_is(ends, case):
    ends(*CASES[case])


def test_a_home_may_lie_in_a_folder_whose_name_is_a_pattern(ends, project, monkeypatch):
    moved = Project(project.root.with_name("toy [v2] {a,b} * 50% #'"))
    project.root.rename(moved.root)
    (moved.home.root / "heads/toy/scores.json").unlink()
    shutil.rmtree(moved.home.root / "store/scores")
    monkeypatch.setattr(project, "root", moved.root)
    enter(moved, monkeypatch)
    ends(lambda _: None, ["run", "toy"], 0, ["1 asset to compute"])
    ends(lambda _: None, ["results", "toy"], 0, ["toy"])
    ends(lambda _: None, ["sql", "SELECT count(*) FROM evaluations"], 0, [])


def test_a_home_where_sqlite_cannot_keep_a_file_is_refused_before_anything(ends, project):
    moved = Project(project.root.with_name("toy?x=1"))
    project.root.rename(moved.root)
    moved.write("toy", seed=1)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(project, "root", moved.root)
        enter(moved, monkeypatch)
        said = [f"in {moved.root}/.fomo/dagster, for the path has a `?`: set FOMO_HOME"]
        ends(lambda _: None, ["run", "toy"], 2, said)
        ends(lambda _: None, ["ui", "--port", "1"], 2, said)
        ends(lambda _: None, ["dagster-home"], 2, said)
        ends(lambda _: None, ["results"], 0, ["toy"])  # what needs no Dagster goes on
        monkeypatch.setenv("FOMO_HOME", str(moved.root / "../elsewhere"))
        monkeypatch.setattr(project, "root", moved.root.parent)
        ends(lambda _: None, ["dagster-home"], 0, [])


def test_a_run_repairs_rows_and_heads_and_computes_nothing(project, capsys):
    before = project.artifacts()
    spent = query(project.home.root, "SELECT asset, seconds, recorded_at FROM artifacts ORDER BY 1")
    of_an_earlier_version(project)
    run_experiment("toy", [])
    assert "0 assets to compute, 18 hits" in capsys.readouterr().out
    assert all(project.home.heads.read(key).tables is not None for key in spent["asset"])
    rows = {
        table(project, name, asset): None
        for name, asset in (
            ("scores", "toy/scores"), ("evaluations", "toy/evaluation_001"),
            ("training_steps", "toy/trained_002"), ("samples", "shards/birds"),
            ("chunks", "streams/toy/chunk_001"),
        )
    }  # fmt: skip
    rows = {path: path.read_bytes() for path in rows}
    first, second, third, fourth, fifth = rows
    flip(first)
    second.write_bytes(b"")
    third.unlink()
    fourth.write_bytes(fifth.read_bytes())
    flip(fifth, 40)
    for asset in ("toy/evaluation_002", "backbones/toy", "leaderboard"):
        flip_head(project, asset)
    run_experiment("toy", [])
    assert "0 assets to compute" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in rows} == rows
    assert project.artifacts() == before
    assert project.home.heads.read("toy/evaluation_002").stage == 2
    run_experiment("toy", [])
    assert capsys.readouterr().out.startswith("toy is up to date")
    now = query(project.home.root, "SELECT asset, seconds, recorded_at FROM artifacts ORDER BY 1")
    assert now.equals(spent)

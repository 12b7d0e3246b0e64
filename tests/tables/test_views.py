import json
import math
import random
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables.database import ensure_database
from fomo_dagster.tables.files import table_path, write_table
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.views import query


def digest(number: int) -> str:
    return f"{number:032x}"


def point(home: Path, asset: str, number: int, **fields: Any) -> None:
    """Make `asset` currently what the digest of that number names."""
    head = {
        "kind": "evaluation",
        "experiment": None,
        "stage": None,
        "data_version": "v",
        "code_version": "c",
        "recipes": {},
        "artifacts": {},
        "facts": {},
        "status": "computed",
        "recorded_at": "2026-03-04T05:06:07.250000+00:00",
        "seconds": 1.5,
    }
    Heads(home / "heads").write(
        Head(**(head | {"asset": asset, "digest": digest(number)} | fields))
    )


def evaluations(experiment: str, stage: int, *values: float) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (experiment, stage, f"d{i}", "adaptation", "classification", "score", value, 7)
            for i, value in enumerate(values)
        ],
        schema=dict(SCHEMAS["evaluations"]),
        orient="row",
    )


def scores(experiment: str, *rows: tuple[float | None, float | None]) -> pl.DataFrame:
    """KA and ZS of stages 0, 1, …"""
    return pl.DataFrame(
        [
            (
                experiment,
                stage,
                ka,
                zs,
                None if None in (ka, zs) else math.sqrt(ka * zs),
                None,
                None,
            )
            for stage, (ka, zs) in enumerate(rows)
        ],
        schema=dict(SCHEMAS["scores"]),
        orient="row",
    )


def write_scores(home: Path, experiment: str, *rows: tuple[float | None, float | None]) -> None:
    write_table(home, "scores", f"{experiment}/scores", digest(1), scores(experiment, *rows))
    point(home, f"{experiment}/scores", 1)


@pytest.fixture(scope="module")
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of that name, with a database and a file that is no table. It is only read."""
    made: Path = tmp_path_factory.mktemp("views") / request.param
    ensure_database(made)
    (made / "secret").write_text("a,b\n1,2\n")
    return made


def test_without_any_file_all_views_exist_and_are_empty(tmp_path: Path) -> None:
    for table, columns in SCHEMAS.items():
        rows = query(tmp_path / "new", f"SELECT * FROM {table}")
        assert rows.is_empty()
        assert dict(rows.schema) == {**columns, "asset": pl.String, "asset_digest": pl.String}
    assert query(tmp_path / "new", "FROM artifacts").is_empty()
    assert query(tmp_path / "new", "FROM leaderboard").is_empty()


def test_rows_show_once_a_head_points_to_them(tmp_path: Path) -> None:
    write_table(tmp_path, "evaluations", "e/evaluation_001", digest(1), evaluations("e", 1, 50.5))
    assert query(tmp_path, "FROM evaluations").is_empty()

    point(tmp_path, "e/evaluation_001", 1)
    rows = query(tmp_path, "FROM evaluations")
    assert_frame_equal(rows.drop("asset", "asset_digest"), evaluations("e", 1, 50.5))
    assert rows["asset"].to_list() == ["e/evaluation_001"]
    assert rows["asset_digest"].to_list() == [digest(1)]


def test_any_history_shows_exactly_what_the_heads_point_to(tmp_path: Path) -> None:
    random_ = random.Random(5)
    written: dict[tuple[str, int], pl.DataFrame] = {}
    current: dict[str, int] = {}
    for _ in range(24):
        experiment, stage = random_.choice(["a", "b", "ab"]), random_.randrange(3)
        asset, number = f"{experiment}/evaluation_{stage:03d}", random_.randrange(4)
        if random_.random() < 0.6:
            rows = evaluations(experiment, stage, *(random_.random() for _ in range(number)))
            write_table(tmp_path, "evaluations", asset, digest(number), rows)
            written[asset, number] = rows
        else:
            point(tmp_path, asset, number)
            current[asset] = number
        expected = [written[key] for key in current.items() if key in written]
        assert_frame_equal(
            query(tmp_path, "FROM evaluations").drop("asset", "asset_digest"),
            pl.concat([evaluations("", 0), *expected]),
            check_row_order=False,
            check_exact=True,
        )


def test_any_client_sees_new_rows_without_the_database_being_renewed(tmp_path: Path) -> None:
    path = ensure_database(tmp_path)
    with duckdb.connect(str(path), read_only=True) as client:
        count = "SELECT count(*) FROM evaluations"
        assert client.execute(count).fetchall() == [(0,)]
        write_table(
            tmp_path, "evaluations", "e/evaluation_000", digest(1), evaluations("e", 0, 1, 2)
        )
        point(tmp_path, "e/evaluation_000", 1)
        assert client.execute(count).fetchall() == [(2,)]
        Heads(tmp_path / "heads").remove("e/evaluation_000")
        assert client.execute(count).fetchall() == [(0,)]


def test_artifacts_are_what_the_heads_say(tmp_path: Path) -> None:
    point(tmp_path, "backbones/b", 1)
    facts = {"experiment": "e", "stage": 3, "status": "hit", "cost": {"samples": 10}}
    point(tmp_path, "e/trained_003", 2, recipes={"weights": {"seed": 1}}, **facts)

    backbone, trained = query(tmp_path, "FROM artifacts ORDER BY asset").rows(named=True)
    assert (backbone["experiment"], backbone["stage"]) == (None, None)
    assert backbone["recorded_at"] == datetime(2026, 3, 4, 5, 6, 7, 250_000)
    assert trained["digest"] == digest(2)
    assert (trained["experiment"], trained["stage"], trained["status"]) == ("e", 3, "hit")
    assert json.loads(trained["recipes"]) == {"weights": {"seed": 1}}
    assert query(
        tmp_path, "SELECT (cost->>'samples')::INT AS n FROM artifacts WHERE stage = 3"
    ).rows() == [(10,)]


def test_leaderboard_is_the_last_stage_and_the_means_of_stages_from_one(tmp_path: Path) -> None:
    random_ = random.Random(1)
    given = {
        name: [(random_.uniform(1, 99), random_.uniform(1, 99)) for _ in range(stages + 1)]
        for name, stages in (("short", 1), ("middle", 5), ("long", 30))
    }
    for name, rows in given.items():
        write_scores(tmp_path, name, *rows)
    board = query(tmp_path, "FROM leaderboard")

    last = {name: math.sqrt(ka * zs) for name, [*_, (ka, zs)] in given.items()}
    assert board["experiment"].to_list() == sorted(given, key=last.__getitem__, reverse=True)
    for row in board.rows(named=True):
        rows = given[row["experiment"]]
        assert row["stages"] == len(rows) - 1
        assert (row["knowledge_accumulation"], row["zero_shot_retention"]) == rows[-1]
        assert row["geometric_mean"] == last[row["experiment"]]
        for column, values in (
            ("mean_knowledge_accumulation", [ka for ka, _ in rows[1:]]),
            ("mean_zero_shot_retention", [zs for _, zs in rows[1:]]),
            ("mean_geometric_mean", [math.sqrt(ka * zs) for ka, zs in rows[1:]]),
        ):
            assert row[column] == pytest.approx(math.fsum(values) / len(values), rel=1e-14)


def test_leaderboard_says_what_the_weights_took_when_they_were_made(tmp_path: Path) -> None:
    write_scores(tmp_path, "e", (1, 1), (2, 2))
    write_scores(tmp_path, "zero_shot", (3, 3))
    for number, (kind, cost) in enumerate(
        [("trained", {"samples": 10, "seconds": 1.5}), ("deployed", {"seconds": 0.25}),
         ("trained", {"samples": 30, "seconds": 4}), ("evaluation", {"seconds": 99})]
    ):  # fmt: skip
        asset = f"e/{kind}_{number:03d}"
        point(tmp_path, asset, 50 + number, kind=kind, experiment="e", stage=1, cost=cost)
    board = query(tmp_path, "SELECT experiment, samples, seconds FROM leaderboard ORDER BY ALL")
    assert board.rows() == [("e", 40, 5.75), ("zero_shot", None, None)]


def test_costs_are_those_of_all_stages_so_far_and_null_where_one_did_not_tell(
    tmp_path: Path,
) -> None:
    write_scores(tmp_path, "e", (1, 1), (2, 2), (3, 3), (4, 4))
    for number, (kind, stage, cost) in enumerate(
        [
            ("trained", 1, {"samples": 10, "seconds": 1.5, "flops": 2e18,
                            "peak_process_memory_bytes": 8}),
            ("deployed", 1, {"seconds": 0.25}),
            ("trained", 2, {"samples": 30, "seconds": 4, "flops": 1e18,
                            "peak_process_memory_bytes": 5}),
            ("trained", 3, {"samples": 5, "seconds": 1}),
            ("evaluation", 3, {"seconds": 99, "samples": 99}),
        ]
    ):  # fmt: skip
        asset = f"e/{kind}_{number:03d}"
        point(tmp_path, asset, 50 + number, kind=kind, experiment="e", stage=stage, cost=cost)
    assert query(tmp_path, "FROM costs ORDER BY stage").rows() == [
        ("e", 0, 0, 0, 0, 0, None, None),
        ("e", 1, 10, 2e18, 1.75, None, None, 8),
        ("e", 2, 40, 3e18, 5.75, None, None, 8),
        ("e", 3, 45, None, 6.75, None, None, 8),
    ]


def test_leaderboard_never_shows_an_earlier_stage_for_an_undefined_score(tmp_path: Path) -> None:
    write_scores(tmp_path, "undefined", (10, 90), (99, None))
    write_scores(tmp_path, "poor", (10, 90), (4, 1))

    first, second = query(tmp_path, "FROM leaderboard").rows(named=True)
    assert (first["experiment"], first["geometric_mean"]) == ("poor", 2)
    assert (second["experiment"], second["knowledge_accumulation"]) == ("undefined", 99)
    assert second["zero_shot_retention"] is None
    assert second["geometric_mean"] is None
    assert second["mean_zero_shot_retention"] is None


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT 1) TO '{home}/stolen.csv'",
        "WITH x AS (COPY (SELECT 1) TO '{home}/stolen.csv') SELECT 1",
        "SELECT 1) TO x; COPY (SELECT 1) TO '{home}/stolen.csv'; SELECT (1",
        "SELECT 1; COPY (SELECT 1) TO '{home}/stolen.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{home}/stolen.csv'",
        "EXPORT DATABASE '{home}/stolen'",
        "ATTACH '{home}/stolen.duckdb'",
        "CREATE TABLE mine AS SELECT 1",
        "CREATE TEMP TABLE mine AS SELECT 1",
        "DROP VIEW scores",
        "INSERT INTO scores VALUES ('e', 0, 1, 1, 1, 1, 1)",
        "CHECKPOINT",
        "SET threads = 1",
    ],
)
@pytest.mark.parametrize("home", ["home"], indirect=True)
def test_an_attempt_to_write_is_an_error_and_writes_nothing(home: Path, statement: str) -> None:
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    with pytest.raises(InputError):
        query(home, statement.format(home=home))
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'ü;' AS a;",
        "SELECT 'ü;' AS a ; -- done; really",
        "-- why;\nSELECT 'ü;' /* ; */ AS a -- ;",
        "FROM (VALUES ('ü;')) AS t(a)",
        "WITH t AS (SELECT 'ü;' AS a) FROM t",
    ],
)
def test_a_query_is_answered_with_or_without_semicolon_and_comments(
    tmp_path: Path, sql: str
) -> None:
    assert query(tmp_path, sql).to_dict(as_series=False) == {"a": ["ü;"]}


def test_order_pivots_and_descriptions_are_answered(tmp_path: Path) -> None:
    write_scores(tmp_path, "e", (1, 2), (5, 6), (3, 4))
    order = "SELECT stage FROM scores ORDER BY knowledge_accumulation DESC"
    assert query(tmp_path, order)["stage"].to_list() == [1, 2, 0]
    pivot = "PIVOT scores ON stage USING first(zero_shot_retention) GROUP BY experiment"
    assert query(tmp_path, pivot).rows() == [("e", 2, 6, 4)]
    assert "geometric_mean" in query(tmp_path, "DESCRIBE scores")["column_name"]
    assert "leaderboard" in query(tmp_path, "SHOW TABLES")["name"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "not 0 statements"),
        ("SELECT 1; SELECT 2", "not 2 statements"),
        ("SELEC 1", "syntax error"),
        ("FROM score", r'mean "scores"[\s\S]*Tables: artifacts, chances'),
        ("SELECT knowlege FROM scores", "knowledge_accumulation"),
    ],
)
def test_a_wrong_query_gets_a_clear_error(tmp_path: Path, sql: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        query(tmp_path, sql)


def test_a_home_with_any_name_can_be_queried_and_moved(tmp_path: Path) -> None:
    home = tmp_path / "it's [a] *home* of ü; -- {x}"
    write_scores(home, "e", (1, 2), (3, 4))
    assert query(home, "FROM scores").height == 2
    moved = home.rename(tmp_path / "moved")
    assert query(moved, "FROM scores").height == 2


def test_a_file_from_before_a_column_was_added_reads_as_null(tmp_path: Path) -> None:
    write_scores(tmp_path, "new", (1, 2))
    old = table_path(tmp_path, "scores", "old/scores", digest(2))
    old.parent.mkdir(parents=True)
    scores("old", (3, 4)).drop("forgetting").write_parquet(old)
    point(tmp_path, "old/scores", 2)

    rows = query(tmp_path, "SELECT experiment, geometric_mean, forgetting FROM scores ORDER BY 1")
    assert rows.rows() == [("new", math.sqrt(2), None), ("old", math.sqrt(12), None)]


def test_a_damaged_file_or_head_is_named(tmp_path: Path) -> None:
    write_scores(tmp_path, "e", (1, 2))
    path = table_path(tmp_path, "scores", "e/scores", digest(1))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=digest(1)):
        query(tmp_path, "FROM scores")

    (tmp_path / "heads/e/scores.json").write_text('{"asset": "e/sc')
    assert query(tmp_path, "FROM scores").height == 0
    assert query(tmp_path, "FROM damaged")["asset"].to_list() == ["e/scores"]


@pytest.mark.parametrize(
    ("sql", "said"),
    [("SELECT error('boo')", "boo"), ("SELECT ?", "parameters"), ("FROM 'no.csv'", "no.csv")],
)
def test_what_a_query_does_wrong_is_not_laid_to_the_tables(tmp_path: Path, sql: str, said: str):
    with pytest.raises(InputError, match=f"the query failed: .*{said}"):
        query(tmp_path, sql, external=True)


def test_costs_that_a_damaged_head_would_lower_are_null(tmp_path: Path) -> None:
    for stage in (1, 2):
        point(tmp_path, f"e/trained_{stage}", stage, kind="trained", experiment="e", stage=stage,
              makes_weights=True, cost={"samples": 8, "seconds": 2.0})  # fmt: skip
    write_scores(tmp_path, "e", (1, 2), (3, 4), (5, 6))
    asked = "SELECT samples, seconds FROM leaderboard"
    assert query(tmp_path, asked).rows() == [(16, 4.0)]
    (tmp_path / "heads/e/trained_2.json").write_text("{")
    assert query(tmp_path, asked).rows() == [(None, None)]
    assert query(tmp_path, "SELECT stage FROM costs").rows() == [(0,)]


def test_the_database_is_replaced_only_where_its_views_are_not_todays(tmp_path: Path) -> None:
    path = ensure_database(tmp_path)
    inode = path.stat().st_ino
    write_scores(tmp_path, "e", (1, 2))
    assert ensure_database(tmp_path).stat().st_ino == inode
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE VIEW views_version AS SELECT 'of an older release' AS version")
    ensure_database(tmp_path)
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM scores").fetchall() == [(1,)]
    assert not list(tmp_path.glob(".*"))


def test_no_query_needs_the_database_or_writes_one(tmp_path: Path) -> None:
    write_scores(tmp_path, "e", (1, 2))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert query(tmp_path, "FROM scores").height == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_many_processes_read_while_others_write(tmp_path: Path) -> None:
    """They also race to make the database."""
    reader = """
import sys
from pathlib import Path
from fomo_dagster.tables.views import query
for _ in range(15):
    rows = query(Path(sys.argv[1]), "SELECT value FROM evaluations")
    assert len(rows) in (0, 50), len(rows)
    assert rows["value"].n_unique() <= 1, rows
"""
    command = [sys.executable, "-c", reader, str(tmp_path)]
    readers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    number = 0
    while number < 20 or any(process.poll() is None for process in readers):
        number += 1
        rows = evaluations("e", 1, *[float(number)] * 50)
        write_table(tmp_path, "evaluations", "e/evaluation_001", digest(number), rows)
        point(tmp_path, "e/evaluation_001", number)
    for process in readers:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert query(tmp_path, "SELECT max(value) AS v FROM evaluations")["v"].to_list() == [number]


def test_a_query_reads_other_files_only_where_asked_to(tmp_path: Path) -> None:
    notes = tmp_path / "notes.csv"
    notes.write_text("experiment,note\ne,baseline\n")
    write_scores(tmp_path / "home", "e", (1, 2))
    joined = f"SELECT note, stage FROM scores JOIN '{notes}' USING (experiment)"
    assert query(tmp_path / "home", joined, external=True).rows() == [("baseline", 0)]
    with pytest.raises(InputError, match="--external"):
        query(tmp_path / "home", joined)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('/etc/passwd')",
        "FROM read_blob('{home}/tables/../secret')",
        "FROM read_csv('{home}/secret')",
        "FROM glob('{home}/*')",
        "FROM 'https://127.0.0.1:1/rows.parquet'",
        "FROM read_duckdb('{home}/fomo.duckdb', table_name = 'scores')",
        "FROM query('FROM read_text(''/etc/passwd'')')",
        "FROM sniff_csv('/etc/passwd')",
        "FROM parquet_metadata('{home}/secret')",
        "FROM which_secret('s3://x', 's3')",
        "SELECT * FROM secret_frame",
    ],
)
@pytest.mark.parametrize("home", ["home", "it's [a] *home*"], indirect=True)
def test_no_function_reads_past_the_tables(home: Path, sql: str) -> None:
    secret_frame = pl.DataFrame({"a": [1]})
    with pytest.raises(InputError):
        query(home, sql.format(home=str(home).replace("'", "''")))
    del secret_frame


def test_a_query_can_neither_install_nor_change_settings(tmp_path: Path) -> None:
    settings = query(tmp_path, "SELECT name, value FROM duckdb_settings()")
    for name in ("autoinstall_known_extensions", "autoload_known_extensions"):
        assert settings.filter(name=name)["value"].to_list() == ["false"]
    for statement in ("INSTALL httpfs", "LOAD httpfs", "SET enable_external_access = true"):
        for external in (False, True):
            with pytest.raises(InputError, match="refused"):
                query(tmp_path, statement, external=external)

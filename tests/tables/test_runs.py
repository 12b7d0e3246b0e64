"""Everything that was ever materialised has a line, of what was superseded since as well."""

import duckdb

from fomo_dagster.cli.running import run_experiment
from fomo_dagster.tables import runs
from fomo_dagster.tables.database import ensure_database
from fomo_dagster.tables.json_files import OF_RUNS
from fomo_dagster.tables.views import query

COUNTS = "SELECT status, is_current, count(*) AS times FROM runs GROUP BY ALL ORDER BY ALL"


def test_what_was_superseded_is_still_counted(finished_project):
    project = finished_project
    home = project.home.root
    assert query(home, COUNTS).rows() == [("computed", True, 18)]
    first = query(home, "SELECT * FROM runs WHERE asset = 'toy/trained_001'").to_dicts()[0]
    assert (first["kind"], first["experiment"], first["stage"]) == ("trained", "toy", 1)
    assert first["samples"] == 18
    assert 0 < first["making_seconds"] <= first["seconds"]
    assert (first["device"], first["devices"], first["executor"]) == ("cpu", 1, "in_process")
    assert first["computed"] == ["only"]
    assert '"torch"' in first["versions"]
    project.write("toy", optimiser={"learning_rate": 1e-2})
    run_experiment("toy", [])
    found = dict(query(home, "SELECT is_current, count(*) FROM runs GROUP BY ALL").rows())
    again = query(home, "SELECT count(*) FROM runs WHERE asset = 'toy/trained_001'").item()
    assert again == 2
    assert found[False] >= 7
    total = query(home, "SELECT sum(making_seconds * devices) / 3600 FROM runs").item()
    assert total > 0
    with duckdb.connect(str(ensure_database(home)), read_only=True) as other_program:
        assert other_program.sql(COUNTS).pl().equals(query(home, COUNTS))


def test_a_line_that_was_cut_short_is_passed_over(tmp_path):
    row = {"asset": "a", "began": "2026-11-29T10:00:00+00:00", "status": "hit", "versions": {}}
    runs.append(tmp_path, row)
    (path,) = tmp_path.glob("runs/2026-11/*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"asset": "b", "beg')
    runs.append(tmp_path, row)
    assert query(tmp_path, "SELECT count(*) FROM runs WHERE asset = 'a'").item() >= 1
    assert query(tmp_path, "SELECT DISTINCT person IS NULL FROM runs").rows() == [(False,)]


def test_where_nothing_was_recorded_there_are_no_rows(tmp_path):
    assert query(tmp_path, "SELECT * FROM runs").height == 0
    OF_RUNS.ensure(tmp_path)
    assert query(tmp_path, "SELECT * FROM runs").height == 0

"""The predictions of a run: one row a query, of which the scores are the means."""

import json

import duckdb
import polars as pl
import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.tables.database import ensure_database
from fomo_dagster.tables.prediction_changes import changes
from fomo_dagster.tables.predictions import PREDICTIONS, read_predictions, whole
from fomo_dagster.tables.view_columns import PREDICTION_COLUMNS
from fomo_dagster.tables.views import query

ACCURACIES = """
SELECT stage, dataset, 100 * sum((rank = 0)::INT) / count(*) AS value, count(*) AS samples
FROM predictions GROUP BY stage, dataset ORDER BY stage, dataset
"""


def without_predictions(project, stage, dataset):
    """Leave an evaluation as it was made before there were any."""
    kind, digest = project.home.heads.read(f"toy/evaluation_{stage:03d}").artifacts[dataset]
    folder = project.home.root / "store" / kind / digest
    (folder / PREDICTIONS).unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][PREDICTIONS]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_scores_are_means_over_predictions(finished_project):
    home = finished_project.home.root
    expected = query(
        home,
        "SELECT stage, dataset, value, samples FROM evaluations WHERE metric = 'accuracy'",
    )
    found = query(home, ACCURACIES)
    assert found.height == 4 * 3
    assert found.equals(expected.sort("stage", "dataset"))
    confused = query(home, "SELECT sum(samples)::BIGINT FROM confusions").item()
    assert confused == expected["samples"].sum()
    roles = query(home, "SELECT DISTINCT dataset, role, task FROM predictions ORDER BY ALL")
    assert roles.rows() == [
        ("birds", "adaptation", "classification"),
        ("cats", "adaptation", "classification"),
        ("old", "held_out", "classification"),
    ]
    path = ensure_database(home)
    with duckdb.connect(str(path), read_only=True) as other_program:
        assert other_program.sql(ACCURACIES).pl().equals(found)


def test_evaluations_from_before_predictions_stay_and_have_none(finished_project):
    home = finished_project.home
    without_predictions(finished_project, 3, "birds")
    rows = query(home.root, "SELECT stage, dataset, count(*) FROM predictions GROUP BY ALL")
    assert rows.height == 4 * 3 - 1
    with pytest.raises(InputError, match=r"toy, stage 3, was evaluated on birds before .* --pred"):
        read_predictions(home, "toy")
    assert set(read_predictions(home, "toy", dataset="cats").rows["dataset"]) == {"cats"}
    before = {head.asset: head.digest for _, _, head in home.heads.all()}
    result = CliRunner().invoke(app, ["run", "toy", "--predictions"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    computed = [line for line in result.output.splitlines() if line.startswith("  computed")]
    assert [line.split()[1] for line in computed] == ["toy/evaluation_003"]
    assert read_predictions(home, "toy").rows.height == 18
    assert {head.asset: head.digest for _, _, head in home.heads.all()} == before


def test_files_from_before_a_column_go_together_with_later_ones(finished_project):
    home = finished_project.home
    found = read_predictions(home, "toy", dataset="cats").rows.select(*PREDICTION_COLUMNS)
    earlier = whole(found.drop("margin"), "classification")
    assert earlier["margin"].null_count() == len(found)
    both = pl.concat([earlier, whole(found, "classification")])
    assert both.drop("margin").equals(pl.concat([found, found]).drop("margin"))


def test_altered_predictions_are_said_where_they_are_asked_for_and_nowhere_else(finished_project):
    home = finished_project.home.root
    path = next(home.glob(f"store/evaluation/*/{PREDICTIONS}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for asked in ("predictions", "confusions", 'PIVOT "Predictions" ON stage'):
        with pytest.raises(StoreError, match=r"the rows of toy/evaluation_\d{3} .* are damaged"):
            query(home, f"SELECT * FROM ({asked})" if "PIVOT" in asked else f"FROM {asked}")
    assert query(home, "FROM scores").height == 4


def test_changes_are_counted_query_by_query(finished_project):
    home = finished_project.home
    before, after = (read_predictions(home, "toy", stage) for stage in (0, 3))
    found = changes(before, after)
    then = dict(before.rows.select(pl.concat_str("dataset", "key"), "correct").iter_rows())
    now = dict(after.rows.select(pl.concat_str("dataset", "key"), "correct").iter_rows())
    assert found.left_out == 0
    assert found.by_dataset["samples"].to_list() == [8, 4, 6]
    assert found.by_dataset["newly_wrong"].sum() == sum(then[k] and not now[k] for k in now)
    assert found.by_dataset["newly_right"].sum() == sum(now[k] and not then[k] for k in now)
    assert found.by_dataset["still_wrong"].sum() == sum(not now[k] and not then[k] for k in now)
    assert found.by_concept["samples"].sum() == 18
    part = changes(before, type(after)("toy", 3, after.rows.filter(dataset="old")))
    assert (part.rows.height, part.left_out) == (6, 12)
    with pytest.raises(InputError, match="on no sample in common"):
        changes(before, type(after)("toy", 3, after.rows.with_columns(dataset=pl.lit("new"))))

import json
import random
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fomo_dagster.errors import InputError
from fomo_dagster.tables.files import write_table
from fomo_dagster.tables.results import leaderboard, results
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.views import query

DIGEST = "a" * 32


@pytest.fixture
def home(tmp_path: Path) -> Path:
    random_ = random.Random(3)
    for name in ("replay", "merging", "finetune"):
        rows = pl.DataFrame(
            [(name, stage, *(random_.uniform(0, 100) for _ in range(5))) for stage in range(4)],
            schema=dict(SCHEMAS["scores"]),
            orient="row",
        )
        write_table(tmp_path, "scores", f"{name}/scores", DIGEST, rows)
        head = tmp_path / "heads" / name / "scores.json"
        head.parent.mkdir(parents=True)
        head.write_text(json.dumps({"asset": f"{name}/scores", "digest": DIGEST}))
    return tmp_path


def test_results_are_what_sql_answers_to_the_last_digit(home: Path) -> None:
    found = results(home)
    by_stage = "SELECT * FROM scores ORDER BY experiment, stage"
    assert_frame_equal(found.stages, query(home, by_stage), check_exact=True)
    assert_frame_equal(found.leaderboard, query(home, "FROM leaderboard"), check_exact=True)
    assert_frame_equal(found.leaderboard, leaderboard(home), check_exact=True)
    assert found.stages.height == 12


def test_named_experiments_are_shown_alone(home: Path) -> None:
    some, everything = results(home, ["replay", "merging"]), results(home)
    chosen = pl.col("experiment").is_in(["replay", "merging"])
    assert_frame_equal(some.stages, everything.stages.filter(chosen), check_exact=True)
    assert_frame_equal(some.leaderboard, everything.leaderboard.filter(chosen), check_exact=True)
    assert some.leaderboard.height == 2


def test_an_experiment_without_scores_is_named_with_the_nearest(home: Path) -> None:
    with pytest.raises(InputError, match=r"'replays' has no scores yet.*did you mean 'replay'"):
        results(home, ["merging", "replays"])

import json
import random
import re
from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

from fomo_dagster.cli.reporting import print_methods
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables.files import write_table
from fomo_dagster.tables.results import leaderboard, results, results_by_dataset
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
        point(tmp_path, f"{name}/scores")
    return tmp_path


def point(home: Path, asset: str) -> None:
    """Make an asset currently what DIGEST names."""
    head = Head(
        asset=asset, kind="scores", experiment=None, stage=None, digest=DIGEST, data_version=DIGEST,
        code_version="", recipes={}, artifacts={}, facts={}, status="computed",
        recorded_at="2026-03-04T05:06:07+00:00", seconds=1.0,
    )  # fmt: skip
    Heads(home / "heads").write(head)


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


def test_replicates_that_were_run_otherwise_have_no_mean(home: Path) -> None:
    def run(name: str, of: str, **settings: object) -> None:
        texts = {name: "" for name, kind in SCHEMAS["experiments"].items() if kind == pl.String()}
        numbers = {name: 0 for name in SCHEMAS["experiments"] if name not in texts}
        own = {"experiment": name, "replicate_of": of, "replicate": name[-6:],
               "settings": json.dumps(settings)}  # fmt: skip
        rows = pl.DataFrame([texts | numbers | own], schema=dict(SCHEMAS["experiments"]))
        scores = dict.fromkeys(SCHEMAS["scores"], 9.0) | {"experiment": name, "stage": 1}
        write_table(home, "experiments", f"{name}/scores", DIGEST, rows)
        scored = pl.DataFrame([scores], schema=dict(SCHEMAS["scores"]))
        write_table(home, "scores", f"{name}/scores", DIGEST, scored)
        point(home, f"{name}/scores")

    for seed in (0, 1):
        run(f"even_seed_{seed}", "even", seed=seed, batch_size=8)
        run(f"odd_seed_{seed}", "odd", seed=seed, batch_size=8 + seed)
    console = Console(file=StringIO(), width=200)
    print_methods(Home(home), [], console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(r"even +2 +9.00 ± 0.00", printed)
    assert not re.search(r"odd +2", printed)
    assert "no mean of odd: odd_seed_0 and odd_seed_1 differ in batch_size, and so are" in printed
    print_methods(Home(home), ["odd_seed_1", "replay"], console)
    assert console.file.getvalue() == printed  # type: ignore[attr-defined]


def test_scores_by_dataset_stand_beside_the_published_ones(home: Path) -> None:
    columns = SCHEMAS["evaluations"]
    scores = {("cifar100", 0): 70.25, ("cifar100", 3): 81.5, ("birds", 0): 30.0, ("birds", 3): 20.0}
    for (dataset, stage), value in scores.items():
        row = dict.fromkeys(columns) | {
            "experiment": "replay", "stage": stage, "dataset": dataset, "role": "adaptation",
            "task": "classification", "value": value, "samples": 10,
        }  # fmt: skip
        rows = [row | {"metric": "score"}, row | {"metric": "accuracy", "value": 1.0}]
        asset = f"replay/evaluation_{stage}_{dataset}"
        write_table(home, "evaluations", asset, DIGEST, pl.DataFrame(rows, schema=dict(columns)))
        point(home, asset)
    found = results_by_dataset(home, ["replay"])
    shown = found.select("dataset", "score", "stage", "zero_shot", "published", "difference")
    # The benchmark publishes 75.8 of CIFAR-100, and knows no such birds.
    assert shown.rows()[0] == ("birds", 20.0, 3, 30.0, None, None)
    assert shown.rows()[1][:5] == ("cifar100", 81.5, 3, 70.25, 75.8)
    assert shown.rows()[1][5] == pytest.approx(70.25 - 75.8)
    assert results_by_dataset(home, ["merging"]).is_empty()
    with pytest.raises(InputError, match="did you mean 'replay'"):
        results_by_dataset(home, ["replays"])

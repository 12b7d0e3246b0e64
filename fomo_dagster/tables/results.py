"""The scores that `fomo results` prints, read through the views: the same digits as SQL gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.tables.views import query

# Stage 0 is θ₀: what others publish as a model's zero-shot score.
_BY_DATASET = """
SELECT
    e.experiment, e.dataset, e.role, e.task,
    arg_max(e.value, e.stage) AS score,
    max(e.stage) AS stage,
    arg_min(e.value, e.stage) FILTER (e.stage = 0) AS zero_shot,
    any_value(c.chance) AS chance,
    any_value(p.zero_shot) AS published,
    arg_min(e.value, e.stage) FILTER (e.stage = 0) - any_value(p.zero_shot) AS difference
FROM evaluations AS e LEFT JOIN published AS p USING (dataset) LEFT JOIN (
    SELECT experiment, dataset, max(value) AS chance FROM evaluations WHERE metric = 'chance'
    GROUP BY experiment, dataset
) AS c ON c.experiment = e.experiment AND c.dataset = e.dataset
WHERE e.metric = 'score'
GROUP BY e.experiment, e.dataset, e.role, e.task
ORDER BY e.experiment, e.role, e.dataset
"""


@dataclass(frozen=True)
class Results:
    """stages: the rows of the view `scores` by experiment and stage; leaderboard: as its view."""

    stages: pl.DataFrame
    leaderboard: pl.DataFrame


def chances(home: Path, experiments: Sequence[str] = ()) -> pl.DataFrame:
    """What guessing scores at the last stage: experiment, KA, ZS and GM, null where not known, of
    the named experiments or of all."""
    rows = query(
        home,
        "SELECT * EXCLUDE (stage) FROM chances "
        "QUALIFY stage = max(stage) OVER (PARTITION BY experiment) ORDER BY experiment",
    )
    return rows.filter(pl.col("experiment").is_in(list(experiments))) if experiments else rows


COSTS = (
    "samples", "flops", "seconds", "energy_joules", "peak_device_memory_bytes",
    "peak_process_memory_bytes",
)  # fmt: skip


def scores_by_cost(home: Path, experiments: Sequence[str], cost: str) -> pl.DataFrame:
    """The geometric mean of each stage, with what all stages up to it took (one of COSTS), of the
    named experiments or of all: experiment, stage, geometric_mean, and that cost.

    Raises `InputError` for an unknown cost, for one that no training recorded, and as `results`.
    """
    if cost not in COSTS:
        raise InputError(f"there is no cost {cost!r}: {nearest(cost, COSTS)}")
    known = results(home, experiments).leaderboard["experiment"]
    found = query(
        home,
        f"SELECT experiment, stage, geometric_mean, {cost} FROM scores JOIN costs "
        "USING (experiment, stage) ORDER BY experiment, stage",
    ).filter(pl.col("experiment").is_in(known.implode()))
    if found.filter(pl.col("stage") > 0)[cost].drop_nulls().is_empty():
        raise InputError(
            f"no training of {', '.join(known) or 'any experiment'} recorded its {cost}: choose "
            f"another cost ({', '.join(one for one in COSTS if one != cost)})"
        )
    return found


def leaderboard(home: Path) -> pl.DataFrame:
    """The view `leaderboard`: one row an experiment that has scores, the best final GM first."""
    return query(home, "SELECT * FROM leaderboard")


def sweep_leaderboard(home: Path, swept: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """The rows of `leaderboard` for the experiments of a sweep that have scores, with a column
    after their names for each thing that the sweep varies.

    swept: experiment → column → value; null if an experiment does not vary it. A column of numbers
    alone holds numbers, any other text.
    """
    board, names = leaderboard(home), list(swept)
    told = pl.DataFrame({"experiment": pl.Series(names, dtype=pl.String)})
    for column in dict.fromkeys(column for values in swept.values() for column in values):
        values = [swept[name].get(column) for name in names]
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            values = [None if value is None else str(value) for value in values]
        name = f"{column} (swept)" if column in board.columns else column
        told = told.with_columns(pl.Series(name, values, strict=False))
    rows = board.join(told, on="experiment", maintain_order="left")
    return rows.select(*told.columns, pl.exclude(told.columns))


def results_by_dataset(home: Path, experiments: Sequence[str] = ()) -> pl.DataFrame:
    """A row for each experiment and dataset: the last stage's score, that of θ₀, that of guessing,
    and the zero-shot score that the benchmark publishes for OpenCLIP's ViT-B/32 (LAION-2B), if it
    has the dataset.

    Raises `InputError` as `results` does.
    """
    known = results(home, experiments).leaderboard["experiment"]
    return query(home, _BY_DATASET).filter(pl.col("experiment").is_in(known.implode()))


def results(home: Path, experiments: Sequence[str] = ()) -> Results:
    """The results of the named experiments, or of all.

    Raises `InputError` for an experiment without scores, with the nearest that has some.
    """
    stages = query(home, "SELECT * FROM scores ORDER BY experiment, stage")
    board = leaderboard(home)
    known = board["experiment"].to_list()
    for name in experiments:
        if name not in known:
            raise InputError(
                f"experiment {name!r} has no scores yet: `fomo run {name}` computes them "
                f"({nearest(name, known) if known else 'no other experiment has any'})"
            )
    if experiments:
        chosen = pl.col("experiment").is_in(list(experiments))
        stages, board = stages.filter(chosen), board.filter(chosen)
    return Results(stages, board)

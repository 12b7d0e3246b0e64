"""The scores that `fomo results` prints, read through the views: the same digits as SQL gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.tables.views import query


@dataclass(frozen=True)
class Results:
    """stages: the rows of the view `scores` by experiment and stage; leaderboard: as its view."""

    stages: pl.DataFrame
    leaderboard: pl.DataFrame


def leaderboard(home: Path) -> pl.DataFrame:
    """The view `leaderboard`: one row an experiment that has scores, the best final GM first."""
    return query(home, "SELECT * FROM leaderboard")


def results(home: Path, experiments: Sequence[str] = ()) -> Results:
    """The results of the named experiments, or of all.

    Raises `InputError` naming an experiment that has no scores yet, with the nearest that has.
    """
    stages = query(home, "SELECT * FROM scores ORDER BY experiment, stage")
    board = leaderboard(home)
    known = board["experiment"].to_list()
    for name in experiments:
        if name not in known:
            raise InputError(
                f"experiment {name!r} has no scores yet: `fomo run {name}` computes them "
                f"({nearest(name, known)})"
            )
    if experiments:
        chosen = pl.col("experiment").is_in(list(experiments))
        stages, board = stages.filter(chosen), board.filter(chosen)
    return Results(stages, board)

"""What `fomo results` and `fomo run` show of a sweep: one leaderboard over its experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from rich.console import Console

from fomo_dagster.cli.output import say
from fomo_dagster.cli.reporting import (
    TIME,
    as_shown,
    print_methods,
    say_chances,
    say_units,
)
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.experiment.experiment_sets import ExperimentSet
from fomo_dagster.home import Home, project_folder
from fomo_dagster.tables.results import leaderboard, sweep_leaderboard
from fomo_dagster.tables.views import query


def asked_for(references: Sequence[str], home: Home) -> tuple[list[str], ExperimentSet | None]:
    """The experiments that the arguments of a command name, of a sweep or a comparison those that
    have scores; and the sweep, where they name one and nothing else.

    The name of an experiment with scores stands for it though its file be gone, and the name that
    replicates share for these. Raises `InputError` for what names nothing, and for several
    experiments without any scores.
    """
    with_scores = set(leaderboard(home.root)["experiment"])
    replicates = replicates_of(home)
    names: list[str] = []
    sweeps: list[ExperimentSet] = []
    for reference in references:
        if reference in with_scores:
            names.append(reference)
            continue
        try:
            experiment_set = load_named(reference, project_folder())
        except InputError:
            if reference not in replicates:
                raise
            names += [name for name in replicates[reference] if name in with_scores]
            continue
        if experiment_set.gallery is not None:
            raise InputError(f"{reference} is a gallery, which has no scores: name experiments")
        if not experiment_set.is_several:
            names += experiment_set.names
            continue
        if experiment_set.comparison is None:
            sweeps.append(experiment_set)
        there = [name for name in experiment_set.names if name in with_scores]
        names += there
        if not there:
            raise InputError(
                f"no experiment of {reference} has scores yet: `fomo run {reference}` computes them"
            )
    return names, sweeps[0] if len(references) == len(sweeps) == 1 else None


def replicates_of(home: Home) -> dict[str, list[str]]:
    """The name that replicates share → their own."""
    rows = query(
        home.root,
        "SELECT replicate_of, list(experiment ORDER BY experiment) FROM experiments "
        "WHERE replicate_of IS NOT NULL GROUP BY replicate_of",
    )
    return dict(rows.iter_rows())


def leaderboard_of(home: Home, sweep: ExperimentSet) -> pl.DataFrame:
    """See `sweep_leaderboard`."""
    swept = {member.experiment.name: member.swept for member in sweep.members}
    return sweep_leaderboard(home.root, swept)


def print_sweep(home: Home, sweep: ExperimentSet, console: Console) -> None:
    """The leaderboard of a sweep, with what it varies in the place of the experiments' names, in
    80 columns; which experiments have no scores yet; how one is named."""
    frame = leaderboard_of(home, sweep)
    varied = frame.columns[1 : frame.columns.index("stages")]
    shown = as_shown(frame.drop("experiment")).with_columns(
        pl.col(varied).map_elements(_exact, return_dtype=pl.String)
    )
    print_frame(shown, sweep.name, console, numbers=(TIME,))
    there = frame["experiment"].to_list()
    print_methods(home, sweep.names, console)
    say_chances(home, there, console)
    say_units(console)
    missing = [name for name in sweep.names if name not in there]
    if missing:
        say(console, f"without scores: {', '.join(missing)}")
    named = sweep.ending(there[0] if there else missing[0])
    say(console, f"one of them: fomo results {sweep.reference}/{named}")


def _exact(value: Any) -> str:
    """Two decimals would make nothing of a learning rate."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)

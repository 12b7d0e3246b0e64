"""What was looked at of an experiment's stages, read through the views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.tables.views import query


@dataclass(frozen=True)
class LookedAt:
    """stages: a row for each; rows: what was found in them."""

    experiment: str
    stages: pl.DataFrame
    rows: pl.DataFrame


def looked_at(
    home: Path, stages: str, rows: str, experiment: str, stage: int | None, *, was: str, way: str
) -> LookedAt:
    """Of a stage of an experiment, or of all.

    stages, rows: SQL with columns experiment and stage. was: what is done to a stage; way: how an
    experiment asks for it. Raises `InputError` where it was not done.
    """
    known = query(home, stages)
    found = known.filter(experiment=experiment).drop("experiment")
    if found.is_empty():
        others = known["experiment"].unique().to_list()
        near = f" ({nearest(experiment, others)})" if others else ""
        raise InputError(
            f"what {experiment!r} trains on was not {was}: give it `{way}`, and `fomo run "
            f"{experiment}` does it{near}"
        )
    of_experiment = query(home, rows).filter(experiment=experiment)
    if stage is not None:
        if stage not in found["stage"]:
            told = ", ".join(map(str, found["stage"]))
            raise InputError(f"stage {stage} of {experiment!r} was not {was}: choose one of {told}")
        found, of_experiment = found.filter(stage=stage), of_experiment.filter(stage=stage)
    return LookedAt(experiment, found, of_experiment)

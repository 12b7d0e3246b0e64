"""The near duplicates of an experiment's stages, read through the views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.tables.views import query

_STAGES = """
SELECT experiment, stage, (facts->>'samples')::BIGINT AS samples,
    (facts->>'leaking')::BIGINT AS near_a_test_image,
    (facts->>'repeated')::BIGINT AS near_one_before
FROM artifacts WHERE kind = 'near_duplicates' ORDER BY experiment, stage
"""
_PAIRS = """
SELECT * EXCLUDE (asset, asset_digest) FROM near_duplicates
ORDER BY stage, kind <> 'leakage', kind, distance NULLS LAST, similarity DESC NULLS LAST,
    dataset, key, other_dataset
"""


@dataclass(frozen=True)
class LookedFor:
    """What was found of an experiment. stages: how many samples each brings, and how many of these
    are near duplicates; pairs: rows of `near_duplicates` by stage, with test images first."""

    experiment: str
    stages: pl.DataFrame
    pairs: pl.DataFrame


def near_duplicates_of(home: Path, experiment: str, stage: int | None = None) -> LookedFor:
    """Of a stage, or of all. Raises `InputError` where nobody looked for any."""
    known = query(home, _STAGES)
    stages = known.filter(experiment=experiment).drop("experiment")
    if stages.is_empty():
        others = known["experiment"].unique().to_list()
        near = f" ({nearest(experiment, others)})" if others else ""
        raise InputError(
            f"no near duplicates were looked for in what {experiment!r} trains on: give it "
            f"`near_duplicates: {{}}`, and `fomo run {experiment}` looks for them{near}"
        )
    pairs = query(home, _PAIRS).filter(experiment=experiment)
    if stage is not None:
        if stage not in stages["stage"]:
            told = ", ".join(map(str, stages["stage"]))
            raise InputError(
                f"no near duplicates were looked for in stage {stage} of {experiment!r}: choose "
                f"one of {told}"
            )
        stages, pairs = stages.filter(stage=stage), pairs.filter(stage=stage)
    return LookedFor(experiment, stages, pairs)

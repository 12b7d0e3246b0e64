"""What was found by inspecting an experiment's stages, read through the views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.tables.views import query

SEEN = (
    "dataset", "key", "concept", "similarity", "confidence", "predicted", "label_quality",
    "suggested", "doubtful", "novelty",
)  # fmt: skip
"""What is told of each sample."""

_STAGES = """
SELECT d.experiment, d.stage, count(*) AS samples,
    sum(i.doubtful::INT)::BIGINT AS doubtful_labels,
    100 * avg((i.suggested = i.concept)::INT) AS probe_accuracy,
    any_value(d.p) AS p, any_value(d.auc) AS auc
FROM drifts d JOIN inspections i USING (experiment, stage)
GROUP BY d.experiment, d.stage ORDER BY ALL
"""
_SAMPLES = "SELECT * EXCLUDE (asset, asset_digest) FROM inspections ORDER BY ALL"


@dataclass(frozen=True)
class Inspected:
    """What was found of an experiment. stages: a row each; samples: rows of `inspections`."""

    experiment: str
    stages: pl.DataFrame
    samples: pl.DataFrame


def inspections_of(home: Path, experiment: str, stage: int | None = None) -> Inspected:
    """Of a stage, or of all. Raises `InputError` where nothing was inspected."""
    known = query(home, _STAGES)
    stages = known.filter(experiment=experiment).drop("experiment")
    if stages.is_empty():
        others = known["experiment"].unique().to_list()
        near = f" ({nearest(experiment, others)})" if others else ""
        raise InputError(
            f"nothing that {experiment!r} trains on was inspected: give it `inspection: {{}}`, "
            f"and `fomo run {experiment}` does it{near}"
        )
    samples = query(home, _SAMPLES).filter(experiment=experiment)
    if stage is not None:
        if stage not in stages["stage"]:
            told = ", ".join(map(str, stages["stage"]))
            raise InputError(
                f"stage {stage} of {experiment!r} was not inspected: choose one of {told}"
            )
        stages, samples = stages.filter(stage=stage), samples.filter(stage=stage)
    return Inspected(experiment, stages, samples)


def said_of_drift(told: Mapping[str, Any]) -> str:
    """What a row of `drifts` says, in words."""
    if told["p"] is None:
        if not told["earlier"]:
            return "nothing came before"
        return f"{told['newer']} samples and {told['earlier']} earlier ones are too few to tell"
    return (
        f"p = {told['p']:.3g} that nothing drifted; a classifier tells new from earlier samples "
        f"with an area under the curve of {told['auc']:.2f} (0.5: not at all)"
    )

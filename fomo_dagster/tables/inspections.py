"""What was found by inspecting an experiment's stages, read through the views."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fomo_dagster.tables.looked_at import LookedAt, looked_at

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


def inspections_of(home: Path, experiment: str, stage: int | None = None) -> LookedAt:
    """Of a stage, or of all; rows are those of `inspections`. Raises as `looked_at`."""
    return looked_at(
        home, _STAGES, _SAMPLES, experiment, stage, was="inspected", way="inspection: {}"
    )


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

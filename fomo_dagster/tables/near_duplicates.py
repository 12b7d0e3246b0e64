"""The near duplicates of an experiment's stages, read through the views."""

from __future__ import annotations

from pathlib import Path

from fomo_dagster.tables.looked_at import LookedAt, looked_at

_STAGES = """
SELECT experiment, stage, (facts->>'samples')::BIGINT AS samples,
    (facts->>'leaking')::BIGINT AS near_a_test_image,
    (facts->>'repeated')::BIGINT AS near_one_before
FROM artifacts WHERE kind = 'near_duplicates' ORDER BY experiment, stage
"""
_PAIRS = """
SELECT * EXCLUDE (asset, asset_digest) FROM near_duplicates
ORDER BY stage, kind NOT LIKE '%leakage', kind, distance NULLS LAST,
    similarity DESC NULLS LAST, dataset, key, other_dataset
"""


def near_duplicates_of(home: Path, experiment: str, stage: int | None = None) -> LookedAt:
    """Of a stage, or of all; rows are those of `near_duplicates` by stage, with test images first.
    Raises as `looked_at`."""
    return looked_at(
        home, _STAGES, _PAIRS, experiment, stage, was="searched for near duplicates",
        way="near_duplicates: {}",
    )  # fmt: skip

"""Whether a stage, or one that came of it, was released: such a stage is judged no more."""

from __future__ import annotations

from collections.abc import Mapping

from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.releases.records import Candidate, History


def was_released(
    experiment: str, stage: int, deployed: Mapping[int, str], history: History, context: NodeContext
) -> bool:
    """deployed: stage → the key of the weights that it deploys, as the experiment is now.

    An experiment that was changed since has a past of its own, which was never released.
    """
    return any(
        _is_of(candidate, stage, deployed, context)
        for record in history.releases.values()
        if (candidate := record.candidate) is not None
        and candidate.experiment == experiment
        and candidate.stage >= stage
    )


def _is_of(
    candidate: Candidate, stage: int, deployed: Mapping[int, str], context: NodeContext
) -> bool:
    """Whether what was released of this stage or a later one is of the stage as it is now."""
    trained = f"{candidate.experiment}/trained_{stage:03d}"
    if candidate.stage > stage and trained in candidate.lineage:
        key, version = trained, candidate.lineage[trained]
    elif candidate.stage in deployed:  # it is this one, or each stage starts anew
        key, version = deployed[candidate.stage], candidate.checkpoint
    else:  # the stream is shorter now
        return False
    head = context.heads.read(key)
    return head is not None and head.data_version == version

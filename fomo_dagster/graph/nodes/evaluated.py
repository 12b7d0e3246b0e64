"""What evaluations found, for the gates that hold models against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fomo_dagster.errors import InputError
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode
from fomo_dagster.parquet import read_parquet

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.releases.gates import Evaluated


def evaluated(node: EvaluationNode, digests: Mapping[str, str], context: NodeContext) -> Evaluated:
    """digests: dataset → its evaluation, as the node asks for it. Raises `InputError` for one from
    before there were predictions."""
    from fomo_dagster.releases.gates import Evaluated
    from fomo_dagster.tables.predictions import PREDICTIONS, predictions_of

    predictions, metrics = {}, {}
    for name, digest in digests.items():
        artifact = context.store.open(EvaluationNode.kind, digest)
        if artifact is None or PREDICTIONS not in artifact.manifest["files"]:
            raise InputError(
                f"the predictions of {name} are needed, and its evaluation {digest} has none: "
                f"`fomo run {node.experiment} --predictions` evaluates it again"
            )
        predictions[name] = predictions_of(artifact, name, node.datasets[name].task)
        rows = read_parquet(artifact.path(METRICS)).select("metric", "value")
        metrics[name] = dict(rows.iter_rows())
    return Evaluated(predictions, metrics)

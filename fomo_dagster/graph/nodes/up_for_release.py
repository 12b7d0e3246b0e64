"""What would be released of a stage, for the records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationDetails, EvaluationNode
from fomo_dagster.graph.nodes.provenance import provenance_of, released_before
from fomo_dagster.parquet import read_parquet
from fomo_dagster.releases.lineage import made_from
from fomo_dagster.releases.records import Candidate

if TYPE_CHECKING:
    from fomo_dagster.experiment.schema import Experiment
    from fomo_dagster.graph.core.context import NodeContext


def candidate_of(
    node: EvaluationNode, experiment: Experiment, nodes: Mapping[str, Node], context: NodeContext
) -> Candidate:
    """The weights that the evaluation `node` is of, as they are there now. nodes: all of the
    graph."""
    key = node.checkpoint_key
    head = context.heads.read(key)
    facts = context.facts(node.key).of(EvaluationDetails)
    assert head is not None
    (weights,) = head.artifacts.values()
    made = made_from(head, context.heads, released_before(experiment, context))
    return Candidate(
        experiment=experiment.name,
        stage=node.stage,
        checkpoint=context.facts(key).data_version,
        weights=weights,
        backbone=node.backbone.model_dump(mode="json", exclude_defaults=True),
        evaluations=facts.evaluations,
        scores=_scores(node, context),
        lineage=made.lineage,
        roles=dict(node.roles),
        provenance=provenance_of(node, experiment, nodes, context),
    )


def _scores(node: EvaluationNode, context: NodeContext) -> dict[str, float | None]:
    """KA, ZS and GM, in percent, without those that are not defined."""
    from fomo_dagster.evaluation.scores import accumulation_and_retention
    from fomo_dagster.metrics import SCORE

    scores: dict[str, list[float]] = {"adaptation": [], "held_out": []}
    for name, digest in context.facts(node.key).of(EvaluationDetails).evaluations.items():
        artifact = context.store.open(EvaluationNode.kind, digest)
        assert artifact is not None
        rows = read_parquet(artifact.path(METRICS))
        scores[node.roles[name]] += rows.filter(metric=SCORE)["value"].to_list()
    return dict(accumulation_and_retention(scores["adaptation"], scores["held_out"]))

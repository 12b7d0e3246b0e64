"""A stage's deployed weights as an export needs them: the model, its measurements, and where the
weights come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.exporting.subject import Evaluated, Provenance, Subject
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode
from fomo_dagster.graph.nodes.provenance import provenance_of
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.metrics import SCORE
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.tables.predictions import PREDICTIONS

if TYPE_CHECKING:
    from fomo_dagster.experiment.schema import Experiment


def subject_of(
    node: EvaluationNode, experiment: Experiment, nodes: Mapping[str, Node], context: NodeContext
) -> Subject:
    """The model that the evaluation `node` is of. nodes: all of the graph.

    Raises `InputError` where its weights or its evaluation are not there as they are declared,
    `StoreError` where their files are gone.
    """
    provenance = provenance_of(node, experiment, nodes, context)
    evaluations = {name: context.artifact(node.key, name) for name in node.datasets}
    weights = context.artifact(node.checkpoint_key)
    return subject(node, weights, node.backbone, provenance, evaluations, node.roles, context)


def subject(
    node: EvaluationNode,
    weights: Artifact,
    backbone: Backbone,
    provenance: Provenance,
    evaluations: Mapping[str, Artifact],
    roles: Mapping[str, str],
    context: NodeContext,
) -> Subject:
    """Weights that were evaluated as `node` evaluates. evaluations: dataset → what was found;
    roles: dataset → adaptation or held_out."""
    return Subject(
        model=load_weights(backbone, weights.path(WEIGHTS)),
        provenance=provenance,
        evaluated=tuple(_evaluated(node, evaluations, roles, context)),
        settings=node.settings,
        execution=node.execution,
        progress=context.callbacks.progress,
    )


def _evaluated(
    node: EvaluationNode,
    evaluations: Mapping[str, Artifact],
    roles: Mapping[str, str],
    context: NodeContext,
) -> Iterator[Evaluated]:
    from fomo_dagster.evaluation.evaluate import EvaluationSet

    for name, artifact in evaluations.items():
        metrics = read_parquet(artifact.path(METRICS))
        classes = context.facts(shards_key(name)).of(SampleDetails).concepts
        kept = PREDICTIONS in artifact.manifest["files"]
        yield Evaluated(
            evaluation_set=EvaluationSet(
                name, node.datasets[name], index_of(name, context), classes
            ),
            role="adaptation" if roles[name] == "adaptation" else "held_out",
            score=float(metrics.filter(metric=SCORE)["value"][0]),
            predictions=read_parquet(artifact.path(PREDICTIONS)) if kept else None,
            pixels=Pixels.of(artifact.manifest["recipe"]["parameters"]),
        )

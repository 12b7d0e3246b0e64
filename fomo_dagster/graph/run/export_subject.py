"""What a stage's deployed weights are, as an export needs it: the model, its measurements, and the
data that the weights were trained on, found by walking the graph from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import polars as pl

from fomo_dagster.errors import FomoError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.exporting.subject import DataUse, Evaluated, Provenance, Subject
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.backbone import BackboneNode
from fomo_dagster.graph.nodes.chunk import ChunkNode
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode
from fomo_dagster.graph.nodes.listing import StreamedNode
from fomo_dagster.graph.nodes.pool import PoolNode
from fomo_dagster.graph.nodes.shards import ShardsNode
from fomo_dagster.graph.nodes.validation import ValidationNode
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.metrics import SCORE
from fomo_dagster.parquet import read_parquet
from fomo_dagster.tables.predictions import PREDICTIONS

if TYPE_CHECKING:
    from fomo_dagster.experiment.schema import Experiment


def subject_of(node: EvaluationNode, graph: Graph, context: NodeContext) -> Subject:
    """The model that the evaluation `node` is of.

    Raises `InputError` where its weights or its evaluation are not there as they are declared,
    `StoreError` where their files are gone.
    """
    context.facts(node.checkpoint_key)
    checkpoint = context.artifact(node.checkpoint_key)
    return Subject(
        model=load_weights(node.backbone, checkpoint.path(WEIGHTS)),
        provenance=provenance_of(node, graph, context),
        evaluated=tuple(_evaluated(node, context)),
        settings=node.settings,
        execution=node.execution,
        progress=context.callbacks.progress,
    )


def provenance_of(node: EvaluationNode, graph: Graph, context: NodeContext) -> Provenance:
    """Where the weights come from that the evaluation `node` is of. Raises as `subject_of`."""
    assert node.experiment is not None
    experiment = graph.experiments[node.experiment]
    upstream = _upstream(node.checkpoint_key, graph)
    checkpoint = context.artifact(node.checkpoint_key)
    digests = {f"weights ({node.checkpoint_key})": checkpoint.digest}
    for name in node.datasets:
        digests[f"evaluation on {name}"] = context.artifact(node.key, name).digest
    data, unknown = _data(upstream, graph, context)
    return Provenance(
        experiment=node.experiment,
        stage=node.stage,
        backbone=_named(node.backbone),
        method=_method(experiment),
        description=experiment.description,
        data=tuple(data),
        foreign=(*_foreign(upstream), *unknown),
        digests=digests,
    )


def _upstream(key: str, graph: Graph) -> dict[str, Node]:
    """The node and all that it is made of."""
    found: dict[str, Node] = {}
    left = [key]
    while left:
        one = left.pop()
        if one in graph.nodes and one not in found:
            found[one] = graph.nodes[one]
            left += graph.nodes[one].inputs
    return found


def _evaluated(node: EvaluationNode, context: NodeContext) -> Iterator[Evaluated]:
    from fomo_dagster.evaluation.evaluate import EvaluationSet

    context.facts(node.key)
    for name, dataset in node.datasets.items():
        artifact = context.artifact(node.key, name)
        metrics = read_parquet(artifact.path(METRICS))
        classes = context.facts(shards_key(name)).of(SampleDetails).concepts
        kept = PREDICTIONS in artifact.manifest["files"]
        yield Evaluated(
            evaluation_set=EvaluationSet(name, dataset, index_of(name, context), classes),
            role="adaptation" if node.roles[name] == "adaptation" else "held_out",
            score=float(metrics.filter(pl.col("metric") == SCORE)["value"][0]),
            predictions=read_parquet(artifact.path(PREDICTIONS)) if kept else None,
        )


def _data(
    upstream: Mapping[str, Node], graph: Graph, context: NodeContext
) -> tuple[list[DataUse], list[str]]:
    """What was trained on, updates first; and a sentence for what nobody knows any more."""
    updates: Counter[str] = Counter()
    pooled: dict[str, int | None] = {}
    unknown = []
    for key, node in upstream.items():
        if isinstance(node, ChunkNode):
            try:
                manifest = read_parquet(context.artifact(key).path(MANIFEST), columns=["dataset"])
            except FomoError:
                unknown.append(f"which samples {key} brought is no longer known here")
                continue
            updates.update(manifest["dataset"].to_list())
        elif isinstance(node, PoolNode):
            for name in node.pool.names:
                pooled[name] = _training_samples(name, context)
    uses: tuple[tuple[Literal["update", "pretraining"], Mapping[str, int | None]], ...] = (
        ("update", dict(updates)), ("pretraining", pooled)
    )  # fmt: skip
    return [
        DataUse(dataset=name, use=use, samples=found[name], licence=_licence(name, graph))
        for use, found in uses
        for name in sorted(found)
    ], unknown


def _training_samples(dataset: str, context: NodeContext) -> int | None:
    """None for a streamed dataset, and for one that is gone."""
    try:
        details = context.facts(shards_key(dataset)).details
    except FomoError:
        return None
    return sum(details.train_samples.values()) if isinstance(details, SampleDetails) else None


def _licence(dataset: str, graph: Graph) -> str:
    node = graph.nodes.get(shards_key(dataset))
    if isinstance(node, ShardsNode | StreamedNode | ValidationNode):
        return node.dataset.licence
    return ""


def _foreign(upstream: Mapping[str, Node]) -> Iterator[str]:
    for node in upstream.values():
        if isinstance(node, BackboneNode) and node.backbone.pretraining is None:
            yield (
                f"{node.backbone.name} was pretrained elsewhere ({_named(node.backbone)}): the "
                "data and the licence of these weights are their publisher's to say"
            )


def _named(backbone: Backbone) -> str:
    """What θ₀ is, in words."""
    architecture = backbone.architecture
    what = architecture if isinstance(architecture, str) and architecture else "a configuration"
    if backbone.pretraining is not None:
        return f"{what}, trained by the project itself from random weights"
    if backbone.pretrained is not None:
        return f"{what} with the weights {backbone.pretrained} of OpenCLIP's list"
    assert backbone.weights is not None
    return f"{what} with the weights of {backbone.weights.name}"


def _method(experiment: Experiment) -> str:
    """What a stage does, in words."""
    method = experiment.method
    said = [method.name]
    if method.preserve is not None:
        said.append(f"with {method.preserve.name}")
    if method.merge is not None:
        said.append(f"merged over time by {method.merge.technique}")
    return " ".join(said)

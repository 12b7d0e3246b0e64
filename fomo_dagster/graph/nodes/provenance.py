"""Where weights come from, for people: the data that they were trained on, found by walking the
graph from them, with licences as they are declared now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from fomo_dagster.errors import FomoError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.exporting.subject import DataUse, Provenance
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.backbone import BackboneNode
from fomo_dagster.graph.nodes.chunk import ChunkNode
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.nodes.listing import StreamedNode
from fomo_dagster.graph.nodes.pool import PoolNode
from fomo_dagster.graph.nodes.shards import ShardsNode
from fomo_dagster.graph.nodes.trained import TrainedNode
from fomo_dagster.graph.nodes.validation import ValidationNode
from fomo_dagster.parquet import read_parquet
from fomo_dagster.releases.lineage import lineage_of

if TYPE_CHECKING:
    from fomo_dagster.experiment.schema import Experiment


def provenance_of(
    node: EvaluationNode, experiment: Experiment, nodes: Mapping[str, Node], context: NodeContext
) -> Provenance:
    """Of the weights that the evaluation `node` is of. nodes: all of the graph.

    Raises `InputError` where the weights or their evaluation are not there as they are declared.
    """
    context.facts(node.checkpoint_key)
    context.facts(node.key)
    upstream = _upstream(node.checkpoint_key, nodes)
    head = context.heads.read(node.checkpoint_key)
    assert head is not None  # it has facts
    # Not all that it could be made from: what starts from a release takes nothing of stages that
    # were refused, and the release may be another experiment's.
    lineage = lineage_of(head, context.heads)
    digests = {f"weights ({node.checkpoint_key})": _digest(node.checkpoint_key, ONLY, context)}
    for name in node.datasets:
        digests[f"evaluation on {name}"] = _digest(node.key, name, context)
    data, unknown = _data(lineage, nodes, context)
    return Provenance(
        experiment=experiment.name,
        stage=node.stage,
        backbone=_named(node.backbone),
        method=_method(experiment),
        updates=sum(_kind(key, context) == TrainedNode.kind for key in lineage),
        description=experiment.description,
        data=tuple(data),
        foreign=(*_foreign(upstream), *unknown),
        digests=digests,
    )


def _digest(key: str, name: str, context: NodeContext) -> str:
    head = context.heads.read(key)
    assert head is not None  # it has facts
    return head.artifacts[name][1]


def _kind(key: str, context: NodeContext) -> str | None:
    """That of an asset of a lineage; None of what is outside."""
    head = context.heads.read(key)
    return None if head is None else head.kind


def _upstream(key: str, nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The node and all that it may be made of."""
    found: dict[str, Node] = {}
    left = [key]
    while left:
        one = left.pop()
        if one in nodes and one not in found:
            found[one] = nodes[one]
            left += nodes[one].inputs
    return found


def _data(
    lineage: Mapping[str, str], nodes: Mapping[str, Node], context: NodeContext
) -> tuple[list[DataUse], list[str]]:
    """What was trained on, updates first; and a sentence for what nobody knows any more. What an
    asset of a lineage made may be another experiment's too, and is not in `nodes` then."""
    updates: Counter[str] = Counter()
    pooled: dict[str, int | None] = {}
    unknown = []
    for key in lineage:
        if _kind(key, context) == ChunkNode.kind:
            try:
                manifest = read_parquet(context.artifact(key).path(MANIFEST), columns=["dataset"])
            except FomoError:
                unknown.append(f"which samples {key} brought is no longer known here")
                continue
            updates.update(manifest["dataset"].to_list())
    made_from = set(lineage.values())
    for key, node in nodes.items():
        pool = context.heads.read(key) if isinstance(node, PoolNode) else None
        if isinstance(node, PoolNode) and pool is not None and pool.data_version in made_from:
            for name in node.pool.names:
                pooled[name] = _training_samples(name, context)
    uses: tuple[tuple[Literal["update", "pretraining"], Mapping[str, int | None]], ...] = (
        ("update", dict(updates)), ("pretraining", pooled)
    )  # fmt: skip
    return [
        DataUse(dataset=name, use=use, samples=found[name], licence=_licence(name, nodes))
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


def _licence(dataset: str, nodes: Mapping[str, Node]) -> str:
    node = nodes.get(shards_key(dataset))
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

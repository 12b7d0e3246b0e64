"""Where weights come from, for people: the data that they were trained on, found by walking the
graph from them, with licences as they are declared now."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

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
from fomo_dagster.graph.work.histories import history_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.releases.lineage import MadeFrom, made_from
from fomo_dagster.releases.records import Candidate
from fomo_dagster.store.artifacts import Artifact

if TYPE_CHECKING:
    import polars as pl

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
    trained_on = _TrainedOn.of(node.checkpoint_key, experiment, nodes, context)
    digests = {f"weights ({node.checkpoint_key})": _digest(node.checkpoint_key, ONLY, context)}
    for name in node.datasets:
        digests[f"evaluation on {name}"] = _digest(node.key, name, context)
    return Provenance(
        experiment=experiment.name,
        stage=node.stage,
        backbone=_named(node.backbone),
        method=_method(experiment),
        updates=trained_on.updates,
        description=experiment.description,
        data=trained_on.data,
        foreign=tuple(dict.fromkeys((*_foreign(upstream), *trained_on.unknown))),
        digests=digests,
    )


def data_of(
    checkpoint_key: str, experiment: Experiment, nodes: Mapping[str, Node], context: NodeContext
) -> tuple[DataUse, ...]:
    """What weights that are there were trained on, as far as this project knows."""
    return _TrainedOn.of(checkpoint_key, experiment, nodes, context).data


class _TrainedOn(NamedTuple):
    """updates: how many trainings of stages. unknown: sentences for what nobody knows, or is not
    this project's."""

    updates: int
    data: tuple[DataUse, ...]
    unknown: tuple[str, ...]

    @classmethod
    def of(
        cls, checkpoint_key: str, experiment: Experiment, nodes: Mapping[str, Node],
        context: NodeContext,
    ) -> _TrainedOn:  # fmt: skip
        """What the weights of an asset that is there really come of. Not all that they could be
        made from: what starts from a release takes nothing of stages that were refused, and the
        release may be another experiment's."""
        head = context.heads.read(checkpoint_key)
        assert head is not None  # it has facts
        made = made_from(head, context.heads, released_before(experiment, context))
        data, unknown = _data(made, nodes, context)
        records = [one.provenance for one in made.releases]
        before = [record for record in records if record is not None]
        unknown += [
            f"what {release.shown}, was trained on, from which they go on, is not in its record"
            for release in made.releases
            if release.provenance is None
        ]
        return cls(
            sum(_kind(key, context) == TrainedNode.kind for key in made.own)
            + sum(record.updates or 0 for record in before),
            tuple(_together(data, *(record.data for record in before))),
            (*unknown, *(one for record in before for one in record.foreign)),
        )


def released_before(experiment: Experiment, context: NodeContext) -> dict[str, Candidate]:
    """The data version of weights → what was released as the experiment releases."""
    if experiment.release is None:
        return {}
    records = history_of(experiment.release.name, context).releases.values()
    return {one.candidate.checkpoint: one.candidate for one in records if one.candidate}


def _together(*parts: Iterable[DataUse]) -> Iterator[DataUse]:
    """Updates first. What stages brought of a dataset adds up; a pool is the same for all."""
    found: dict[tuple[str, str], DataUse] = {}
    for one in itertools.chain(*parts):
        other = found.setdefault((one.use, one.dataset), one)
        if other is not one and one.use == "update":
            counted = None
            if one.samples is not None and other.samples is not None:
                counted = one.samples + other.samples
            found[one.use, one.dataset] = replace(other, samples=counted)
    return iter(sorted(found.values(), key=lambda one: (one.use != "update", one.dataset)))


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
    made: MadeFrom, nodes: Mapping[str, Node], context: NodeContext
) -> tuple[list[DataUse], list[str]]:
    """What was trained on beside what is in the records of the releases, updates first; and a
    sentence for what nobody knows any more. What an asset of a lineage made may be another
    experiment's too, and is not in `nodes` then."""
    updates: Counter[str] = Counter()
    pooled: dict[str, int | None] = {}
    unknown = []
    for key in made.own:
        if _kind(key, context) == ChunkNode.kind:
            try:
                manifest = _samples(context.artifact(key))
                for release in made.releases:
                    manifest = _without(manifest, release.lineage.get(key), context)
            except FomoError:
                unknown.append(f"which samples {key} brought is no longer known here")
                continue
            updates.update(manifest["dataset"].to_list())
    made_from = set(made.own.values())
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


def _samples(chunk: Artifact) -> pl.DataFrame:
    return read_parquet(chunk.path(MANIFEST), columns=["dataset", "key"])


def _without(samples: pl.DataFrame, chunk: str | None, context: NodeContext) -> pl.DataFrame:
    """Samples without those of a chunk, as it was when there was a release of it; all of them where
    it is no longer in the store."""
    artifact = None if chunk is None else context.store.open(ChunkNode.kind, chunk)
    if artifact is None:
        return samples
    return samples.join(_samples(artifact), on=["dataset", "key"], how="anti")


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

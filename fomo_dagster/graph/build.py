"""From experiments to the graph of nodes they need, shared where they declare the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fomo_dagster.data.benchmark.registry import by_any_name
from fomo_dagster.data.declarations import Dataset, PretrainingPool
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.online_selection import Referring
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.weights_folder import located
from fomo_dagster.graph.backbone_nodes import (
    BackboneNode,
    WeightsSource,
    weights_source_key,
)
from fomo_dagster.graph.budget_nodes import budget_of
from fomo_dagster.graph.chunk_nodes import ChunkNode, Chunks, CutOrder, WholeDatasets
from fomo_dagster.graph.data_nodes import (
    shards_key,
    source_key,
)
from fomo_dagster.graph.declared_streams import (
    first_evaluated,
    in_released_streams,
    listing_of,
    roles_of,
    viewed,
    with_stream_read,
    years_of,
)
from fomo_dagster.graph.evaluation_nodes import EvaluationNode, LeaderboardNode, ScoresNode
from fomo_dagster.graph.measured_orders import (
    FrequencyOrder,
    PerformanceOrder,
    ProbeNode,
    SimilarityOrder,
)
from fomo_dagster.graph.names import check_alike, sweeps_of
from fomo_dagster.graph.node import Node, SourceNode
from fomo_dagster.graph.order_nodes import Listing, OrderNode, order_key
from fomo_dagster.graph.pool_nodes import PoolNode
from fomo_dagster.graph.tar_nodes import is_in_place, is_streamed, nodes_of
from fomo_dagster.graph.trained_nodes import TrainedNode
from fomo_dagster.graph.validation_nodes import ValidationNode, viewed_by
from fomo_dagster.graph.weights_over_time import WeightsOverTime
from fomo_dagster.store.digests import digest_of

LEADERBOARD = "leaderboard"
POOL = "pool"  # what the places in an experiment that name a pool end in


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after what it needs."""

    sources: Mapping[str, SourceNode]
    nodes: Mapping[str, Node]
    code_versions: Mapping[str, str]
    experiments: Mapping[str, Experiment]
    growing: Mapping[str, Path] = field(default_factory=dict)
    """Experiment → the folder that its stream grows in."""
    sweeps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sweep → its experiments."""
    owners: Mapping[str, Loaded] = field(default_factory=dict)
    """Node → the experiment that brought it, from which alone it can be built again."""

    def of(self, *experiments: str) -> list[Node]:
        """The nodes that experiments need, their streams' order and the leaderboard with them."""
        streams = (order_key(self.experiments[name].stream_name) for name in experiments)
        wanted: set[str] = {LEADERBOARD, *streams}
        for node in reversed(list(self.nodes.values())):
            if node.key in wanted or node.experiment in experiments:
                wanted.add(node.key)
                if node.key != LEADERBOARD:
                    wanted.update(node.inputs)
        return [node for node in self.nodes.values() if node.key in wanted]


def build_graph(loaded: Sequence[Loaded], beside: Iterable[str] = ()) -> Graph:
    """The graph of some experiments.

    beside: names of further experiments, whose scores the leaderboard shows where they are there.
    Raises `InputError` for a dataset that does not exist, for two different declarations under one
    shared name, for a dataset that is both trained on and held out.
    """
    sweeps = sweeps_of(loaded)
    builder = _Builder()
    for one in loaded:
        builder.add_experiment(one)
    names = sorted({one.experiment.name for one in loaded} | set(beside))
    builder.add(
        LeaderboardNode(key=LEADERBOARD, score_keys=tuple(f"{name}/scores" for name in names))
    )
    return builder.graph({one.experiment.name: one.experiment for one in loaded}, sweeps)


class _Builder:
    def __init__(self) -> None:
        self.sources: dict[str, SourceNode] = {}
        self.nodes: dict[str, Node] = {}
        self.owners: dict[str, str] = {}
        self.code_versions: dict[str, str] = {}
        self.experiment = ""
        self.loaded: dict[str, Loaded] = {}
        self.growing: dict[str, Path] = {}

    def graph(
        self, experiments: Mapping[str, Experiment], sweeps: Mapping[str, tuple[str, ...]]
    ) -> Graph:
        owners = {key: self.loaded[name] for key, name in self.owners.items() if name}
        return Graph(
            self.sources, self.nodes, self.code_versions, experiments, self.growing, sweeps, owners
        )

    def add(self, node: Node) -> None:
        """Add a node after what it needs; one that is there must be the same."""
        there = self.nodes.get(node.key)
        if there is not None:
            check_alike(there, node, self.owners[node.key], self.experiment)
            return
        self.nodes[node.key] = node
        self.owners[node.key] = self.experiment
        upstream = {
            key: self.code_versions[key] for key in node.inputs if key in self.code_versions
        }
        self.code_versions[node.key] = digest_of(
            {"kind": node.kind, "version": node.version, "declared": node.declared,
             "upstream": upstream}
        )  # fmt: skip

    def add_dataset(self, loaded: Loaded, name: str, where: str) -> Dataset:
        if name not in loaded.datasets:
            raise InputError(
                f"experiment {loaded.experiment.name!r}: {where} names dataset {name!r}, which is "
                "not declared; " + nearest(name, {*loaded.datasets, *by_any_name()})
            )
        dataset = loaded.datasets[name]
        look_of, node_of = nodes_of(dataset)
        if is_streamed(dataset) and not where.endswith(POOL):
            raise InputError(
                f"experiment {loaded.experiment.name!r}: {where} names dataset {name!r}, which is "
                "streamed (index: false), so that nobody knows its samples: it can be part of a "
                "pretraining pool alone"
            )
        look = look_of(name=name, dataset=dataset, base=loaded.bases[name])
        source = SourceNode(key=source_key(name), look=look)
        there = self.sources.setdefault(source.key, source)
        if there.look != look:
            raise InputError(
                f"dataset {name!r} is declared differently by experiments: rename one of the two"
            )
        self.add(node_of(key=shards_key(name), name=name, dataset=dataset))
        return dataset

    def add_samples(self, loaded: Loaded, name: str, where: str) -> Dataset:
        """A dataset that is trained or evaluated on, or its view where the experiment validates."""
        validation = loaded.experiment.validation
        if validation is None:
            return self.add_dataset(loaded, name, where)
        of = viewed_by(name, validation)
        dataset = self.add_dataset(loaded, of, where)
        if is_in_place(dataset):
            raise InputError(
                f"experiment {loaded.experiment.name!r}: {where} names dataset {of!r}, whose "
                "tars are read where they lie, and validation holds samples out of stored shards "
                "alone: leave out `validation`, or give the dataset a test_share"
            )
        self.add(
            ValidationNode(key=shards_key(name), of=of, dataset=dataset, validation=validation)
        )
        return dataset

    def add_pool(self, loaded: Loaded, pool: PretrainingPool, where: str) -> str:
        datasets = {name: self.add_dataset(loaded, name, where) for name in pool.names}
        streamed = [name for name, dataset in datasets.items() if is_streamed(dataset)]
        if streamed and len(datasets) > 1 and pool.weights is None:
            raise InputError(
                f"experiment {loaded.experiment.name!r}: pool {pool.name!r} mixes {streamed[0]!r}, "
                "which is streamed and of unknown size, with other datasets: give each of its "
                "datasets a weight"
            )
        key = f"pools/{pool.name}"
        prompts = {name: dataset.prompt for name, dataset in datasets.items()}
        self.add(PoolNode(key=key, pool=pool, prompts=prompts))
        return key

    def add_backbone(self, loaded: Loaded, backbone: Backbone, where: str) -> str:
        """The key of its node. where: the setting that declares it."""
        pool_key = None
        backbone = located(backbone, loaded.base)
        if (path := backbone.weights) is not None:
            key = weights_source_key(backbone.name)
            source = SourceNode(key=key, look=WeightsSource(path=path, backbone=backbone))
            if self.sources.setdefault(key, source).look != source.look:
                raise InputError(
                    f"backbone {backbone.name!r} names different weights in two experiments: "
                    "give one of them another name"
                )
        if backbone.pretraining is not None:
            pool_key = self.add_pool(loaded, backbone.pretraining.pool, f"{where}.pretraining.pool")
        key = f"backbones/{backbone.name}"
        execution = loaded.experiment.execution
        self.add(BackboneNode(key=key, backbone=backbone, pool_key=pool_key, execution=execution))
        return key

    def order_of(
        self, loaded: Loaded, listing: Listing, datasets: Mapping[str, Dataset], theta: str
    ) -> OrderNode:
        """The node of the stream's order, with what it measures added before it."""
        experiment = loaded.experiment
        name, stream = experiment.stream_name, experiment.stream
        backbone, execution = self.backbone_of(theta), experiment.execution
        common: dict[str, Any] = {
            "key": order_key(name), "name": name, "stream": stream, "listing": listing,
            "of_benchmark": in_released_streams(experiment, datasets),
        }  # fmt: skip
        if stream.order == "performance":
            # Always of whole test splits: two samples a class are no accuracy to go by.
            probe = ProbeNode(
                key=f"streams/{name}/probe", stage=0, backbone=backbone, checkpoint_key=theta,
                settings=experiment.evaluation.model_copy(update={"subset": 1.0}),
                datasets=datasets, roles=dict.fromkeys(datasets, "adaptation"),
                execution=execution,
            )  # fmt: skip
            self.add(probe)
            return PerformanceOrder(probe_key=probe.key, **common)
        if stream.order == "frequency":
            recipe = backbone.pretraining
            pool = experiment.pretraining_pool or (recipe.pool if recipe else None)
            if pool is None:
                raise InputError(
                    f"experiment {experiment.name!r}: the order frequency counts captions of the "
                    "pretraining pool, and there is none: declare pretraining_pool"
                )
            pool_key = self.add_pool(loaded, pool, "pretraining_pool")
            return FrequencyOrder(pool_key=pool_key, execution=execution, **common)
        if stream.order == "similarity":
            return SimilarityOrder(
                checkpoint_key=theta, backbone=backbone, execution=execution,
                precision=experiment.evaluation.precision,
                prompts={d: dataset.prompt for d, dataset in datasets.items()}, **common,
            )  # fmt: skip
        return OrderNode(years=years_of(experiment, datasets), **common)

    def backbone_of(self, theta: str) -> Backbone:
        """θ₀ as its node declares it, with the paths resolved."""
        node = self.nodes[theta]
        assert isinstance(node, BackboneNode)
        return node.backbone

    def add_stream(
        self, loaded: Loaded, theta: str, arrived: tuple[str, ...]
    ) -> tuple[list[str], tuple[str, ...]]:
        """The keys of the chunks, and the datasets that the stream draws from.

        arrived: the datasets of a growing stream.
        """
        experiment = loaded.experiment
        name, stream = experiment.stream_name, experiment.stream
        listing = Listing(arrived) if stream.growing is not None else listing_of(loaded)
        datasets = {d: self.add_samples(loaded, d, "stream") for d in listing.datasets}
        if not datasets or stream.stages == 0:  # of a growing stream nothing may have arrived
            return [], listing.datasets
        order = self.order_of(loaded, listing, datasets, theta)
        self.add(order)
        chunks: Chunks
        if stream.order == "dataset_incremental" or stream.growing is not None:
            chunks, stages = WholeDatasets(order=order), len(datasets)
            if stream.stages not in (None, stages):
                raise InputError(
                    f"experiment {experiment.name!r}: stream.stages is {stream.stages}, and a "
                    f"dataset_incremental stream of {stages} datasets has {stages}: leave it out"
                )
        else:
            chunks, stages = CutOrder(order=order), stream.stages or len(stream.positions or ()) + 1
        keys = []
        for number in range(1, stages + 1):
            key = f"streams/{name}/chunk_{number:03d}"
            brings, texts = chunks.datasets(number), experiment.training_texts
            named = [d for d in brings if datasets[d].task == "classification"]
            self.add(
                ChunkNode(
                    key=key, stream=name, number=number, chunks=chunks,
                    prompts={d: datasets[d].prompt for d in brings},
                    texts=texts, worded=() if texts is None else tuple(named),
                )
            )  # fmt: skip
            keys.append(key)
        return keys, listing.datasets

    def beside(
        self, loaded: Loaded, stage: int, theta: str, weights: WeightsOverTime
    ) -> dict[str, Any]:
        """What the method's preservation looks at in a stage, as fields of its `TrainedNode`; the
        node of another backbone is added."""
        preserve = loaded.experiment.method.preserve
        if preserve is None:
            return {}
        before = tuple(weights.trained(earlier) for earlier in range(1, stage))
        reference, fields = preserve.reference, dict[str, Any]()
        if isinstance(reference, Backbone):
            key = self.add_backbone(loaded, reference, "method.preserve.teacher")
            fields |= {"reference_key": key, "reference_backbone": self.backbone_of(key)}
        elif reference is not None:
            keys = {"initial": theta, "deployed": weights.deployed(stage - 1)}
            fields["reference_key"] = keys[reference]
        if preserve.carries and before:
            fields["carried_key"] = before[-1]
        if preserve.remembers:
            fields["remembered_keys"] = before
        return fields

    def selection(self, loaded: Loaded) -> dict[str, Any]:
        """Which rows a stage trains on, as fields of its `TrainedNode`; the node of the model that
        is looked at for it is added."""
        selection = loaded.experiment.selection
        fields: dict[str, Any] = {"selection": selection}
        if isinstance(selection, Referring):
            key = self.add_backbone(loaded, selection.reference, "selection.reference")
            fields |= {"selecting_key": key, "selecting_backbone": self.backbone_of(key)}
        return fields

    def add_experiment(self, loaded: Loaded) -> None:
        experiment = loaded.experiment
        self.experiment = experiment.name
        self.loaded[experiment.name] = loaded = with_stream_read(loaded)
        if experiment.stream.growing is not None:
            self.growing[experiment.name] = loaded.base / experiment.stream.growing.expanduser()
        arrived = tuple(map(viewed(experiment), loaded.arrived or ()))
        method = experiment.method
        theta = self.add_backbone(loaded, experiment.backbone, "backbone")
        chunks, trained_on = self.add_stream(loaded, theta, arrived)
        pool = experiment.pool
        pool_key = self.add_pool(loaded, pool, "pretraining_pool") if pool is not None else None
        backbone = self.backbone_of(theta)
        roles = roles_of(experiment, trained_on)
        since = first_evaluated(experiment, arrived)
        evaluated = {name: self.add_samples(loaded, name, "evaluation") for name in roles}
        evaluations = []

        def evaluate(stage: int, checkpoint_key: str) -> None:
            key = f"{experiment.name}/evaluation_{stage:03d}"
            there = {d: role for d, role in roles.items() if since.get(d, 0) <= stage}
            self.add(
                EvaluationNode(
                    key=key, experiment=experiment.name, stage=stage, backbone=backbone,
                    checkpoint_key=checkpoint_key, settings=experiment.evaluation,
                    datasets={d: evaluated[d] for d in there}, roles=there,
                    execution=experiment.execution,
                )
            )  # fmt: skip
            evaluations.append(key)

        evaluate(0, theta)
        budget = budget_of(experiment, backbone, len(chunks))
        if budget is not None:
            self.add(budget)
        weights = WeightsOverTime(
            experiment=experiment.name, method=method, base_key=theta, backbone=backbone,
            chunk_keys=chunks,
        )  # fmt: skip
        for stage in range(1, len(chunks) + 1):
            for start in weights.before_training(stage):
                self.add(start)
            self.add(
                TrainedNode(
                    key=weights.trained(stage), experiment=experiment.name, stage=stage,
                    backbone=backbone, settings=experiment, mixture=experiment.mixture,
                    buffer=experiment.buffer, method=method, seed=experiment.seed,
                    start_key=weights.start(stage), base_key=theta,
                    chunk_keys=tuple(chunks[:stage]), pool_key=pool_key,
                    **self.beside(loaded, stage, theta, weights), **self.selection(loaded),
                    budget_key=None if budget is None else budget.key,
                    execution=experiment.execution,
                )
            )  # fmt: skip
            for deployed in weights.after_training(stage):
                self.add(deployed)
            evaluate(stage, weights.deployed(stage))
        self.add(
            ScoresNode(
                key=f"{experiment.name}/scores", experiment=experiment.name,
                evaluation_keys=tuple(evaluations), chunk_keys=tuple(chunks), roles=roles,
                since=since,
            )
        )  # fmt: skip

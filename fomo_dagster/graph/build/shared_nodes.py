"""The nodes that experiments share if they declare the same: datasets, pools, backbones."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from fomo_dagster.data.dataset import Dataset, PretrainingPool
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.weights_folder import located
from fomo_dagster.graph.build.names import ConflictError, Names, check_alike
from fomo_dagster.graph.core.context import SourceNode
from fomo_dagster.graph.core.keys import BACKBONES, POOLS, shards_key, source_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.backbone import (
    BackboneNode,
    WeightsSource,
    weights_source_key,
)
from fomo_dagster.graph.nodes.datasets import NODES
from fomo_dagster.graph.nodes.pool import PoolNode
from fomo_dagster.graph.nodes.validation import ValidationNode, viewed_by

POOL = "pool"  # what the places in an experiment that name a pool end in


class SharedNodes:
    """Nodes and sources, each after those that it needs.

    owners: node → the experiment that brought it. experiment: whose nodes are being added.
    """

    def __init__(self) -> None:
        self.sources: dict[str, SourceNode] = {}
        self.nodes: dict[str, Node] = {}
        self.owners: dict[str, str] = {}
        self.weights: defaultdict[str, list[WeightsSource]] = defaultdict(list)
        self.names = Names()
        self.experiment = ""

    def add(self, node: Node) -> None:
        """Add a node after what it needs. If it exists already, it must be the same."""
        there = self.nodes.get(node.key)
        if there is not None:
            if there == node:
                return
            check_alike(there, node, self.owners[node.key], self.experiment)
            return
        self.names.check_key(node.key, self.experiment)
        self.nodes[node.key] = node
        self.owners[node.key] = self.experiment

    def add_dataset(self, loaded: Loaded, name: str, where: str) -> Dataset:
        dataset = loaded.dataset(name, where)
        if dataset.source.access == "streamed" and not where.endswith(POOL):
            raise InputError(
                f"experiment {loaded.experiment.name!r}: {where} names dataset {name!r}, which is "
                "streamed (index: false), so that nobody knows its samples: it can be part of a "
                "pretraining pool alone"
            )
        self.add_declared(name, dataset, loaded.bases[name], f"experiment {self.experiment!r}")
        return dataset

    def add_declared(self, name: str, dataset: Dataset, base: Path, whose: str) -> None:
        """Add a dataset's source and shards. base: where its paths start. whose: who names it, as
        errors say it."""
        observer_of, node_of = NODES[dataset.source.access]
        observe = observer_of(name=name, dataset=dataset, base=base)
        source = SourceNode(key=source_key(name), observe=observe)
        there = self.sources.setdefault(source.key, source)
        if there.observe != observe:
            raise ConflictError(
                f"dataset {name!r} of {whose} is declared differently by "
                f"experiment {self.owners.get(shards_key(name), '?')!r}: rename one of the two"
            )
        self.add(node_of(key=shards_key(name), name=name, dataset=dataset))

    def add_samples(self, loaded: Loaded, name: str, where: str) -> Dataset:
        """Add a dataset that is trained or evaluated on, or its view if the experiment
        validates."""
        validation = loaded.experiment.validation
        if validation is None:
            return self.add_dataset(loaded, name, where)
        of = viewed_by(name, validation)
        dataset = self.add_dataset(loaded, of, where)
        if dataset.source.access != "copied":
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
        streamed = [
            name for name, dataset in datasets.items() if dataset.source.access == "streamed"
        ]
        if streamed and len(datasets) > 1 and pool.weights is None:
            raise InputError(
                f"experiment {loaded.experiment.name!r}: pool {pool.name!r} mixes {streamed[0]!r}, "
                "which is streamed and of unknown size, with other datasets: give each of its "
                "datasets a weight"
            )
        key = f"{POOLS}/{pool.name}"
        prompts = {name: dataset.prompt for name, dataset in datasets.items()}
        self.add(PoolNode(key=key, pool=pool, prompts=prompts))
        return key

    def add_backbone(self, loaded: Loaded, backbone: Backbone, where: str) -> str:
        """The key of its node. where: the setting that declares it."""
        pool_key = None
        backbone = located(backbone, loaded.base)
        if (path := backbone.weights) is not None:
            key = weights_source_key(backbone.name)
            observe = WeightsSource(path=path, backbone=backbone)
            self.weights[self.experiment].append(observe)
            source = SourceNode(key=key, observe=observe)
            if self.sources.setdefault(key, source).observe != source.observe:
                raise ConflictError(
                    f"backbone {backbone.name!r} of experiment {self.experiment!r} names other "
                    "weights than that of another experiment, or is called as a dataset is: give "
                    "it another name"
                )
        if backbone.pretraining is not None:
            pool_key = self.add_pool(loaded, backbone.pretraining.pool, f"{where}.pretraining.pool")
        key = f"{BACKBONES}/{backbone.name}"
        execution = loaded.experiment.execution
        self.add(BackboneNode(key=key, backbone=backbone, pool_key=pool_key, execution=execution))
        return key

    def backbone_of(self, theta: str) -> Backbone:
        """θ₀ as its node declares it, with the paths resolved."""
        node = self.nodes[theta]
        assert isinstance(node, BackboneNode)
        return node.backbone

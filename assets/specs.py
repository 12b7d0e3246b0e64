"""An asset spec for each node of the graph: key, dependencies, code version, group, description."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from fomo_dagster.graph.build.builder import Graph
from fomo_dagster.graph.build.names import DATASETS, MANIFESTS
from fomo_dagster.graph.core.keys import BACKBONES, LEADERBOARD
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.merged import DeployedNode

EXPERIMENT_TAG = "fomo/experiment"  # of runs: the experiment or sweep brought up to date
KINDS = {
    "shards": {"webdataset", "parquet"},
    "validation": {"parquet"},
    "probe": {"parquet", "openclip"},
    "order": {"parquet"},
    "listing": {"webdataset", "parquet"},
    "chunk": {"parquet"},
    "pool": {"parquet"},
    "budget": {"pytorch"},
    "backbone": {"pytorch", "openclip"},
    "trained": {"pytorch", "openclip"},
    "deployed": {"safetensors", "openclip"},
    "start": {"safetensors", "openclip"},
    "evaluation": {"parquet", "openclip"},
    "scores": {"parquet", "duckdb"},
    "leaderboard": {"parquet", "duckdb"},
}
DESCRIPTIONS = {
    "shards": "The dataset's images and captions as WebDataset tars, with an index.",
    "validation": "Training samples held out in the place of the dataset's test split.",
    "probe": "θ₀ on the stream's datasets, whose accuracies its order follows.",
    "order": "The stream's concepts in the order in which they arrive.",
    "listing": "The shards of a streamed dataset, which nobody has looked into.",
    "chunk": "The manifest of the samples that this chunk of the stream brings.",
    "pool": "The manifest of the pretraining pool.",
    "budget": "What a step costs by count, and how many steps the budget gives each stage.",
    "backbone": "θ₀, the weights that every experiment with this backbone starts from.",
    "trained": "The weights after training stage {stage}.",
    "deployed": "The weights that stage {stage} serves: {merge}.",
    "start": "The weights that stage {stage} starts from: {merge}.",
    "evaluation": "The weights that stage {stage} deploys, on every evaluation dataset.",
    "scores": "Knowledge accumulation and zero-shot retention at every stage.",
    "leaderboard": "All experiments side by side.",
}
SHARED_GROUPS = {
    "shards": DATASETS,
    "validation": DATASETS,
    "listing": DATASETS,
    "probe": MANIFESTS,
    "order": MANIFESTS,
    "chunk": MANIFESTS,
    "pool": MANIFESTS,
    "backbone": BACKBONES,
    "leaderboard": LEADERBOARD,
}

# The first tick knows of nothing before it, so it asks for everything: what is missing or changed
# is computed, and the rest are hits. After it, new images, a changed declaration or a missing asset
# ask for a run, each once, also where that run fails. `eager()` asks again after an unchanged data
# version and never looks at code versions; `since_last_handled()` takes the first tick for handled.
_CHANGED: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.initial_evaluation()
    | dg.AutomationCondition.missing().newly_true()
    | dg.AutomationCondition.code_version_changed()
    | dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
    )
)
_HANDLED: dg.AutomationCondition[Any] = (
    dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
)
CHANGED = (
    _CHANGED.since(_HANDLED)
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("what changed upstream")


def key_of(key: str) -> dg.AssetKey:
    """The asset key whose parts `key` joins by `/`."""
    return dg.AssetKey(key.split("/"))


def group_of(node: Node) -> str:
    """The Dagster group: the experiment's, or that of the shared kind."""
    return node.experiment or SHARED_GROUPS[node.kind]


def description_of(node: Node) -> str:
    """What the asset is, in a sentence; of a merge, by what technique it is one of what."""
    merge = ""
    if isinstance(node, DeployedNode):
        keys = node.model_keys
        named = " and ".join(keys) if len(keys) < 3 else f"{keys[0]} to {keys[-1]}"
        merge = f"{node.declared['technique']} of {named}"
    return DESCRIPTIONS[node.kind].format(stage=node.stage, merge=merge)


def owners_of(graph: Graph) -> dict[str, list[str]]:
    """Key → owners: those of every experiment that needs the asset, so shared ones have several."""
    owners: dict[str, set[str]] = {}
    for name, experiment in graph.experiments.items():
        if experiment.owners:
            for node in graph.of(name):
                owners.setdefault(node.key, set()).update(experiment.owners)
    return {key: sorted(names) for key, names in owners.items()}


def spec_of(node: Node, graph: Graph, owners: Sequence[str] = ()) -> dg.AssetSpec:
    """The asset spec of a node; it depends on the inputs that the graph has."""
    present = [key for key in node.inputs if key in graph.nodes or key in graph.sources]
    return dg.AssetSpec(
        key_of(node.key),
        deps=[key_of(key) for key in present],
        code_version=graph.code_versions[node.key],
        group_name=group_of(node),
        description=description_of(node),
        kinds=KINDS[node.kind],
        owners=owners,
        automation_condition=CHANGED,
    )

"""An asset spec for each node of the graph: key, dependencies, code version, group, description."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import dagster as dg

from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.node import Node

EXPERIMENT_TAG = "fomo/experiment"  # of runs: the experiment or sweep brought up to date
# Where Dagster keeps what it tells stale assets by, where no step of its own brings them.
DATA_VERSION_TAG, CODE_VERSION_TAG = "dagster/data_version", "dagster/code_version"

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


@lru_cache(maxsize=2**15)  # each is asked for a dozen times while definitions load
def key_of(key: str) -> dg.AssetKey:
    """The asset key whose parts `key` joins by `/`."""
    return dg.AssetKey(key.split("/"))


@lru_cache(maxsize=2**15)
def _dependence_on(key: str) -> dg.AssetDep:
    return dg.AssetDep(key_of(key))


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
    present = [key for key in node.follows if key in graph.nodes or key in graph.sources]
    return dg.AssetSpec(
        key_of(node.key),
        deps=[_dependence_on(key) for key in present],
        code_version=graph.code_versions[node.key],
        group_name=node.group or node.experiment,
        description=node.description,
        kinds=set(node.tools),
        owners=owners,
        automation_condition=CHANGED,
    )

"""Packs an experiment's weights after a run, if its `retention` says so.

Each is packed over θ₀, not over the weights that its stage started from. Those are nearer to it,
but of twenty stages the last would take twenty steps to unpack, and each stage would hang on all
before it; docs/store.md says what that costs in bytes. θ₀ is never packed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fomo_dagster.errors import FomoError
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.nodes.merged import DeployedNode
from fomo_dagster.graph.nodes.trained import TrainedNode
from fomo_dagster.graph.run.retention import needed_next, trained_last, waited_for
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import ADAPTERS, WEIGHTS
from fomo_dagster.methods.adapters.declaration import Adapters
from fomo_dagster.progress import ignore_text
from fomo_dagster.releases.records import ReleaseLog, names_of
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.low_rank import LowRank
from fomo_dagster.store.packing import Packing, pack_away
from fomo_dagster.store.places import Address
from fomo_dagster.store.roots import Root

if TYPE_CHECKING:
    from fomo_dagster.methods.declaration import Method


def pack_weights(
    name: str, context: RunContext, waiting: Callable[[str], None] = ignore_text
) -> Packing | None:
    """Pack the weights of an experiment that nothing ahead is made from; None where there is
    nothing to pack.

    Whole stay those of the last stage, what the next one of a growing stream is made from, what is
    live or has an alias, and what anything else needs: see `apply_retention`. Raises as
    `pack_away`.
    """
    experiment, graph = context.graph.experiments[name], context.graph
    last = trained_last(name, graph)
    if not experiment.retention.pack or last is None:
        return None
    whole = waited_for(name, context) | (
        needed_next(experiment, last) if experiment.stream.growing is not None else set()
    )
    going = {
        node.key: node.base_key
        for node in graph.of(name)
        if isinstance(node, TrainedNode | DeployedNode)
        and node.experiment == name and node.stage != last.stage and node.key not in whole
    }  # fmt: skip
    bases = {
        address: base
        for key, base_key in going.items()
        if (address := _address(key, context)) and (base := _address(base_key, context))
        and context.store.folder(*address).is_dir()
    }  # fmt: skip
    if not bases:
        return None
    served = _served(context)

    def gives_up(root: Root) -> bool:
        if root.holder == "release":
            return served is not None and bool(root.addresses) and not root.addresses & served
        return root.name in going

    method = experiment.method
    done = pack_away(
        context.home.root, context.store, bases, WEIGHTS, gives_up, waiting,
        lambda artifact: _low_rank(artifact, method),
    )  # fmt: skip
    return done if done.artifacts else None


def _low_rank(artifact: Artifact, method: Method) -> LowRank | None:
    """What the adapters add that an artifact holds; None without any of low rank."""
    if not isinstance(method, Adapters) or ADAPTERS not in artifact.manifest["files"]:
        return None
    from fomo_dagster.methods.adapters.low_rank import parts_of

    path = artifact.path(ADAPTERS)
    parts = parts_of(path, artifact.path(WEIGHTS), method)
    return LowRank(path, parts) if parts else None


def _address(key: str, context: RunContext) -> Address | None:
    """Where an asset's weights are; None if it was never made."""
    head = context.heads.read(key)
    return None if head is None else head.artifacts.get(ONLY)


def _served(context: RunContext) -> set[Address] | None:
    """The weights that are live under a name, were before, or have an alias; None where records
    cannot be read."""
    found = set()
    try:
        for name in names_of(context.home):
            history = ReleaseLog(context.home, name).read()
            for number in {history.live, *history.aliases.values()} - {None}:
                candidate = history.releases[number].candidate  # type: ignore[index]
                if candidate is not None:
                    found.add(candidate.weights)
    except FomoError:
        return None
    return found

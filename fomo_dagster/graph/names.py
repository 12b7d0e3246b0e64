"""What names say in a project: of experiments, sweeps, and what several experiments share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.graph.node import Node
from fomo_dagster.store.recipes import Recipe, differences


def sweeps_of(loaded: Sequence[Loaded]) -> dict[str, tuple[str, ...]]:
    """Sweep → its experiments. Raises `InputError` where two experiments or sweeps have one name,
    by which alone they are told apart."""
    sweeps: dict[str, tuple[str, ...]] = {}
    for one in loaded:
        if one.sweep is not None:
            sweeps[one.sweep] = (*sweeps.get(one.sweep, ()), one.experiment.name)
    named = Counter([*(one.experiment.name for one in loaded), *sweeps])
    for name, times in named.items():
        if times > 1:
            raise InputError(
                f"{times} experiments or sweeps are called {name!r}: give one another name"
            )
    return sweeps


def check_alike(one: Node, other: Node, owner: str, experiment: str) -> None:
    """Raises `InputError` where two nodes of one key are not the same.

    owner, experiment: the experiments that declare the one and the other.
    """
    old, new = (Recipe(n.kind, n.version, n.declared, {"from": n.inputs}) for n in (one, other))
    changes = differences(old, new)
    if changes:
        what = ", ".join(str(change) for change in changes[:3])
        raise InputError(
            f"experiments {owner!r} and {experiment!r} declare {one.key} differently ({what}): "
            f"give one of them another {_setting_of(one)}"
        )


def _setting_of(node: Node) -> str:
    """The setting that names what experiments share under the node's key."""
    settings = {"streams": "stream.name", "pools": "pool name", "backbones": "backbone.name"}
    named = "validation.name" if node.kind == "validation" else "name"
    return settings.get(node.key.partition("/")[0], named)

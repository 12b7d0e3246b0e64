"""Names in a project: which are taken, and how errors report them.

Names of experiments and sweeps are the first part of asset keys, Dagster's groups, and the names of
jobs. Datasets, streams, pools and backbones share the other folders of keys.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from pathlib import Path

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.comparison import LoadedComparison
from fomo_dagster.experiment.gallery import LoadedGallery
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.graph.core.keys import (
    BACKBONES,
    COMPARISONS,
    DATASETS,
    FEATURES,
    GALLERIES,
    HASHES,
    LEADERBOARD,
    MANIFESTS,
    POOLS,
    RELEASES,
    SHARDS,
    SOURCES,
    STREAMS,
    step_of,
    what_is_made,
)
from fomo_dagster.graph.core.node import Node
from fomo_dagster.store.recipes import Recipe, differences

OBSERVE, GROW, LAUNCH = "observe_sources", "grow_streams", "run_experiment"
PROMOTE, ROLL_BACK = "promote_stage", "roll_back_release"
OBSERVATION, UPDATE, ARRIVALS = "observe_sources_schedule", "update_what_changed", "arrivals"
ANNOUNCE = "announce_failures"
SCHEDULE = "_schedule"  # what the name of an experiment's schedule ends in
TROUBLE = "trouble"  # the second part of the key of what an experiment in trouble shows

FOLDERS = (
    SOURCES, SHARDS, HASHES, FEATURES, STREAMS, POOLS, BACKBONES, COMPARISONS, RELEASES, GALLERIES,
)  # fmt: skip
RESERVED: Mapping[str, str] = {
    **dict.fromkeys(FOLDERS, "a folder of assets"),
    **dict.fromkeys((DATASETS, MANIFESTS), "a group of assets"),
    LEADERBOARD: "an asset",
    **dict.fromkeys((OBSERVE, GROW, LAUNCH, PROMOTE, ROLL_BACK), "a job"),
    OBSERVATION: "a schedule",
    **dict.fromkeys((UPDATE, ARRIVALS, ANNOUNCE), "a sensor"),
}
"""Names that no experiment and no sweep can have → what has them."""
WORDS = frozenset(keyword.kwlist) | {
    "context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict",
    "int", "str", "float", "bool", "input", "output", "type",
}  # fmt: skip
"""Words by which Dagster names no job."""


def job_name(reference: str) -> str:
    """The name of the job of an experiment, a sweep, `comparisons/NAME` or `galleries/NAME`."""
    return reference.replace("/", "_")


class ConflictError(InputError):
    """Two experiments that are valid by themselves cannot coexist."""


class Names:
    """The names that are taken so far."""

    def __init__(self) -> None:
        self.experiments: dict[str, tuple[str, Path]] = {}
        self.keys: dict[str, str] = {}

    def claim(self, loaded: Loaded) -> None:
        """Take the names of an experiment and of its sweep.

        Raises `InputError` for a name that belongs to something else, also if only case tells them
        apart: on some file systems, and in some databases, it does not.
        """
        if loaded.sweep is not None and self._owner(loaded.sweep) != (loaded.sweep, loaded.path):
            self._claim(loaded.sweep, loaded.path)
        self._claim(loaded.experiment.name, loaded.path)

    def claim_job(self, declared: LoadedComparison | LoadedGallery) -> None:
        """Take the name of the job of a comparison or a gallery; raises as `claim`."""
        self._claim(job_name(declared.reference), declared.path)

    def _owner(self, name: str) -> tuple[str, Path] | None:
        return self.experiments.get(name.casefold())

    def _claim(self, name: str, path: Path) -> None:
        what = RESERVED.get(name.casefold()) or (name in WORDS and "nothing in Dagster")
        if what:
            raise InputError(
                f"{path}: no experiment or sweep can be called {name!r}, which is the name of "
                f"{what}: give it another `name`, or rename the file"
            )
        taken = self._owner(name)
        if taken is not None:
            other, there = taken
            alike = "" if other == name else f", and {other!r} differs from it in case alone"
            raise ConflictError(
                f"{path}: two experiments or sweeps are called {name!r}{alike}; the other one is "
                f"in {there}: give one of them another `name`, or rename its file"
            )
        self.experiments[name.casefold()] = (name, path)

    def check_key(self, key: str, experiment: str) -> None:
        """Raises `ConflictError` if an asset's key differs from another one's in case alone, or
        both would be one step of a job."""
        made = what_is_made(key)
        for form, what in ((key.casefold(), key), (step_of(key), made)):
            there = self.keys.setdefault(form, what)
            if there != what:
                raise ConflictError(
                    f"experiment {experiment!r}: the assets {there} and {what} cannot be told "
                    f"apart everywhere (both are {form}): rename one"
                )


def check_alike(one: Node, other: Node, owner: str, experiment: str) -> None:
    """Raises `ConflictError` if two nodes of one key are not the same.

    owner, experiment: the experiments that declare the one and the other.
    """
    old, new = (Recipe(n.kind, n.version, n.declared, {"from": n.inputs}) for n in (one, other))
    changes = differences(old, new)
    if changes:
        what = ", ".join(str(change) for change in changes[:3])
        raise ConflictError(
            f"experiments {owner!r} and {experiment!r} declare {one.key} differently ({what}): "
            f"give one of them another {_setting_of(one)}"
        )


def _setting_of(node: Node) -> str:
    """The setting that names what experiments share under the node's key."""
    settings = {STREAMS: "stream.name", POOLS: "pool name", BACKBONES: "backbone.name"}
    named = "validation.name" if node.kind == "validation" else "name"
    return settings.get(node.key.partition("/")[0], named)

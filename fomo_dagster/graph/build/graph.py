"""The graph of nodes that experiments need, as `builder` makes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from fomo_dagster.experiment.experiment_sets import Trouble
from fomo_dagster.experiment.gallery import LoadedGallery
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.graph.build.declared_comparisons import needs
from fomo_dagster.graph.build.declared_releases import release_keys
from fomo_dagster.graph.core.context import SourceNode
from fomo_dagster.graph.core.keys import LEADERBOARD, order_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.comparison import ComparisonNode, OfComparison
from fomo_dagster.graph.nodes.gallery import GalleryNode
from fomo_dagster.graph.nodes.report import ReportNode


@dataclass(frozen=True)
class Graph:
    """Nodes, each after those that it needs."""

    sources: Mapping[str, SourceNode]
    nodes: Mapping[str, Node]
    code_versions: Mapping[str, str]
    experiments: Mapping[str, Experiment]
    growing: Mapping[str, Path] = field(default_factory=dict)
    """Experiment → the folder that its stream grows in."""
    sweeps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sweep → its experiments."""
    owners: Mapping[str, Loaded | LoadedGallery] = field(default_factory=dict)
    """Node → the experiment or gallery that brought it, from which alone it can be built again."""
    loaded: Mapping[str, Loaded] = field(default_factory=dict)
    """Experiment → all that its file says."""
    troubles: tuple[Trouble, ...] = ()
    """The experiments, comparisons and galleries that cannot be part of it, and why."""
    wrong_datasets: tuple[str, ...] = ()
    """What is wrong with declarations of the project's datasets."""

    def of(self, *experiments: str) -> list[Node]:
        """The nodes that experiments need, their streams' order and the leaderboard with them, the
        comparisons that are about no other experiments, and the galleries that follow what they
        release."""
        streams = (order_key(self.experiments[name].stream_name) for name in experiments)
        released = [self.experiments[name].release for name in experiments]
        names = {release.name for release in released if release is not None}
        wanted: set[str] = {LEADERBOARD, *streams}
        wanted.update(release_keys(self.experiments[name] for name in experiments))
        for one in self.of_comparisons:
            if not set(one.experiments).difference(experiments):
                wanted.add(one.key)
        for gallery in self.galleries.values():
            if gallery.gallery.release in names:
                wanted.update(gallery.keys)
        wanted.update(key for name in experiments for key in self._by_experiment.get(name, ()))
        found, left = set[str](), list(wanted)
        while left:
            key = left.pop()
            if key not in found and key in self.nodes:
                found.add(key)
                if key != LEADERBOARD:
                    left += self.nodes[key].inputs
        return [self.nodes[key] for key in sorted(found, key=self._places.__getitem__)]

    @cached_property
    def _by_experiment(self) -> dict[str, list[str]]:
        """Experiment → the keys of the nodes that are its own."""
        found: dict[str, list[str]] = {}
        for key, node in self.nodes.items():
            if node.experiment is not None:
                found.setdefault(node.experiment, []).append(key)
        return found

    @cached_property
    def _places(self) -> dict[str, int]:
        """Node → its place in their order."""
        return {key: place for place, key in enumerate(self.nodes)}

    def of_gallery(self, key: str) -> list[Node]:
        """The nodes that a gallery needs, without what goes live."""
        gallery = self.galleries[key]
        wanted = {*gallery.keys, *gallery.inputs}
        return [node for node in self.nodes.values() if node.key in wanted]

    @cached_property
    def galleries(self) -> dict[str, GalleryNode]:
        """Those that it has, by their keys."""
        nodes = self.nodes.values()
        return {node.key: node for node in nodes if isinstance(node, GalleryNode)}

    @cached_property
    def comparisons(self) -> dict[str, ComparisonNode]:
        """Those that it has, by their keys."""
        nodes = self.nodes.values()
        return {node.key: node for node in nodes if isinstance(node, ComparisonNode)}

    @cached_property
    def reports(self) -> dict[str, ReportNode]:
        """The pages of comparisons, by the keys of these."""
        nodes = self.nodes.values()
        return {node.comparison_key: node for node in nodes if isinstance(node, ReportNode)}

    @cached_property
    def of_comparisons(self) -> list[OfComparison]:
        """All that is made for files of `comparisons/`."""
        return [*self.comparisons.values(), *self.reports.values()]

    def only(self, experiments: Collection[str], galleries: Collection[str]) -> Graph:
        """The graph of these experiments and galleries, and of what they need. Its leaderboard and
        its releases are about all others, too: make them by the whole graph."""
        experiments = self.experiments.keys() & experiments
        wanted = {node.key for node in self.of(*experiments)}
        wanted.update(node.key for key in galleries for node in self.of_gallery(key))
        nodes = {key: node for key, node in self.nodes.items() if key in wanted}
        needed = {key for node in nodes.values() for key in node.follows}
        sweeps = {
            sweep: tuple(name for name in names if name in experiments)
            for sweep, names in self.sweeps.items()
        }
        return replace(
            self,
            sources={key: one for key, one in self.sources.items() if key in needed},
            nodes=nodes,
            experiments={n: one for n, one in self.experiments.items() if n in experiments},
            growing={n: folder for n, folder in self.growing.items() if n in experiments},
            sweeps={sweep: names for sweep, names in sweeps.items() if names},
            loaded={n: one for n, one in self.loaded.items() if n in experiments},
        )

    def without(self, trouble: Trouble) -> Graph:
        """The graph without what turned out to be in trouble: a comparison, or an experiment's own
        nodes and the comparisons that are about it."""
        name = trouble.name
        lost = [
            one for one in self.of_comparisons if name in (one.loaded.reference, *one.experiments)
        ]
        return replace(
            self,
            nodes={
                key: node
                for key, node in self.nodes.items()
                if name != node.experiment and node not in lost
            },
            experiments={n: one for n, one in self.experiments.items() if n != name},
            loaded={n: one for n, one in self.loaded.items() if n != name},
            sweeps={s: tuple(n for n in names if n != name) for s, names in self.sweeps.items()},
            troubles=(
                *self.troubles,
                trouble,
                *(
                    Trouble(one.loaded.reference, one.loaded.path, needs(one.loaded, name, trouble))
                    for one in lost
                    if isinstance(one, ComparisonNode) and one.key != name
                ),
            ),
        )

"""What trackers are sent of a graph: the numbers that its assets state in the tables.

A run is an experiment, or a backbone that is pretrained. Scores of concepts are not sent, because
they would be thousands of series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.backbone import BackboneNode
from fomo_dagster.graph.nodes.release import ReleaseNode
from fomo_dagster.home import Home
from fomo_dagster.parquet import read_parquet
from fomo_dagster.releases.registering import registered_model
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.heads import Head
from fomo_dagster.tables.files import table_path
from fomo_dagster.tables.intact import Verified
from fomo_dagster.trackers.choosing import named_by_environment, open_trackers, registries_of
from fomo_dagster.trackers.sending import Trackers
from fomo_dagster.trackers.tracker import Entry, Point, Run

if TYPE_CHECKING:
    from fomo_dagster.graph.build.graph import Graph

STEPS = "training_steps"


@dataclass(frozen=True)
class Tracking:
    """Lets the trackers follow what is made of a graph. A tracker's failure fails nothing here."""

    graph: Graph
    home: Home
    trackers: Trackers
    warn: Callable[[str], None]
    _runs: dict[str, Run | None] = field(default_factory=dict)
    """By the asset that they are told of at every step."""

    def steps(self, asset: str, digest: str, rows: Sequence[Mapping[str, float]]) -> None:
        """Steps of a training that goes on; see `progress.Steps`."""
        node = self.graph.nodes[asset]
        run = self._run_of(node)
        if run is not None:
            entry = _steps_entry(asset, node.stage or 0, digest, rows)
            self.trackers.send(run, lambda: [entry], self.warn)

    def finished(self, head: Head) -> None:
        """An asset was materialised. With an experiment's scores, everything its other assets state
        is sent that was not sent yet."""
        node = self.graph.nodes[head.asset]
        run = self._run_of(node)
        if isinstance(node, ReleaseNode):
            self._register(node.name)
        if node.ends_experiment and node.experiment is not None:
            self.catch_up(node.experiment)
        elif run is not None:
            self.trackers.send(run, partial(_entries_of, head, self.home), self.warn)

    def catch_up(self, experiment: str) -> None:
        """Send all that the tables hold of an experiment as it is declared now, and what happened
        to its release name."""
        release = self.graph.experiments[experiment].release
        if release is not None:
            self._register(release.name)
        for node in self.graph.of(experiment):
            run = self._run_of(node)
            if run is not None:
                self.trackers.send(run, partial(self._held, node.key), self.warn)

    def _register(self, name: str) -> None:
        self.trackers.register(name, partial(registered_model, self.home, name), self.warn)

    def _held(self, asset: str) -> Iterator[Entry]:
        head = self.home.heads.read(asset)
        if head is not None and head.code_version == self.graph.code_versions[asset]:
            yield from _entries_of(head, self.home)

    def _run_of(self, node: Node) -> Run | None:
        if not self.trackers:
            return None
        if node.key not in self._runs:
            self._runs[node.key] = self._new_run(node)
        return self._runs[node.key]

    def _new_run(self, node: Node) -> Run | None:
        if node.experiment is not None:
            experiment = self.graph.experiments[node.experiment]
            return Run(node.experiment, experiment.model_dump(mode="json"))
        if isinstance(node, BackboneNode) and STEPS in node.table_names:
            return Run(node.key, node.backbone.model_dump(mode="json"))
        return None


@contextmanager
def registering(home: Home, warn: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """Within it, a release name that moved is told to the trackers of the environment that register
    releases; at its end they have it, or `warn` was told why not.

    Raises `InputError` at once for a tracker that there is not, or that is not installed.
    """
    trackers = open_trackers(registries_of(named_by_environment()), home.root)
    try:
        yield lambda name: trackers.register(name, partial(registered_model, home, name), warn)
    finally:
        trackers.close(warn)


def _entries_of(head: Head, home: Home) -> Iterator[Entry]:
    """What an asset states, from the tables and from what it cost."""
    stage, name = head.stage or 0, _name_of(head.asset)
    steps = _rows(head, STEPS, home)
    if steps:
        yield _steps_entry(head.asset, stage, head.digest, steps)
    # A stage's scores may stay as they are where others change, as when a stream grows.
    for row in _rows(head, "scores", home):
        figures = {k: v for k, v in row.items() if k not in ("experiment", "stage")}
        yield Entry(
            f"{name}/{row['stage']}",
            digest_of(figures),
            tuple(
                Point(f"scores/{figure}", row["stage"], value)
                for figure, value in figures.items()
                if value is not None
            ),
        )
    points = [
        Point(f"evaluation/{row['dataset']}/{row['metric']}".replace("@", "_at_"), stage, value)
        for row in _rows(head, "evaluations", home)
        if (value := row["value"]) is not None
    ]
    points += [
        Point(f"cost/{head.kind}/{figure}", stage, float(value))
        for figure, value in head.cost.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if head.kind != "scores":
        yield Entry(name, head.digest, tuple(points), {f"digests/{name}": head.digest})


def _steps_entry(asset: str, stage: int, digest: str, rows: Sequence[Mapping[str, Any]]) -> Entry:
    return Entry(
        f"{_name_of(asset)}/steps",
        digest,
        tuple(
            Point(f"stage_{stage:03d}/{figure}", int(row["step"]), value)
            for row in rows
            for figure, value in row.items()
            if figure not in ("experiment", "stage", "step") and value is not None
        ),
    )


def _rows(head: Head, table: str, home: Home) -> list[dict[str, Any]]:
    if head.tables is None or table not in head.tables:
        return []
    if Verified(home.root).problem(head, table) is not None:
        return []  # the next run writes it again, and sends it
    return read_parquet(table_path(home.root, table, head.asset, head.digest)).to_dicts()


def _name_of(asset: str) -> str:
    return asset.rpartition("/")[2]

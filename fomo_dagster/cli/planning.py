"""Planning an experiment from the command line, and printing the plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fomo_dagster.cli.bars import Bars, shortened
from fomo_dagster.cli.output import Terminal, cell, say
from fomo_dagster.cli.rows import LEAST_NAME, has_edge, print_table
from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.experiment.comparison import comparison_files
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.experiment.experiment_sets import ExperimentSet
from fomo_dagster.experiment.files import experiment_files
from fomo_dagster.experiment.gallery import gallery_files
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.unread import unread
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.build.names import ConflictError, job_name
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.comparison import ComparisonNode
from fomo_dagster.graph.nodes.gallery import GalleryNode
from fomo_dagster.graph.nodes.gallery_drift import GalleryDriftNode
from fomo_dagster.graph.nodes.gallery_index import GalleryIndexNode
from fomo_dagster.graph.nodes.leaderboard import LeaderboardNode
from fomo_dagster.graph.nodes.report import ReportNode
from fomo_dagster.graph.run.plan import REASONS_SHOWN, Planned, plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home, project_folder
from fomo_dagster.progress import Callbacks
from fomo_dagster.units import counted, duration

logger = logging.getLogger(__name__)

PLAN_COLUMNS = ("asset", "plan", "why", "samples", "estimate")
LEAST_REASON = 24  # characters of a reason on a line
_AFTER = {
    kind.kind
    for kind in (
        ComparisonNode, ReportNode, LeaderboardNode, GalleryNode, GalleryIndexNode,
        GalleryDriftNode,
    )
}  # fmt: skip
"""The kinds of assets that are made of what several experiments have, or release."""


@dataclass(frozen=True)
class RunRequest:
    """An experiment, a sweep, a comparison or a gallery, read, with the graph of what it needs."""

    experiment_set: ExperimentSet
    graph: Graph
    home: Home

    @property
    def is_in_project(self) -> bool:
        """Whether its file is one of those that Dagster loads."""
        project = project_folder()
        files = (
            *experiment_files(project).values(), *comparison_files(project).values(),
            *gallery_files(project).values(),
        )  # fmt: skip
        return self.experiment_set.path.resolve() in [path.resolve() for path in files]

    @property
    def experiment(self) -> Experiment:
        """The experiment; `InputError` where there are several."""
        return self.experiment_set.only().experiment

    @property
    def name(self) -> str:
        """Its own, in Dagster's words."""
        return job_name(self.experiment_set.name)

    @property
    def job(self) -> str:
        """The name of Dagster's job. An experiment of a sweep is part of the sweep's."""
        return self.experiment_set.sweep or self.name

    @property
    def comparison(self) -> ComparisonNode | None:
        """The comparison that it is of; None if it is of none."""
        if self.experiment_set.comparison is None:
            return None
        return self.graph.comparisons[self.experiment_set.name]

    @property
    def report(self) -> ReportNode | None:
        """The page of the comparison that it is of; None where it is of none that has one."""
        return self.graph.reports.get(self.experiment_set.name)

    @property
    def gallery(self) -> GalleryNode | None:
        """The gallery that it is; None where it is of experiments."""
        if self.experiment_set.gallery is None:
            return None
        return self.graph.galleries[self.experiment_set.name]

    def check_whole(self) -> None:
        """Raises `InputError` where some experiments of a sweep cannot be used."""
        if self.experiment_set.troubles:
            said = "\n".join(
                f"  {one.name}: {one.sentence}" for one in self.experiment_set.troubles
            )
            count = len(self.experiment_set.troubles)
            raise InputError(
                f"{self.experiment_set.name}: {count} of {len(self.experiment_set.all_names)} "
                f"experiments cannot be used\n{said}"
            )

    @property
    def nodes(self) -> list[Node]:
        """The nodes that the experiments need, what compares them alone, and the leaderboard; or
        those that the gallery needs."""
        if self.gallery is not None:
            return self.graph.of_gallery(self.gallery.key)
        return self.graph.of(*self.experiment_set.names)

    def each(self) -> list[RunRequest]:
        """The experiments one by one, over the same graph."""
        whole = replace(self.experiment_set, troubles=(), comparison=None)
        return [
            replace(self, experiment_set=replace(whole, members=(member,)))
            for member in self.experiment_set.members
        ]

    def plan(self, but: Container[str] = ()) -> list[Planned]:
        """A first look at large sources takes its time, and shows how far it is.

        but: keys that are left as they are.
        """
        with Bars(Terminal(stderr=True)) as bars:
            callbacks = Callbacks(progress=bars, warn=warn_once)
            nodes = [node for node in self.nodes if node.key not in but]
            return plan(nodes, RunContext(self.graph, self.home, callbacks=callbacks))


_said: set[str] = set()
_saying = Lock()


def warn_once(warning: str, say: Callable[[str], None] = logger.warning) -> None:
    """A command plans and looks again and again, and says the same thing once."""
    with _saying:
        is_new = warning not in _said
        _said.add(warning)
    if is_new:
        say(warning)


def resolve_request(name_or_path: str, overrides: Sequence[str]) -> RunRequest:
    """Read an experiment, a sweep, a comparison or a gallery, and build the project's graph with
    it.

    The others are there for the leaderboard. One that cannot be used is left out, and said; one
    that cannot stand beside what `overrides` make of this one is left out. Raises `InputError`
    where nothing of this one can be used, or not all that a comparison is about.
    """
    project = project_folder()
    experiment_set = load_named(name_or_path, project, overrides)
    graph = build_project(project, experiment_set)
    members = tuple(m for m in experiment_set.members if m.experiment.name in graph.experiments)
    own = [trouble for trouble in graph.troubles if trouble.loaded in experiment_set.members]
    whole = experiment_set.comparison or experiment_set.gallery
    if whole is not None and whole.reference not in graph.nodes:
        raise next(one.error for one in graph.troubles if one.name == whole.reference)
    if not members and experiment_set.gallery is None:
        error, path = own[0].error, own[0].path
        raise error if str(path) in str(error) else type(error)(f"{path}: {error}")
    say_unread(graph)
    say_troubles(graph, but=ConflictError if overrides else ())
    experiment_set = replace(
        experiment_set, members=members, troubles=(*experiment_set.troubles, *own)
    )
    return RunRequest(experiment_set, graph, Home.from_environment())


def shown_in_ui(names_or_paths: Sequence[str]) -> list[str]:
    """What the UI shall show alone, as its processes are told. Raises `InputError` for what the
    project does not have."""
    for one in names_or_paths:
        if not resolve_request(one, []).is_in_project:
            raise InputError(
                f"{one} does not lie in {project_folder() / 'experiments'} itself, nor in "
                "comparisons/ or galleries/ beside it, which is what the UI shows: copy it there"
            )
    return [str(Path(one).resolve()) if Path(one).is_file() else one for one in names_or_paths]


def say_troubles_of_project() -> None:
    """As `say_troubles`, for commands that need no graph of the whole project."""
    say_troubles(build_project(project_folder()))


def say_troubles(graph: Graph, but: type[FomoError] | tuple[()] = ()) -> None:
    """A line for everything of the project that cannot be used. but: errors that are expected."""
    for trouble in graph.troubles:
        if not isinstance(trouble.error, but):
            warn_once(f"{trouble.called} is left out: {trouble.sentence}")
    for said in graph.wrong_datasets:
        warn_once(f"a dataset is left out: {said}")


def say_unread(graph: Graph) -> None:
    """A line for what lies among the project's declarations and is not read."""
    for sentence in unread(project_folder(), list(graph.loaded.values())):
        warn_once(sentence)


def plan_as_data(planned: Sequence[Planned]) -> dict[str, Any]:
    """The plan as JSON data: counts, total estimate and the assets."""
    return {
        "compute": sum(entry.status == "compute" for entry in planned),
        "hits": sum(entry.status == "hit" for entry in planned),
        "estimated_seconds": total_seconds(planned),
        "assets": [{"status": entry.status, **asdict(entry)} for entry in planned],
    }


def print_plan(
    planned: Sequence[Planned], experiment_set: ExperimentSet, console: Console | None = None
) -> None:
    """A line for each asset, of a sweep or a comparison one for each of its experiments; what it
    comes to.

    On a terminal too narrow for them, names are cut in their middle, and reasons take more lines.
    """
    console = console or Terminal()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in PLAN_COLUMNS:
        right = column in ("samples", "estimate")
        table.add_column(
            column, justify="right" if right else "left", no_wrap=column != "why", overflow="fold"
        )
    is_one = experiment_set.sweep is None and experiment_set.comparison is None  # or a gallery
    entries = planned if is_one else _by_experiment(planned, experiment_set)
    rows = [_row(entry) for entry in entries]
    for asset, work, *others in rows:
        name = cell(asset).plain
        if has_edge(console):
            name = shortened(name, max(LEAST_NAME, console.width - _width_beside(rows)))
        style = "yellow" if work.startswith("compute") else "green"
        table.add_row(Text(name), Text(work, style), *map(cell, others))
    print_table(table, console)
    computed = sum(entry.status == "compute" for entry in planned)
    total = total_seconds(planned)
    estimate = f", about {duration(total)}" if total is not None and computed else ""
    say(console, f"{computed} to compute, {counted(len(planned) - computed, 'hit')}{estimate}")


def _row(entry: Planned) -> tuple[str, ...]:
    """The values of PLAN_COLUMNS."""
    reasons = list(entry.reasons[:REASONS_SHOWN])
    if more := len(entry.reasons) - len(reasons):
        reasons.append(f"and {more} more")
    if entry.status != "compute":
        return entry.asset, "hit", "; ".join(reasons), "", ""
    parts = f" {len(entry.compute)} of {len(entry.compute) + len(entry.hits)}" * bool(entry.hits)
    seconds = entry.estimated_seconds
    return (
        entry.asset,
        f"compute{parts}",
        "; ".join(reasons),
        f"{entry.samples:,}" if entry.samples else "",
        "?" if seconds is None else duration(seconds),
    )


def _width_beside(rows: Sequence[Sequence[str]]) -> int:
    """What the columns beside the names take at least, the gaps with them."""
    widths = [max(map(len, column)) for column in zip(PLAN_COLUMNS, *rows, strict=True)]
    return min(widths[2], LEAST_REASON) + widths[1] + sum(widths[3:]) + 2 * (len(widths) - 1)


def _by_experiment(planned: Sequence[Planned], experiment_set: ExperimentSet) -> list[Planned]:
    """The plan of several experiments, the assets of each in one entry under its short name."""
    of: dict[str, list[Planned]] = {name: [] for name in experiment_set.names}
    before: list[Planned] = []
    after: list[Planned] = []
    for entry in planned:
        follows = entry.kind in _AFTER
        shared = after if follows else before
        of.get(entry.asset.partition("/")[0], shared).append(entry)
    folded = [
        Planned(
            asset=experiment_set.ending(name),
            kind="experiment",
            stage=None,
            compute=tuple(entry.asset for entry in entries if entry.compute),
            hits=tuple(entry.asset for entry in entries if not entry.compute),
            current=all(entry.current for entry in entries),
            reasons=tuple(dict.fromkeys(reason for entry in entries for reason in entry.reasons)),
            samples=sum(entry.samples or 0 for entry in entries),
            estimated_seconds=total_seconds(entries),
        )
        for name, entries in of.items()
    ]
    return [*before, *folded, *after]


def total_seconds(planned: Sequence[Planned]) -> float | None:
    """Seconds of everything, or None while nothing was ever computed of some kind."""
    seconds = [entry.estimated_seconds for entry in planned if entry.compute]
    known = [s for s in seconds if s is not None]
    return sum(known) if len(known) == len(seconds) else None

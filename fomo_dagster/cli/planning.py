"""Planning an experiment from the command line, and printing the plan."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from fomo_dagster.cli.bars import Bars
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.loading import Loaded, experiment_files, load_experiment
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.graph.build import Graph, build_graph
from fomo_dagster.graph.node import Node
from fomo_dagster.graph.plan import REASONS_SHOWN, Planned, plan
from fomo_dagster.graph.workshop import Workshop
from fomo_dagster.home import Home, project_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Undertaking:
    """An experiment, read, with the graph of what it needs."""

    loaded: Loaded
    graph: Graph
    home: Home

    @property
    def experiment(self) -> Experiment:
        return self.loaded.experiment

    @property
    def nodes(self) -> list[Node]:
        """The nodes that the experiment needs, and the leaderboard."""
        return self.graph.of(self.experiment.name)

    def plan(self) -> list[Planned]:
        """A first look at large sources takes its time, and shows how far it is."""
        with Bars(Console(stderr=True)) as bars:
            return plan(self.nodes, Workshop(self.graph, self.home, progress=bars, warn=warn_once))


_said: set[str] = set()


def warn_once(warning: str, say: Callable[[str], None] = logger.warning) -> None:
    """A command plans and looks again and again, and says the same thing once."""
    if warning not in _said:
        _said.add(warning)
        say(warning)


def undertake(name_or_path: str, overrides: Sequence[str]) -> Undertaking:
    """Read an experiment and build the project's graph with it.

    The others are there for the leaderboard. One whose file is wrong is left out, and said. Where
    they cannot stand beside this one, as when `overrides` change something that it shares with
    them, their scores alone are shown; without overrides it is said why.
    """
    project = project_folder()
    loaded = load_experiment(name_or_path, project, overrides)
    others = []
    for name, path in experiment_files(project).items():
        try:
            other = load_experiment(str(path), project)
        except InputError as error:
            logger.warning("%s is left out of the leaderboard: %s", name, error)
            continue
        if other.experiment.name != loaded.experiment.name:
            others.append(other)
    try:
        graph = build_graph([loaded, *others])
    except InputError as error:
        graph = build_graph([loaded], beside=[other.experiment.name for other in others])
        if not overrides:
            logger.warning("Dagster cannot load the experiments together: %s", error)
    return Undertaking(loaded, graph, Home.from_environment())


def plan_experiment(name_or_path: str, overrides: Sequence[str]) -> list[Planned]:
    """The plan of an experiment's assets, the leaderboard last."""
    return undertake(name_or_path, overrides).plan()


def plan_as_data(planned: Sequence[Planned]) -> dict[str, Any]:
    """The plan as JSON data: counts, total estimate and the assets."""
    return {
        "compute": sum(entry.status == "compute" for entry in planned),
        "hits": sum(entry.status == "hit" for entry in planned),
        "estimated_seconds": _total(planned),
        "assets": [{"status": entry.status, **asdict(entry)} for entry in planned],
    }


def print_plan(planned: Sequence[Planned]) -> None:
    """A line for each asset to be computed; hits in one line a kind."""
    console = Console(highlight=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("asset", "plan", "why", "samples", "estimate"):
        table.add_column(column, justify="right" if column in ("samples", "estimate") else "left")
    for entry in planned:
        compute = entry.status == "compute"
        detail = ""
        if compute and entry.hits:
            detail = f" {len(entry.compute)} of {len(entry.compute) + len(entry.hits)}"
        reasons = entry.reasons[:REASONS_SHOWN]
        more = len(entry.reasons) - len(reasons)
        table.add_row(
            entry.asset,
            f"[yellow]compute{detail}[/]" if compute else "[green]hit[/]",
            "; ".join(reasons) + (f"; and {more} more" if more else ""),
            f"{entry.samples:,}" if compute and entry.samples else "",
            _duration(entry.estimated_seconds) if compute else "",
        )
    console.print(table)
    computed = sum(entry.status == "compute" for entry in planned)
    total = _total(planned)
    estimate = f", about {_duration(total)}" if total is not None and computed else ""
    console.print(f"{computed} to compute, {len(planned) - computed} hits{estimate}")


def _total(planned: Sequence[Planned]) -> float | None:
    """Seconds of everything, or None while nothing was ever computed of some kind."""
    seconds = [entry.estimated_seconds for entry in planned if entry.compute]
    known = [s for s in seconds if s is not None]
    return sum(known) if len(known) == len(seconds) else None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"

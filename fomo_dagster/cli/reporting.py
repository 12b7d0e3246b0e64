"""Printing tables for people."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import polars as pl
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fomo_dagster.cli.output import Terminal, cell, line, say
from fomo_dagster.errors import StoreError
from fomo_dagster.graph.build.builder import Graph
from fomo_dagster.graph.core.keys import LEADERBOARD
from fomo_dagster.graph.nodes.scores import HEAT_MAP, PATHS
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.tables.database import ensure_database
from fomo_dagster.tables.results import Results, results

WIDEST = 100_000  # characters of a line

logger = logging.getLogger(__name__)

SHORT = {metric.name: metric.label for metric in STAGE_METRICS} | {
    f"mean_{metric.name}": f"mean {metric.label}" for metric in STAGE_METRICS
}
LEFT_TO_QUERIES = (
    "asset", "asset_digest", "mean_knowledge_accumulation", "mean_zero_shot_retention", "samples",
)  # fmt: skip


def print_scores(found: Results, console: Console | None = None) -> None:
    """The scores stage by stage and the leaderboard, under their short names, in 80 columns."""
    board = whole_seconds(found.leaderboard)
    for title, frame in (("Stages", found.stages), ("Leaderboard", board)):
        shown = frame.drop(LEFT_TO_QUERIES, strict=False)
        print_frame(shown.rename(SHORT, strict=False), title, console)


def whole_seconds(board: pl.DataFrame) -> pl.DataFrame:
    """A leaderboard without fractions of seconds."""
    return board.with_columns(pl.col("seconds").round().cast(pl.Int64))


def print_by_dataset(frame: pl.DataFrame, console: Console | None = None) -> None:
    """Each experiment's scores by dataset (`results_by_dataset`), in 80 columns."""
    for name in frame["experiment"].unique(maintain_order=True):
        rows = frame.filter(experiment=name)
        shown = rows.select(
            "dataset", pl.col("role").str.replace("_", " "), "score",
            pl.col("zero_shot").alias("θ₀"), "published", "difference",
        )  # fmt: skip
        print_frame(shown, f"{name}, stage {max(rows['stage'])}", console)


def print_by_cost(frame: pl.DataFrame, console: Console | None = None) -> None:
    """The scores of stages beside what they took (`scores_by_cost`); large numbers in short."""
    cost = frame.columns[-1]
    shown = frame.with_columns(
        pl.col(cost).map_elements("{:.6g}".format, return_dtype=pl.String)
    )  # fmt: skip
    print_frame(shown.rename(SHORT, strict=False), f"GM against {cost}", console)


def print_frame(
    frame: pl.DataFrame,
    title: str | None = None,
    console: Console | None = None,
    fractions: str = ".2f",
    numbers: Collection[str] = (),
) -> None:
    """A frame as a table; whole numbers as they are, others in the form of `fractions`.

    numbers: columns that hold numbers as texts. A table that is wider than the terminal goes past
    its edge, a row a line, rather than broken within cells.
    """
    table = Table(
        title=None if title is None else line(title), title_justify="left", title_style="bold",
        header_style="bold", box=None,
    )  # fmt: skip
    for name, dtype in frame.schema.items():
        right = dtype.is_numeric() or name in numbers
        table.add_column(cell(name), justify="right" if right else "left", no_wrap=True)
    for row in frame.rows():
        table.add_row(*(_cell(value, fractions) for value in row))
    console = console or Terminal()
    room = console.width
    natural = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    console.width = max(room, natural)
    try:
        console.print(table, crop=False)
    finally:
        console.width = room


def print_results(home: Home, experiment: str, graph: Graph, console: Console) -> None:
    """The scores of an experiment stage by stage, the leaderboard, and where everything is."""
    stages = results(home.root, [experiment]).stages
    print_scores(Results(stages, results(home.root).leaderboard), console)
    context = RunContext(graph, home)
    scores, leaderboard = (context.artifact(k) for k in (f"{experiment}/scores", LEADERBOARD))
    plots = scores.record(PATHS), scores.record(HEAT_MAP), leaderboard.record(PATHS)
    there = [str(plot) for plot in plots if plot is not None]
    say(console, "\nplots   " + "\n        ".join(there or ["none"]))
    try:
        place = ensure_database(home.root)
    except StoreError as error:  # other programs need it, and this one does not
        logger.warning("%s", error)
        place = home.root / "tables"
    say(console, f'tables  {place}   (fomo sql "SELECT * FROM scores")')
    say(console, "UI      fomo ui")


def _cell(value: Any, fractions: str) -> Text:
    return cell(f"{value:{fractions}}" if isinstance(value, float) else value)

"""Printing tables for people."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import polars as pl
from rich.console import Console

from fomo_dagster.cli.output import Terminal, say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import StoreError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.keys import LEADERBOARD
from fomo_dagster.graph.nodes.candidate import CandidateNode
from fomo_dagster.graph.nodes.summaries.scores import HEAT_MAP, PATHS
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.releases.files import released_files
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.tables.database import ensure_database
from fomo_dagster.tables.replicates import SCORES as MEAN_SCORES
from fomo_dagster.tables.replicates import chances_as_text, methods, run_otherwise
from fomo_dagster.tables.results import Results, chances, results
from fomo_dagster.tables.views import at_one_moment
from fomo_dagster.units import duration, in_units

logger = logging.getLogger(__name__)

TIME = "time"
MOST_CHANCES = 3  # that are said
SINGLE = "one run each: how much other seeds would change is unknown (`replicates: 5` in the file)"
SHORT = {metric.name: metric.label for metric in STAGE_METRICS} | {
    f"mean_{metric.name}": f"mean {metric.label}" for metric in STAGE_METRICS
}
LEFT_TO_QUERIES = (
    "asset", "asset_digest", "mean_knowledge_accumulation", "mean_zero_shot_retention", "samples",
)  # fmt: skip


def print_scores(found: Results, console: Console | None = None) -> None:
    """The scores stage by stage and the leaderboard, under their short names, in 80 columns."""
    console = console or Terminal()
    if found.stages.is_empty():
        say(console, "No experiment has scores yet: `fomo run EXPERIMENT` computes them.")
        return
    for title, frame in (("Stages", found.stages), ("Leaderboard", found.leaderboard)):
        print_frame(as_shown(frame), title, console, numbers=(TIME,))
    say_units(console)


def print_methods(home: Home, experiments: Sequence[str], console: Console) -> None:
    """The means over replicates, with the half widths of their intervals; where all are single
    runs, and no replicate by itself, that these are unknown. Those that were run with other
    settings have no mean, which is said."""
    found, refused = means_there(home, experiments)
    if found["replicates"].max() not in (None, 1):
        _print_means(found, console)
    elif found.height and not refused and {*found["method"]} <= {*(experiments or found["method"])}:
        say(console, SINGLE)
    for name, why in refused.items():
        say(console, f"no mean of {name}: {why}")


def means_there(home: Home, experiments: Sequence[str]) -> tuple[pl.DataFrame, dict[str, str]]:
    """`methods` without those that have no mean, and why these have none."""
    found = methods(home.root, experiments)
    several = found.filter(pl.col("replicates") > 1)["method"]
    otherwise = run_otherwise(home.root) if several.len() else {}
    refused = {name: otherwise[name] for name in several if name in otherwise}
    return found.filter(~pl.col("method").is_in(list(refused))), refused


def _print_means(found: pl.DataFrame, console: Console) -> None:
    shown = found.select(
        "method",
        pl.col("replicates").alias("n"),
        *(
            pl.struct(name, f"{name}_within")
            .map_elements(_with_interval, return_dtype=pl.String)
            .alias(SHORT[name])
            for name in MEAN_SCORES
        ),
    )
    labels = [SHORT[name] for name in MEAN_SCORES]
    title = "Methods: mean ± half of the 95 % interval over n replicates"
    print_frame(shown, title, console, numbers=labels, narrow="method")


def _with_interval(row: Mapping[str, float | None]) -> str:
    mean, within = row.values()
    if mean is None:
        return ""
    return f"{mean:.2f}" if within is None else f"{mean:.2f} ± {within:.2f}"


def as_shown(scores: pl.DataFrame) -> pl.DataFrame:
    """Rows of scores for people: short names, and what they took as a duration."""
    if "seconds" in scores.columns:
        scores = scores.with_columns(pl.col("seconds").map_elements(duration, pl.String))
    shown = scores.drop(LEFT_TO_QUERIES, strict=False)
    return shown.rename({**SHORT, "seconds": TIME}, strict=False)


def say_units(console: Console) -> None:
    """What the scores are numbers of."""
    units = dict.fromkeys(metric.unit for metric in STAGE_METRICS)
    said = (
        f"{', '.join(metric.label for metric in STAGE_METRICS if metric.unit == unit)} in {unit}"
        for unit in units
    )
    say(console, "; ".join(said))


def say_chances(home: Home, experiments: Sequence[str], console: Console) -> None:
    """What guessing would score; once where it is the same for all."""
    rows = chances(home.root, experiments)
    by_said: dict[str, list[str]] = {}
    for row in rows.iter_rows(named=True):
        if said := chances_as_text(row):
            by_said.setdefault(said, []).append(row["experiment"])
    if len(by_said) > MOST_CHANCES:
        say(console, 'guessing scores otherwise for each: fomo sql "FROM chances"')
        return
    for said, names in by_said.items():
        whose = f" ({', '.join(names)})" if len(by_said) > 1 else ""
        say(console, f"guessing scores {said}{whose}")


def print_by_dataset(frame: pl.DataFrame, console: Console | None = None) -> None:
    """Each experiment's scores by dataset (`results_by_dataset`), in 80 columns."""
    for name in frame["experiment"].unique(maintain_order=True):
        rows = frame.filter(experiment=name)
        shown = rows.select(
            "dataset", pl.col("role").str.replace("_", " "), "score",
            pl.col("zero_shot").alias("θ₀"), "chance", "published", "difference",
        )  # fmt: skip
        print_frame(shown, f"{name}, stage {max(rows['stage'])}, in %", console, narrow="dataset")


def print_by_cost(frame: pl.DataFrame, console: Console | None = None) -> None:
    """The scores of stages beside what they took (`scores_by_cost`), in its unit."""
    cost = frame.columns[-1]
    written = pl.col(cost).map_elements(lambda value: in_units(cost, value), pl.String)
    shown = frame.with_columns(written).rename(SHORT, strict=False)
    print_frame(shown, f"GM in % against {cost}", console, numbers=(cost,))


def print_results(home: Home, experiment: str, graph: Graph, console: Console) -> None:
    """The scores of an experiment stage by stage, the leaderboard, and where everything is."""
    with at_one_moment(home.root):
        stages = results(home.root, [experiment]).stages
        print_scores(Results(stages, results(home.root).leaderboard), console)
        say_chances(home, [experiment], console)
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
    release = graph.experiments[experiment].release
    if release is not None:
        history = ReleaseLog(home, release.name).read()
        say(console, f"live    {history.live_shown}   (fomo releases {release.name})")
        files = released_files(home, release.name)
        if files is not None and files.forms:
            say(console, f"        as {', '.join(files.forms)} in {files.folder}")
        last = max(
            (n for n in graph.of(experiment) if isinstance(n, CandidateNode)),
            key=lambda node: node.stage,
        )
        if last.waits(history, context):
            way = f"`fomo promote {experiment}` puts it live"
            say(console, f"        stage {last.stage} passes all gates: {way}")
    say(console, "UI      fomo ui")

"""What is started from, what is deployed and by which technique, as grids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import polars as pl

from fomo_dagster.merging.over_time import Deploy, StartFrom
from fomo_dagster.plots.methods import grid_figure
from fomo_dagster.plots.scores import GM
from fomo_dagster.reports.content import Block, Figure, Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.reports.sections.settings import differing, settings_of

AXES = ("start_from", "deploy", "technique")
LEAST_CELLS = 3
_QUERY = """
SELECT experiment, start_from, deploy, technique, geometric_mean
FROM leaderboard JOIN experiments USING (experiment) WHERE experiment IN ({experiments})
"""
_OF_MERGING = ("method.start_from", "method.deploy", "method.merge", "method.combination")


def grid(reported: Reported) -> pl.DataFrame:
    """The methods of the largest set that differ in nothing but what they merge, how and when: a
    row each of method, start_from and deploy (in the order of their declarations), technique and
    GM. Techniques of one name with other
    settings are told apart by these. No rows where fewer than three, or one axis alone varies.
    """
    settings = settings_of(reported)
    scores = reported.final.select("method", GM)
    rows = reported.settings.select("method", *AXES).join(scores, on="method").drop_nulls(GM)
    sets: dict[str, list[str]] = {}
    for name in rows["method"]:
        sets.setdefault(_others(settings[name]), []).append(name)
    largest = max(sets.values(), key=len, default=[])
    merges = {name: _merge_of(settings[name]) for name in largest}
    found = rows.filter(pl.col("method").is_in(largest)).with_columns(
        pl.col("technique").fill_null("none")
    )
    told = [_told_apart(name, t, merges) for name, t in found.select("method", "technique").rows()]
    found = found.with_columns(technique=pl.Series(told, dtype=pl.String))
    varied = [axis for axis in AXES if found[axis].n_unique() > 1]
    cells = found.select(AXES).n_unique()
    enough = cells >= LEAST_CELLS and len(varied) > 1 and cells == found.height
    if not enough:
        return found.clear()
    ordered = {"start_from": get_args(StartFrom), "deploy": get_args(Deploy)}
    found = found.with_columns(pl.col(axis).cast(pl.Enum(of)) for axis, of in ordered.items())
    return found.sort("technique", "start_from", "deploy")


def section(reported: Reported) -> Section | None:
    """None where the methods are no grid."""
    found = grid(reported)
    if found.is_empty():
        return None
    source = reported.source(_QUERY, reported.named("results"), "scores")
    caption = (
        "GM of the last stage (mean over replicates) by what a stage starts from, what it deploys, "
        "and the technique that merges."
    )
    best = [row for row, value in enumerate(found[GM]) if value == found[GM].max()]
    shown = found.rename({GM: "GM", "start_from": "starts from", "deploy": "deploys"})
    blocks: list[Block] = [
        Figure("grid", caption, grid_figure(found), source),
        Table("grid", "The same as numbers.", shown, found, source, best={"GM": best}),
    ]
    return Section("grid", "Start, deploy and technique", blocks)


def _is_of_merging(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in _OF_MERGING)


def _others(settings: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in settings.items() if not _is_of_merging(key)}
    return json.dumps(kept, sort_keys=True)


def _merge_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    start = "method.merge."
    return {k.removeprefix(start): v for k, v in settings.items() if k.startswith(start)}


def _told_apart(name: str, technique: str, merges: Mapping[str, Mapping[str, Any]]) -> str:
    """The technique, with those of its settings that others of it have otherwise."""
    alike = [own for own in merges.values() if own.get("technique", "none") == technique]
    apart = {key: merges[name].get(key) for key in differing(dict(enumerate(map(dict, alike))))}
    return " ".join([technique, *(f"{key} {value}" for key, value in apart.items())])

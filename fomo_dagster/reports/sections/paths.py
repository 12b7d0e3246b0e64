"""Paths from θ₀ through the plane of KA and ZS."""

from __future__ import annotations

from fomo_dagster.plots.methods import paths_figure
from fomo_dagster.plots.scores import KA, ZS
from fomo_dagster.reports.content import Figure, Section
from fomo_dagster.reports.members import Reported

QUERY = "SELECT * FROM scores WHERE experiment IN ({experiments}) ORDER BY experiment, stage"


def section(reported: Reported) -> Section | None:
    """None where nothing has both KA and ZS."""
    if reported.stages.drop_nulls([KA, ZS]).is_empty():
        return None
    caption = (
        "Knowledge accumulation against zero-shot retention after each stage, from θ₀ (star) to "
        "the last one (large). Grey: equal GM."
    )
    if reported.final["replicates"].max() != 1:
        caption += " Points are means over replicates, ellipses the 95 % intervals of both."
    if reported.oracles:
        caption += " Diamonds: oracles, which see all at once."
    drawing = paths_figure(reported.stages, reported.names, reported.oracles)
    source = reported.source(QUERY, reported.named("results"), "scores")
    figure = Figure("paths", caption, drawing, source)
    return Section("paths", "Accumulation against retention", [figure])

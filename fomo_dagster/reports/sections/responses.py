"""How scores follow a setting that is varied while all else stays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import polars as pl

from fomo_dagster.plots.methods import responses_figure
from fomo_dagster.reports.content import Block, Figure, Section
from fomo_dagster.reports.members import Reported
from fomo_dagster.reports.sections.settings import differing, settings_of

LEAST_VALUES = 3
_QUERY = """
SELECT experiment, settings->>'$.{path}' AS value, leaderboard.* EXCLUDE (experiment)
FROM leaderboard JOIN experiments USING (experiment) WHERE experiment IN ({experiments})
"""


def responses(reported: Reported) -> dict[str, pl.DataFrame]:
    """Setting → a row a method that is one of several which differ in it alone: `value`, `others`
    (in what the lines of the setting differ, as text), and the columns of `methods`. Settings with
    fewer than three values on any line are left out."""
    settings = settings_of(reported)
    keys = differing(settings)
    found = {}
    for key in keys:
        rows = [
            {"method": name, "value": float(own[key]), "line": _others(own, key)}
            for name, own in settings.items()
            if isinstance(own.get(key), int | float) and not isinstance(own[key], bool)
        ]
        schema = {"method": pl.String, "value": pl.Float64, "line": pl.String}
        frame = pl.DataFrame(rows, schema=schema)
        frame = frame.filter(pl.col("value").n_unique().over("line") >= LEAST_VALUES)
        if frame.height:
            names = _names_of_lines({line: settings[method] for method, _, line
                                     in frame.unique("line").iter_rows()}, key)  # fmt: skip
            told = frame.with_columns(others=pl.col("line").replace_strict(names)).drop("line")
            found[key] = told.join(reported.final, on="method", maintain_order="left")
    return found


def section(reported: Reported) -> Section | None:
    """None where nothing is swept."""
    replicated = reported.final["replicates"].max() != 1
    blocks: list[Block] = []
    for key, points in responses(reported).items():
        caption = f"KA, ZS and GM of the last stage over {key}, all else equal."
        if replicated:
            caption += " Bands: 95 % intervals over replicates."
        name = f"response_{re.sub(r'[^A-Za-z0-9]+', '_', key)}"
        source = reported.source(_QUERY.replace("{path}", key), reported.named("results"), "scores")
        blocks.append(Figure(name, caption, responses_figure(points, key), source))
    return Section("responses", "Responses to settings", blocks) if blocks else None


def _others(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps({k: v for k, v in settings.items() if k != key}, sort_keys=True)


def _names_of_lines(lines: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, str]:
    """Line → in what it differs from the other lines."""
    apart = [one for one in differing(lines) if one != key]
    return {
        line: ", ".join(f"{one} {json.dumps(own.get(one))}" for one in apart).replace('"', "")
        for line, own in lines.items()
    }

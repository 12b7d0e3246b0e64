"""In which settings the methods differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from fomo_dagster.experiment.sweeping import SEEDS
from fomo_dagster.reports.content import Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.tables.members import NAMED_BY_SEEDS

_QUERY = "SELECT experiment, settings FROM experiments WHERE experiment IN ({experiments})"
NOTHING = "–"


def settings_of(reported: Reported) -> dict[str, dict[str, Any]]:
    """Method → dotted key → value, but for seeds and what they name."""
    left_out = {*SEEDS.values(), *NAMED_BY_SEEDS}
    found = {}
    for name, text in reported.settings.select("method", "settings").iter_rows():
        flat = dict(_flattened(json.loads(text)))
        found[name] = {key: value for key, value in flat.items() if key not in left_out}
    return found


def differing(settings: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    """The keys in which some differ, in order. A key that is null where others have more below it
    says no more than that."""
    keys = sorted({key for own in settings.values() for key in own})
    apart = [key for key in keys if len({_as_text(own, key) for own in settings.values()}) > 1]
    return [
        key for key in apart
        if any(own.get(key) is not None for own in settings.values())
    ]  # fmt: skip


def section(reported: Reported) -> Section | None:
    """None for one method, or where nothing is known of them."""
    settings = settings_of(reported)
    keys = differing(settings)
    if not keys:
        return None
    replicates = dict(reported.final.select("method", "replicates").iter_rows())
    rows = [
        {"method": name, "replicates": replicates[name]}
        | {key: _as_text(own, key) for key in keys}
        for name, own in settings.items()
    ]  # fmt: skip
    data = pl.DataFrame(rows)
    shown = data
    if len(keys) >= len(settings):
        shown = data.with_columns(pl.all().cast(pl.String)).transpose(
            include_header=True, header_name="setting", column_names="method"
        )
    caption = "The settings in which the methods differ, but for seeds."
    source = reported.source(_QUERY, None, "scores")
    table = Table("settings", caption, shown, data, source)
    return Section("settings", "What is compared", [table])


def _flattened(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        yield path, value
        return
    for key, inner in value.items():
        yield from _flattened(inner, f"{path}.{key}" if path else key)


def _as_text(settings: Mapping[str, Any], key: str) -> str:
    value = settings.get(key)
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

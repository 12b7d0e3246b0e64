"""What a person sees of a materialised asset in Dagster: figures, tables and pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import polars.selectors as cs

from fomo_dagster.graph.core.context import Observation
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Bullets, Picture, Shown
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.units import all_in_units

ROWS_SHOWN = 200
LEFT = "left cleaned or packed; nothing of them is needed now"


def metadata_of(node: Node, outcome: Outcome, context: RunContext) -> dict[str, Any]:
    """The metadata of a materialisation: what its kind shows, what it cost, and where it comes
    from."""
    shown = node.shown(outcome, context) if outcome.artifacts else {"artifacts": LEFT}
    numbers = {name: v for name, v in shown.items() if isinstance(v, int | float)}
    cost = all_in_units({**numbers, **outcome.head.cost})
    return {
        **drawn(shown),
        # Dagster plots the plain numbers; people read these.
        **({"cost": cost} if cost else {}),
        "status": outcome.head.status,
        "digest": outcome.head.digest,
        "folders": dg.MetadataValue.md(
            "\n".join(f"- `{artifact.folder}`" for artifact in outcome.artifacts.values())
        ),
    }


def metadata_of_source(observed: Observation) -> dict[str, Any]:
    """The metadata of an observation."""
    said = {"warnings": Bullets(observed.warnings)} if observed.warnings else {}
    return drawn({**observed.shown, **said})


def drawn(shown: Mapping[str, Shown]) -> dict[str, Any]:
    """As Dagster draws it: pictures within Markdown, since it has no other place for them."""
    found: dict[str, Any] = {}
    for title, what in shown.items():
        if isinstance(what, Picture):
            if what.path is not None:
                data = base64.b64encode(what.path.read_bytes()).decode()
                kind = "jpeg" if what.path.suffix == ".jpg" else "png"
                picture = f"![{title.replace('_', ' ')}](data:image/{kind};base64,{data})"
                found[title] = dg.MetadataValue.md(picture)
        elif isinstance(what, Path):
            found[title] = dg.MetadataValue.path(what)
        elif isinstance(what, Bullets):
            found[title] = dg.MetadataValue.md("\n".join(f"- {text}" for text in what.texts))
        elif isinstance(what, pl.DataFrame):
            found[title] = table_of(what)
        else:
            found[title] = what
    return found


def table_of(frame: pl.DataFrame) -> dg.TableMetadataValue:
    """The first rows of a table; figures to two places."""
    shown = frame.head(ROWS_SHOWN).with_columns(cs.float().round(2))
    records = [
        dg.TableRecord({k: "" if v is None else v for k, v in row.items()})
        for row in shown.to_dicts()
    ]
    columns = [
        dg.TableColumn(
            name, "float" if dtype.is_float() else "int" if dtype.is_integer() else "string"
        )
        for name, dtype in frame.schema.items()
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))

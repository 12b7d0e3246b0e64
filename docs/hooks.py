"""Writes the reference of the site from the code, each time the site is built.

mkdocs calls `on_files`. Nothing is written into docs/: the pages exist in the build alone.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import duckdb
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from fomo_dagster.cli.main import app
from fomo_dagster.experiment.loading import json_schema
from fomo_dagster.merging.techniques import TECHNIQUES
from fomo_dagster.methods.preservation.registry import PRESERVATIONS
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.optimisation.optimisers import OPTIMISERS
from fomo_dagster.optimisation.schedules import SCHEDULES
from fomo_dagster.tables.database import ensure_database


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def commands() -> str:
    """Every command of `fomo`, with its arguments and options."""
    lines = ["# Commands", ""]
    _command(typer.main.get_command(app), "fomo", lines)
    return "\n".join(lines)


def _command(command: Any, name: str, lines: list[str]) -> None:
    if name != "fomo":
        lines += [f"## `{name}`", "", inspect.cleandoc(command.help or ""), ""]
        shown = [p for p in command.params if not getattr(p, "hidden", False)]
        rows = []
        for parameter in shown:
            called = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name == "argument":
                called = f"`{(parameter.metavar or parameter.name or '').upper()}`"
            rows.append((called, getattr(parameter, "help", None) or ""))
        lines += _table(("argument or option", "meaning"), rows)
    for part, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            _command(below, f"{name} {part}", lines)


def experiment() -> str:
    """The experiment file, from its JSON schema."""
    schema = json_schema()
    definitions = schema["$defs"]
    lines = [
        "# The experiment file",
        "",
        "`fomo schema` prints the JSON schema that this page shows. Keys without a default must be "
        "given, where the part that they belong to is given.",
        "",
        *_declared("Experiment", schema),
    ]
    for name in sorted(definitions):
        if "properties" in definitions[name]:
            lines += _declared(name, definitions[name])
    return "\n".join(lines)


def tables() -> str:
    """Every view, with the columns and types that DuckDB gives it."""
    lines = ["# Tables and views", "", "`fomo sql` reads these views, and so does any program "
             "with DuckDB. [Query results](../queries.md) says how.", ""]  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        duckdb.connect(str(ensure_database(Path(folder))), read_only=True) as connection,
    ):
        views = connection.sql(
            "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        for name, comment in views:
            if comment:
                rows = connection.sql(f"DESCRIBE {name}").fetchall()
                lines += [f"## `{name}`", "", f"A row is {comment}.", ""]
                lines += _table(("column", "type"), [(f"`{r[0]}`", r[1]) for r in rows])
    return "\n".join(lines)


def metrics() -> str:
    """The metrics of a stage."""
    rows = [(f"`{m.name}`", m.label, m.unit, m.best, m.description) for m in STAGE_METRICS]
    head = ("column", "label", "unit", "better", "meaning")
    return "\n".join(["# Metrics", "", "Every stage has these scores.", "", *_table(head, rows)])


def methods() -> str:
    """What `method.name` chooses from, as the schema has it."""
    definitions = json_schema()["$defs"]
    chosen = {
        name: definition
        for name, definition in definitions.items()
        if {"start_from", "deploy", "preserve"} <= definition.get("properties", {}).keys()
    }
    lines = ["# Methods", "", "`method.name` says what a stage trains. "
             "[Choose a method](../methods.md) explains them.", ""]  # fmt: skip
    for name, definition in chosen.items():
        lines += _declared(name, definition)
    return "\n".join(lines)


def _registry(title: str, opening: str, key: str, classes: Iterable[type[BaseModel]]) -> str:
    schema_of = {c: c.model_json_schema() for c in dict.fromkeys(classes)}
    lines = [f"# {title}", "", opening, ""]
    for declared, schema in schema_of.items():
        names = get_args(declared.model_fields[key].annotation)
        lines += [f"## {', '.join(f'`{name}`' for name in names)}", ""]
        lines += _fields(schema, own=(key,), links=False)
    return "\n".join(lines)


def _declared(name: str, schema: Mapping[str, Any]) -> list[str]:
    return [f"## {name}", "", *_fields(schema)]


def _fields(schema: Mapping[str, Any], own: tuple[str, ...] = (), links: bool = True) -> list[str]:
    required = set(schema.get("required", ()))
    rows = []
    for key, field in schema.get("properties", {}).items():
        if key in own:
            continue
        default = "must be given" if key in required else _default(field.get("default"))
        rows.append((f"`{key}`", _type(field, links), default, field.get("description", "")))
    said = inspect.cleandoc(schema.get("description", ""))
    return [said, "", *_table(("key", "values", "default", "meaning"), rows)]


def _default(value: Any) -> str:
    if value is None:
        return "`null`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(field: Mapping[str, Any], links: bool) -> str:
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        return f"[{name}](experiment.md#{name.lower()})" if links and name in _LINKED else name
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    for several in ("anyOf", "oneOf"):
        if several in field:
            return " or ".join(dict.fromkeys(_type(f, links) for f in field[several]))
    if field.get("type") == "array":
        items = field.get("items") or {}
        return f"list of {_type(items, links)}" if items else "list"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    kind = str(field.get("type", "any"))
    return " ".join([kind, *(f"{sign} {field[k]}" for k, sign in limits.items() if k in field)])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    if not cells:
        return [""]
    lines = [head, ["---"] * len(head), *cells]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


_LINKED = {name for name, d in json_schema()["$defs"].items() if "properties" in d}

PAGES: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "experiment": experiment,
    "tables": tables,
    "metrics": metrics,
    "methods": methods,
    "preservations": lambda: _registry(
        "Preservations",
        "`method.preserve.name` says what keeps earlier abilities beside replay. "
        "[Choose a method](../methods.md) has the formulas.",
        "name",
        PRESERVATIONS,
    ),
    "techniques": lambda: _registry(
        "Merging techniques",
        "`method.merge.technique`, and `fomo merge --technique`. "
        "[Merge weights](../merging.md) has the formulas.",
        "technique",
        TECHNIQUES.values(),
    ),
    "optimisers": lambda: _registry(
        "Optimisers", "`optimiser.name`; the default is `adamw`.", "name", OPTIMISERS
    ),
    "schedules": lambda: _registry(
        "Schedules", "`schedule.name`; the default is `cosine`.", "name", SCHEDULES
    ),
}

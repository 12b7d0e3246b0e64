"""Writes the reference of the site from the code, each time the site is built.

mkdocs calls `on_files` and `on_page_markdown`. Nothing is written into docs/: the pages exist in
the build alone. A guide links to a generated page by the file that declares what is on it
(`../fomo_dagster/metrics.py`), so that the link works on GitHub too; the site replaces it.
"""

from __future__ import annotations

import inspect
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import duckdb
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from fomo_dagster.cli.events import EVENTS, Failure
from fomo_dagster.cli.main import app
from fomo_dagster.data.sources.registry import SOURCES
from fomo_dagster.evaluation.classification import METRICS as CLASSIFICATION_METRICS
from fomo_dagster.evaluation.corruptions import METRICS as CORRUPTION_METRICS
from fomo_dagster.evaluation.few_shot import METRICS as FEW_SHOT_METRICS
from fomo_dagster.evaluation.layer_temperature import METRICS as LAYER_TEMPERATURE_METRICS
from fomo_dagster.evaluation.retrieval import METRICS as RETRIEVAL_METRICS
from fomo_dagster.evaluation.temperature import METRICS as TEMPERATURE_METRICS
from fomo_dagster.experiment.json_schema import json_schema
from fomo_dagster.merging.techniques import TECHNIQUES
from fomo_dagster.methods.averaging.declaration import AVERAGES
from fomo_dagster.methods.loss.declaration import LOSSES
from fomo_dagster.methods.online_selection.declaration import ONLINE_SELECTIONS
from fomo_dagster.methods.preservation.registry import PRESERVATIONS
from fomo_dagster.methods.registry import AnyMethod
from fomo_dagster.metrics import STAGE_METRICS, Metric
from fomo_dagster.optimisation.optimisers import OPTIMISERS
from fomo_dagster.optimisation.schedules import SCHEDULES
from fomo_dagster.tables.database import ensure_database


class Family(NamedTuple):
    """Declarations that a key of the experiment file chooses from; each family has a page.

    key: the key, whose last part tells the declarations apart.
    """

    title: str
    key: str
    opening: str
    declarations: Sequence[type[BaseModel]]
    source: str


FAMILIES: Mapping[str, Family] = {
    "methods": Family(
        "Methods",
        "method.name",
        "`method.name` says what a stage trains; the default is `finetune`. "
        "[Choose a method](../methods.md) explains them.",
        [get_args(form)[0] for form in get_args(get_args(AnyMethod)[0])],
        "fomo_dagster/experiment/schema.py",
    ),
    "preservations": Family(
        "Preservations",
        "method.preserve.name",
        "`method.preserve.name` says what keeps earlier abilities beside replay; by default "
        "nothing does. [Choose a method](../methods.md#what-is-preserved) has the formulas.",
        PRESERVATIONS,
        "fomo_dagster/methods/preservation/",
    ),
    "averages": Family(
        "Averages over steps",
        "method.average.name",
        "`method.average.name` averages the weights over the steps of a stage; by default they are "
        "not averaged. [Choose a method](../methods.md#averages-over-steps) explains both.",
        AVERAGES,
        "fomo_dagster/methods/averaging/declaration.py",
    ),
    "techniques": Family(
        "Merging techniques",
        "method.merge.technique",
        "Give one as `method.merge.technique`, or to `fomo merge --technique`. "
        "[Merge weights](../merging.md) explains them.",
        list(TECHNIQUES.values()),
        "fomo_dagster/merging/techniques.py",
    ),
    "optimisers": Family(
        "Optimisers",
        "optimiser.name",
        "`optimiser.name` chooses one; the default is `adamw`. "
        "[Set the training](../training.md#optimisers) explains them.",
        OPTIMISERS,
        "fomo_dagster/optimisation/optimisers.py",
    ),
    "schedules": Family(
        "Schedules",
        "schedule.name",
        "`schedule.name` chooses one; the default is `cosine`. "
        "[Set the training](../training.md#schedules) has the formulas.",
        SCHEDULES,
        "fomo_dagster/optimisation/schedules.py",
    ),
    "losses": Family(
        "Losses",
        "loss.name",
        "`loss.name` chooses one; the default is `clip`. "
        "[Set the training](../training.md#losses) explains both.",
        LOSSES,
        "fomo_dagster/methods/loss/declaration.py",
    ),
    "selections": Family(
        "Online selections",
        "selection.name",
        "`selection.name` chooses which samples of a larger batch are trained on; by default all "
        "are. [Mix old and new data](../mixtures.md#online-selection) explains them.",
        ONLINE_SELECTIONS,
        "fomo_dagster/methods/online_selection/declaration.py",
    ),
    "sources": Family(
        "Sources",
        "source.type",
        "`source.type` of a dataset says where its images come from. "
        "[Bring your own data](../datasets.md) explains them. The other keys of a dataset are in "
        "[the experiment file](experiment.md#dataset).",
        SOURCES,
        "fomo_dagster/data/sources/registry.py",
    ),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of docs/."""
    for name, page in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=page()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links to the code of what is declared to its generated page."""
    for name, source in LINKED_AS.items():
        markdown = markdown.replace(f"](../{source})", f"](reference/{name}.md)")
    return markdown


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
        lines += table(("argument or option", "meaning"), rows)
    for part, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            _command(below, f"{name} {part}", lines)


def events() -> str:
    """The events of `fomo run --json`."""
    lines = [
        "# Events of a run",
        "",
        "`fomo run --json` prints these events, a JSON object a line. Every event also has "
        "`event`, its name, and `time`, in ISO 8601 and UTC. Later versions may add events and "
        "fields; they rename and remove none. [Run and follow](../running.md#for-programs) has "
        "examples.",
        "",
    ]
    for name, declared in [(event.name, event) for event in EVENTS] + [("error", Failure)]:
        fields = declared.model_json_schema().get("properties", {})
        types = {key: _type(field, links=False) for key, field in fields.items()}
        rows = [
            (f"`{key}`", types[key].replace("Failure", "[error](#error)"), field["description"])
            for key, field in fields.items()
        ]
        lines += [f"## `{name}`", "", inspect.cleandoc(declared.__doc__ or ""), ""]
        lines += table(("field", "type", "meaning"), rows)
    return "\n".join(lines)


def experiment() -> str:
    """The experiment file, from its JSON schema."""
    schema = json_schema()
    lines = [
        "# The experiment file",
        "",
        "This is the JSON schema that `fomo schema` prints. An experiment needs a `backbone` and a "
        "`stream`, its own or inherited by `extends`. The required keys of a part are required "
        "only if you write that part.",
        "",
        "## Experiment",
        "",
        *_fields(schema),
    ]
    for name in sorted(_SECTIONS):
        lines += [f"## {name}", "", *_fields(_SECTIONS[name])]
    return "\n".join(lines)


def tables() -> str:
    """Every view, with the columns, types and comments that DuckDB gives it."""
    lines = ["# Tables and views", "", "`fomo sql` reads these views, and so does any program "
             "with DuckDB, which shows the meanings as comments. [Query results](../queries.md) "
             "says how.", ""]  # fmt: skip
    with (
        tempfile.TemporaryDirectory() as folder,
        duckdb.connect(str(ensure_database(Path(folder))), read_only=True) as connection,
    ):
        views = connection.sql(
            "SELECT view_name, comment FROM duckdb_views() WHERE NOT internal ORDER BY 1"
        ).fetchall()
        for name, comment in views:
            if comment:
                lines += [f"## `{name}`", "", f"A row is {comment}.", ""]
                rows = connection.execute(
                    "SELECT '`' || column_name || '`', data_type, coalesce(comment, '') "
                    "FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index",
                    [name],
                ).fetchall()
                lines += table(("column", "type", "meaning"), rows)
    return "\n".join(lines)


_METRIC_HEAD = ("metric", "unit", "better", "meaning")
FURTHER_METRICS = {
    "few_shot": FEW_SHOT_METRICS,
    "temperature": TEMPERATURE_METRICS,
    "layer_temperature": LAYER_TEMPERATURE_METRICS,
    "corruptions": CORRUPTION_METRICS,
}
"""Key of an experiment's `evaluation` → what it has measured."""


def metrics() -> str:
    """The metrics of a stage and of a dataset."""
    lines = ["# Metrics", "", "## Of a stage", "", "Every stage has these scores, in the columns "
             "of [`scores`](tables.md#scores).", ""]  # fmt: skip
    rows = [(f"`{m.name}`", m.label, m.unit, m.best, m.description) for m in STAGE_METRICS]
    lines += table(("column", "label", "unit", "better", "meaning"), rows)
    for task, of_task in (
        ("classification", CLASSIFICATION_METRICS),
        ("retrieval", RETRIEVAL_METRICS),
    ):
        (score,) = (metric.name for metric in of_task if metric.is_score)
        lines += [f"## Of a {task} dataset", "", "They are in the column `metric` of "
                  f"[`evaluations`](tables.md#evaluations). The row `score` repeats `{score}`, "
                  "which the scores of a stage are made of.", ""]  # fmt: skip
        lines += table(_METRIC_HEAD, map(_row_of_metric, of_task))
    lines += ["## Further measures", "", "Of classification datasets, if the experiment asks for "
              "them ([Measure more](../measures.md)). They are in the same column, and part of no "
              "score.", ""]  # fmt: skip
    for key, further in FURTHER_METRICS.items():
        lines += [f"### `evaluation.{key}`", ""]
        lines += table(_METRIC_HEAD, map(_row_of_metric, further))
    return "\n".join(lines)


def _row_of_metric(metric: Metric) -> tuple[str, ...]:
    return (f"`{metric.name}`", metric.unit, metric.best, metric.description)


def family(page: str) -> str:
    """A section for each declaration; what all have alike comes first, once."""
    title, key, opening, declarations, _ = FAMILIES[page]
    distinct = list(dict.fromkeys(declarations))
    own = key.rsplit(".", 1)[1]
    schemas = [declared.model_json_schema() for declared in distinct]
    rows_of = [_rows(schema, links=page == "methods") for schema in schemas]
    shared = [row for row in rows_of[0] if all(row in rows for rows in rows_of)]
    lines = [f"# {title}", "", opening, ""]
    if shared:
        lines += ["## Keys that all have", "", *table(_HEAD, shared)]
    for declared, schema, rows in zip(distinct, schemas, rows_of, strict=True):
        names = get_args(declared.model_fields[own].annotation)
        lines += [f"## {', '.join(f'`{name}`' for name in names)}", ""]
        lines += [_described(schema), ""]
        lines += table(_HEAD, [r for r in rows if r not in shared and r[0] != f"`{own}`"])
    return "\n".join(lines)


def _fields(schema: Mapping[str, Any]) -> list[str]:
    return [_described(schema), "", *table(_HEAD, _rows(schema))]


def _described(schema: Mapping[str, Any]) -> str:
    return inspect.cleandoc(schema.get("description", ""))


_HEAD = ("key", "values", "default", "meaning")


def _rows(schema: Mapping[str, Any], links: bool = True) -> list[tuple[str, ...]]:
    required = schema.get("required", ())
    return [
        (
            f"`{key}`",
            _type(field, links),
            "required" if key in required else _default(field),
            field.get("description", ""),
        )
        for key, field in schema.get("properties", {}).items()
    ]


def _default(field: Mapping[str, Any]) -> str:
    """As one writes it; the default of a whole part is named, since its keys have their own."""
    value = field.get("default")
    if "default" not in field:
        return ""
    if isinstance(value, dict):
        name = value.get("name")
        return f"`{name}`" if name else "its defaults"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower() if value is not None else 'null'}`"
    return f"`{value}`" if value != "" else "empty"


def _type(field: Mapping[str, Any], links: bool) -> str:
    if "$ref" in field:
        return _linked(field["$ref"].rsplit("/", 1)[1], links)
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
    shown = [f"{sign} {field[k]}" for k, sign in limits.items() if k in field]
    return " ".join([kind, " and ".join(shown)]).strip()


def _linked(definition: str, links: bool) -> str:
    page = _PAGE_OF.get(definition)
    if page is not None:
        named = f"one of the {FAMILIES[page].title.lower()}"
        return f"[{named}]({page}.md)"
    if links and definition in _SECTIONS:
        return f"[{definition}](experiment.md#{definition.lower()})"
    return definition


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """The lines of a Markdown table, and an empty one."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    if not cells:
        return [""]
    lines = [head, ["---"] * len(head), *cells]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def _pages_of_definitions() -> dict[str, str]:
    """Definition of the schema → the page of its family."""
    pages = {}
    named = Counter(d.__name__ for f in FAMILIES.values() for d in dict.fromkeys(f.declarations))
    for page, of_page in FAMILIES.items():
        for declared in of_page.declarations:
            name = declared.__name__
            if named[name] > 1:  # then the schema has the module in it
                name = f"{declared.__module__}.{name}".replace(".", "__")
            pages[name] = page
    return pages


def _sections() -> dict[str, Mapping[str, Any]]:
    """The definitions of the schema that no family has, by name. A text may stand for one: then it
    is the form with keys that counts."""
    sections = {}
    for name, definition in json_schema()["$defs"].items():
        forms = [definition, *definition.get("anyOf", ())]
        with_keys = [form for form in forms if "properties" in form]
        if with_keys and name not in _PAGE_OF:
            sections[name] = with_keys[0]
    return sections


_PAGE_OF = _pages_of_definitions()
_SECTIONS = _sections()

PAGES: Mapping[str, Callable[[], str]] = {
    "commands": commands,
    "events": events,
    "experiment": experiment,
    "tables": tables,
    "metrics": metrics,
    **{page: (lambda page=page: family(page)) for page in FAMILIES},
}
LINKED_AS: Mapping[str, str] = {
    "commands": "fomo_dagster/cli/main.py",
    "events": "fomo_dagster/cli/events.py",
    "experiment": "experiments/schema.json",
    "tables": "fomo_dagster/tables/schemas.py",
    "metrics": "fomo_dagster/metrics.py",
    **{page: declared.source for page, declared in FAMILIES.items()},
}
"""Generated page → the file of the repository that a guide names in its place."""

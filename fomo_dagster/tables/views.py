"""`home/fomo.duckdb`: views over the table files, and the one door for SQL.

The database holds no data: its views read the Parquet files and the heads each time they are asked,
and show the rows of each asset's current digest. So it is never out of date, can be deleted at any
time, and no reader ever waits for a writer. Statements other than queries are refused.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import duckdb
import polars as pl

from fomo_dagster.data.benchmark.registry import benchmark_datasets
from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import replacing, write_bytes
from fomo_dagster.tables.schemas import DESCRIPTIONS, SCHEMAS

DATABASE = "fomo.duckdb"

_SQL_TYPES = {
    pl.String(): "VARCHAR",
    pl.Int64(): "BIGINT",
    pl.Float64(): "DOUBLE",
    pl.List(pl.String()): "VARCHAR[]",
}

_ARTIFACTS = """
SELECT
    head->>'asset' AS asset,
    head->>'kind' AS kind,
    head->>'experiment' AS experiment,
    (head->>'stage')::BIGINT AS stage,
    head->>'digest' AS digest,
    head->>'data_version' AS data_version,
    head->>'code_version' AS code_version,
    head->>'status' AS status,
    (head->>'recorded_at')::TIMESTAMP AS recorded_at,
    (head->>'seconds')::DOUBLE AS seconds,
    head->'recipes' AS recipes,
    head->'artifacts' AS artifacts,
    head->'facts' AS facts,
    head->'cost' AS cost
FROM (
    SELECT CASE
        WHEN json_valid(content) THEN content::JSON
        ELSE error('the head ' || filename || ' is damaged: delete it and run again')
    END AS head
    FROM read_text({heads})
)
"""

# Samples of trainings, and the seconds that trainings and merges took when they were made.
# `arg_max_null`, because `arg_max` passes over stages whose score is null; averages are taken in
# the order of stages, because the last digit of a sum depends on it.
_LEADERBOARD = """
SELECT
    experiment,
    max(stage) AS stages,
    arg_max_null(knowledge_accumulation, stage) AS knowledge_accumulation,
    arg_max_null(zero_shot_retention, stage) AS zero_shot_retention,
    arg_max_null(geometric_mean, stage) AS geometric_mean,
    avg(knowledge_accumulation ORDER BY stage) FILTER (stage >= 1) AS mean_knowledge_accumulation,
    avg(zero_shot_retention ORDER BY stage) FILTER (stage >= 1) AS mean_zero_shot_retention,
    avg(geometric_mean ORDER BY stage) FILTER (stage >= 1) AS mean_geometric_mean,
    any_value(made.samples) AS samples,
    any_value(made.seconds) AS seconds
FROM scores LEFT JOIN (
    SELECT
        experiment,
        sum((cost->>'samples')::BIGINT)::BIGINT AS samples,
        sum((cost->>'seconds')::DOUBLE ORDER BY asset) AS seconds
    FROM artifacts
    WHERE kind IN ('trained', 'start', 'deployed')
    GROUP BY experiment
) AS made USING (experiment)
GROUP BY experiment
ORDER BY geometric_mean DESC NULLS LAST, knowledge_accumulation DESC NULLS LAST, experiment
"""

# Of all trainings and merges up to a stage, so that scores can be set against them; null where one
# of them did not tell. Stage 0 is θ₀, which cost the experiment nothing.
_COSTS = """
SELECT
    experiment, stage,
    CASE WHEN bool_and(samples IS NOT NULL) OVER so_far THEN sum(samples) OVER so_far::BIGINT END
        AS samples,
    CASE WHEN bool_and(flops IS NOT NULL) OVER so_far THEN sum(flops) OVER so_far END AS flops,
    sum(seconds) OVER so_far AS seconds,
    CASE WHEN bool_and(energy IS NOT NULL) OVER so_far THEN sum(energy) OVER so_far END
        AS energy_joules,
    max(device) OVER so_far AS peak_device_memory_bytes,
    max(process) OVER so_far AS peak_process_memory_bytes
FROM (
    SELECT
        experiment, stage,
        sum((cost->>'samples')::BIGINT) AS samples,
        sum((cost->>'flops')::DOUBLE) AS flops,
        sum((cost->>'seconds')::DOUBLE ORDER BY asset) AS seconds,
        sum((cost->>'energy_joules')::DOUBLE) AS energy,
        max((cost->>'peak_device_memory_bytes')::BIGINT) AS device,
        max((cost->>'peak_process_memory_bytes')::BIGINT) AS process
    FROM artifacts
    WHERE kind IN ('trained', 'start', 'deployed') AND experiment IS NOT NULL
    GROUP BY experiment, stage
    UNION ALL
    SELECT experiment, 0, 0, 0, 0, 0, NULL, NULL FROM scores WHERE stage = 0
)
WINDOW so_far AS (PARTITION BY experiment ORDER BY stage)
"""

# Which stage a concept comes to is its chunk's to say: the order is the same however it is cut.
_STREAMS = """
SELECT o.stream, o.position, c.stage, o.dataset, o.concept, o.figure
FROM orders AS o LEFT JOIN chunks AS c USING (stream, dataset, concept)
"""


def ensure_database(home: Path) -> Path:
    """The path of the database below `home`, made or renewed where its views are not today's.

    Renewing replaces the file whole: whoever has the old one open keeps it. Raises `StoreError`
    where the folder cannot be written.
    """
    home = home.resolve()
    path = home / DATABASE
    for table, columns in SCHEMAS.items():
        empty = home / "tables" / table / "empty.parquet"
        if not empty.exists():  # without any file a glob has no columns
            encoded = io.BytesIO()
            pl.DataFrame(schema=dict(columns)).write_parquet(encoded)
            write_bytes(empty, encoded.getvalue())
    views = _views(home)
    version = digest_of(views)
    if _version(path) != version:
        try:
            with replacing(path) as temporary, duckdb.connect(str(temporary)) as connection:
                for name, (description, select) in views.items():
                    connection.execute(f"CREATE VIEW {name} AS {select}")
                    connection.execute(f"COMMENT ON VIEW {name} IS {_quoted(description)}")
                connection.execute(
                    f"CREATE VIEW views_version AS SELECT {_quoted(version)} AS version"
                )
        except (duckdb.Error, OSError) as error:
            raise StoreError(f"the views in {path} could not be written: {error}") from error
    return path


def query(home: Path, sql: str) -> pl.DataFrame:
    """The answer to one query over the views, and over any file that DuckDB reads.

    Raises `InputError` where `sql` is not one query, or the query is wrong; `StoreError` where a
    table file or a head is damaged.
    """
    path = ensure_database(home)
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            # As a subquery nothing that writes is grammatical: a COPY, which a read-only
            # connection would carry out, can otherwise hide even in the WITH clause of a SELECT.
            answer: pl.DataFrame = connection.sql(f"FROM (\n{_one_query(connection, sql)}\n)").pl()
            return answer
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        raise StoreError(f"the tables could not be read: {error}") from error
    except duckdb.Error as error:
        others = ("artifacts", "costs", "leaderboard", "published", "streams")
        tables = ", ".join(sorted([*SCHEMAS, *others]))
        raise InputError(f"the query failed: {error}\nTables: {tables}") from error


def _one_query(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The one query in `sql`, without the semicolon that ends it."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise InputError(f"one query was expected, not {len(statements)} statements: {sql!r}")
    kind = statements[0].type.name
    if kind not in ("SELECT", "MULTI"):  # PIVOT is MULTI
        raise InputError(
            f"a statement of type {kind} is refused: only queries are answered, and nothing can "
            f"be written: {sql!r}"
        )
    text = statements[0].query.encode()
    offsets = (offset for offset, _ in duckdb.tokenize(statements[0].query))
    end = next((offset for offset in offsets if text[offset : offset + 1] == b";"), len(text))
    return text[:end].decode()


def _views(home: Path) -> dict[str, tuple[str, str]]:
    """View name → description and SELECT, in the order in which they can be created."""
    heads = _pattern(home / "heads", "**/*.json")
    views = {"artifacts": ("an asset as it was last made", _ARTIFACTS.format(heads=heads))}
    for table, columns in SCHEMAS.items():
        files = home / "tables" / table
        types = {c: _SQL_TYPES[t] for c, t in columns.items()}
        # Columns by name, so that a file written before a column was added still reads: as null.
        typed = ", ".join(
            f"'{c}': {{name: '{c}', type: '{t}', default_value: NULL}}" for c, t in types.items()
        )
        views[table] = (
            DESCRIPTIONS[table],
            f"SELECT {', '.join(f'rows.{c}' for c in types)}, "
            "artifacts.asset, artifacts.digest AS asset_digest "
            f"FROM read_parquet({_pattern(files, '**/*.parquet')}, filename = true, "
            f"schema = MAP {{{typed}}}) AS rows "
            f"JOIN artifacts ON rows.filename = {_quoted(f'{files}/')} "
            "|| artifacts.asset || '/' || artifacts.digest || '.parquet'",
        )
    views["streams"] = (
        "a concept, its position in a stream, the stage it comes to, and the order's key figure",
        _STREAMS,
    )
    views["published"] = (
        "a dataset of the benchmark, and the zero-shot score that its authors publish",
        _published(),
    )
    views["costs"] = (
        "what all trainings and merges of an experiment took up to a stage, and the most memory",
        _COSTS,
    )
    views["leaderboard"] = (
        "the scores of an experiment's last stage, their means over stages 1..T, and the samples "
        "and seconds that its weights took",
        _LEADERBOARD,
    )
    return views


def _published() -> str:
    datasets = benchmark_datasets().values()
    rows = ", ".join(f"({_quoted(d.name)}, {d.zero_shot!r}::DOUBLE)" for d in datasets)
    return f"SELECT * FROM (VALUES {rows}) AS published(dataset, zero_shot)"


def _version(path: Path) -> str | None:
    """The version of the views in a database file; None where there is none to be read."""
    if not path.exists():
        return None
    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            row = connection.execute("SELECT version FROM views_version").fetchone()
    except duckdb.Error:
        return None
    return str(row[0]) if row else None


def _pattern(folder: Path, pattern: str) -> str:
    """A glob below a folder as an SQL literal; glob characters in the folder's name are taken
    literally."""
    return _quoted(re.sub(r"([*?\[])", r"[\1]", str(folder)) + f"/{pattern}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

"""The views: what each selects from the heads and table files below a home.

They hold no data. They read the files whenever they are queried, and show the rows of each asset's
current digest. So they are never out of date, and no reader ever waits for a writer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.store.digests import DIGEST_LENGTH
from fomo_dagster.store.sealed import CHECKSUM, END
from fomo_dagster.tables.json_files import OF_RELEASES, OF_RUNS
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.score_views import SCORE_VIEWS
from fomo_dagster.tables.store_files import IN_STORE, OF_GALLERIES, OF_PREDICTIONS

VARIABLE = "fomo_home"

_SQL_TYPES = {
    pl.String(): "VARCHAR",
    pl.Int64(): "BIGINT",
    pl.Float64(): "DOUBLE",
    pl.Float16(): "FLOAT",
    pl.Boolean(): "BOOLEAN",
    pl.List(pl.String()): "VARCHAR[]",
    pl.List(pl.Float32()): "FLOAT[]",
}

ARTIFACTS = """
SELECT
    head->>'asset' AS asset,
    head->>'kind' AS kind,
    head->>'experiment' AS experiment,
    (head->>'stage')::BIGINT AS stage,
    coalesce((head->>'makes_weights')::BOOLEAN, head->>'kind' IN ('trained', 'start', 'deployed'))
        AS makes_weights,  -- as it was before heads said so
    head->>'digest' AS digest,
    head->>'data_version' AS data_version,
    head->>'code_version' AS code_version,
    head->>'status' AS status,
    (head->>'recorded_at')::TIMESTAMP AS recorded_at,
    (head->>'seconds')::DOUBLE AS seconds,
    head->'recipes' AS recipes,
    head->'artifacts' AS artifacts,
    head->'facts' AS facts,
    head->'cost' AS cost,
    (head->>'checked_at')::TIMESTAMP AS checked_at
FROM (
    SELECT CASE WHEN {intact} THEN text::JSON END AS head
    FROM (
        {heads}
    )
)
WHERE head IS NOT NULL
"""

# The asset's key is part of its head's path, and an experiment's name is the first part of that.
_DAMAGED = """
SELECT
    asset,
    split_part(asset, '/', 1) AS experiment,
    filename AS head
FROM (
    SELECT filename, substr(filename, length({folder}) + length('/heads/') + 1) AS rest,
        left(rest, length(rest) - length('.json')) AS asset
    FROM (
        {heads}
    )
    WHERE NOT coalesce({intact}, false)
)
"""

# As `store.heads` reads one: the checksum is of what follows it. Heads from before there were
# checksums begin with their asset.
_START, _AFTER = len(CHECKSUM), len(CHECKSUM) + DIGEST_LENGTH + len(END)
INTACT = f"""CASE
            WHEN starts_with(text, '{CHECKSUM.decode()}')
            THEN substr(text, {_START + 1}, {DIGEST_LENGTH})
                = left(sha256('{{' || substr(text, {_AFTER + 1})), {DIGEST_LENGTH})
            ELSE json_valid(text)
        END"""

# Samples of trainings, and the seconds that trainings and merges took when they were made.
# `arg_max_null`, because `arg_max` passes over stages whose score is null; averages are taken in
# the order of stages, because the last digit of a sum depends on it.
_LEADERBOARD = """
SELECT
    experiment,
    max(stage) AS stages,
    {scores},
    any_value(made.samples) AS samples,
    any_value(made.seconds) AS seconds
FROM scores LEFT JOIN (
    SELECT
        experiment,
        sum((cost->>'samples')::BIGINT)::BIGINT AS samples,
        sum((cost->>'seconds')::DOUBLE ORDER BY asset) AS seconds
    FROM artifacts
    WHERE makes_weights AND experiment NOT IN (SELECT experiment FROM damaged)
    GROUP BY experiment
) AS made USING (experiment)
GROUP BY experiment
ORDER BY geometric_mean DESC NULLS LAST, knowledge_accumulation DESC NULLS LAST, experiment
"""
_ON_LEADERBOARD = [
    *(f"arg_max_null({m.name}, stage) AS {m.name}" for m in STAGE_METRICS if m.on_leaderboard),
    *(
        f"avg({m.name} ORDER BY stage) FILTER (stage >= 1) AS mean_{m.name}"
        for m in STAGE_METRICS
        if m.with_mean
    ),
]

# Of all trainings and merges up to a stage, so that scores can be set against them; null if one
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
    WHERE makes_weights AND experiment IS NOT NULL
        AND experiment NOT IN (SELECT experiment FROM damaged)
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


# A file belongs to every asset with that evaluation, which may call the dataset otherwise.
_PREDICTIONS = """
SELECT
    assets.experiment, assets.stage, assets.dataset, of_datasets.role, of_datasets.task,
    {columns},
    assets.asset, assets.asset_digest
FROM read_parquet({files}, filename = true, schema = MAP {{{typed}}}) AS rows
JOIN (
    SELECT
        experiment, stage, asset, digest AS asset_digest,
        unnest(json_keys(artifacts)) AS dataset,
        artifacts->dataset->>0 AS made,
        artifacts->dataset->>1 AS address
    FROM artifacts WHERE experiment IS NOT NULL
) AS assets ON assets.made = '{evaluation}' AND rows.filename
    = {folder} || '/store/{evaluation}/' || assets.address || '/{predictions}'
JOIN (SELECT DISTINCT asset, dataset, role, task FROM evaluations) AS of_datasets
    ON of_datasets.asset = assets.asset AND of_datasets.dataset = assets.dataset
"""

_LEFT_OUT = {  # of right predictions; see `write_predictions`
    "predicted": "coalesce(rows.predicted, if(of_datasets.task = 'retrieval', rows.key, "
    "rows.concept)) AS predicted",
    "probability_of_predicted": "coalesce(rows.probability_of_predicted, rows.probability) "
    "AS probability_of_predicted",
}

_CONFUSIONS = """
SELECT experiment, stage, dataset, role, concept, predicted, count(*) AS samples
FROM predictions WHERE task = 'classification'
GROUP BY experiment, stage, dataset, role, concept, predicted
"""

# Its only artifact is the asset's digest.
_GALLERIES = """
SELECT
    split_part(assets.asset, '/', 2) AS gallery, assets.release_name, assets.release,
    assets.dataset, {columns}, assets.asset, assets.asset_digest
FROM read_parquet({files}, filename = true, schema = MAP {{{typed}}}) AS rows
JOIN (
    SELECT
        asset, digest AS asset_digest, facts->>'release' AS release_name,
        (facts->>'number')::BIGINT AS release, facts->>'dataset' AS dataset
    FROM artifacts WHERE kind = '{kind}'
) AS assets ON rows.filename
    = {folder} || '/store/{kind}/' || assets.asset_digest || '/{file}'
"""


_RUNS = """
SELECT lines.*, coalesce(lines.digest = artifacts.digest, false) AS is_current
FROM ({lines}) AS lines LEFT JOIN artifacts USING (asset)
"""


_RELEASES = """
SELECT *, candidate->>'experiment' AS experiment, (candidate->>'stage')::BIGINT AS stage
FROM ({lines})
"""


@dataclass(frozen=True)
class Place:
    """Where views find a home.

    folder: an SQL expression for its path; heads: a SELECT of each head's `filename` and `text`;
    files: for a table of that name, an expression for the files with its rows, or for a glob;
    stored: the same for the view of rows in the store; lines: folder of JSON files → an expression
    for the home as the beginning of a glob, without those where nothing was recorded.
    """

    folder: str
    heads: str
    files: Callable[[str], str]
    stored: Callable[[str], str]
    lines: Mapping[str, str]


def beside(database: str, home: Path) -> Place:
    """The home in which the opened file `database` lies, wherever it was moved.

    DuckDB resolves paths against the working folder. The only thing that tells a view where its own
    file is, is a default: the folder for temporary files is named after the first database of the
    process. If the file was attached later, its place is taken to be `home`, where it was written,
    and a query fails if it was attached from elsewhere. The variable `fomo_home` takes precedence
    over both.
    """
    temporary, ending = "current_setting('temp_directory')", f"{database}.tmp"
    variable = f"getvariable('{VARIABLE}')::VARCHAR"
    first = f"({temporary} = '{ending}' OR suffix({temporary}, '/{ending}'))"
    folder = (
        f"coalesce({variable}, CASE WHEN NOT {first} THEN {quoted(str(home))} "
        f"WHEN {temporary} = '{ending}' THEN '.' "
        f"ELSE left({temporary}, length({temporary}) - {len(ending) + 1}) END)"
    )
    pattern = f"regexp_replace({folder}, '([*?\\[])', '[\\1]', 'g')"
    elsewhere = quoted(
        f"{database} was moved since it was written, and is not the first database that was opened "
        f"here: SET VARIABLE {VARIABLE} = its folder"
    )
    attached = quoted(str(home / database))
    found = f"SELECT count(*) FROM duckdb_databases() WHERE path = {attached} OR path NOT LIKE '/%'"
    heads = (
        "SELECT filename, try(decode(content)) AS text "
        f"FROM read_blob({pattern} || '/heads/**/*.json') UNION ALL SELECT '', '' "
        f"WHERE CASE WHEN {variable} IS NULL AND NOT {first} AND ({found}) = 0 "
        f"THEN error({elsewhere})::BOOLEAN ELSE false END"
    )
    return Place(
        folder,
        heads,
        lambda table: f"{pattern} || '/tables/{table}/**/*.parquet'",
        # An empty one lies below tables/.
        {of.view: f"{pattern} || '/*/{of.kind}/*/{of.file}'" for of in IN_STORE}.__getitem__,
        {files.folder: pattern for files in (OF_RUNS, OF_RELEASES)},
    )


def views(place: Place) -> dict[str, str]:
    """View name → SELECT, in the order in which they can be created."""
    found = {"intact": INTACT, "heads": place.heads, "folder": place.folder}
    made = {"artifacts": ARTIFACTS.format(**found), "damaged": _DAMAGED.format(**found)}
    for table, columns in SCHEMAS.items():
        made[table] = (
            f"SELECT {', '.join(f'rows.{c}' for c in columns)}, "
            "artifacts.asset, artifacts.digest AS asset_digest "
            f"FROM read_parquet({place.files(table)}, filename = true, "
            f"schema = MAP {{{typed(columns)}}}) AS rows "
            f"JOIN artifacts ON rows.filename = {place.folder} || '/tables/{table}/' "
            "|| artifacts.asset || '/' || artifacts.digest || '.parquet'"
        )
    made["predictions"] = _PREDICTIONS.format(
        columns=", ".join(_LEFT_OUT.get(c, f"rows.{c}") for c in OF_PREDICTIONS.columns),
        typed=typed(OF_PREDICTIONS.columns), files=place.stored(OF_PREDICTIONS.view),
        folder=place.folder, evaluation=OF_PREDICTIONS.kind, predictions=OF_PREDICTIONS.file,
    )  # fmt: skip
    made["galleries"] = _GALLERIES.format(
        columns=", ".join(f"rows.{c}" for c in OF_GALLERIES.columns),
        typed=typed(OF_GALLERIES.columns), files=place.stored(OF_GALLERIES.view),
        folder=place.folder, kind=OF_GALLERIES.kind, file=OF_GALLERIES.file,
    )  # fmt: skip
    made["confusions"] = _CONFUSIONS
    lines = {f.folder: f.select(place.lines.get(f.folder)) for f in (OF_RUNS, OF_RELEASES)}
    made["runs"] = _RUNS.format(lines=lines[OF_RUNS.folder])
    made["releases"] = _RELEASES.format(lines=lines[OF_RELEASES.folder])
    made["streams"] = _STREAMS
    made |= SCORE_VIEWS
    made["costs"] = _COSTS
    made["leaderboard"] = _LEADERBOARD.format(scores=",\n    ".join(_ON_LEADERBOARD))
    return made


def typed(columns: Mapping[str, pl.DataType]) -> str:
    """Columns by name, so that a file written before a column was added still reads: as null."""
    return ", ".join(
        f"'{c}': {{name: '{c}', type: '{_SQL_TYPES[t]}', default_value: NULL}}"
        for c, t in columns.items()
    )


def without_rows(view: str) -> str:
    """A SELECT with the columns of a table, or of what is read in the store, and no rows."""
    return f"SELECT {_columns(view, 'NULL')} WHERE false"


def refusing(view: str, reason: str) -> str:
    """As `without_rows`, but one that ends every query with an error, whether the query asks
    for rows, filters them or counts."""
    error = f"error({quoted(reason)})"
    return f"SELECT {_columns(view, error)} WHERE {error}::BOOLEAN"


def _columns(view: str, value: str) -> str:
    text, number = pl.String(), pl.Int64()
    in_store: Mapping[str, Mapping[str, pl.DataType]] = {
        OF_PREDICTIONS.view: {
            "experiment": text, "stage": number, "dataset": text, "role": text, "task": text,
            **OF_PREDICTIONS.columns,
        },
        OF_GALLERIES.view: {
            "gallery": text, "release_name": text, "release": number, "dataset": text,
            **OF_GALLERIES.columns,
        },
    }  # fmt: skip
    own = SCHEMAS.get(view) or in_store.get(view) or in_store[OF_PREDICTIONS.view]
    columns = {**own, "asset": text, "asset_digest": text}
    return ", ".join(f"{value}::{_SQL_TYPES[kind]} AS {name}" for name, kind in columns.items())


def escaped(path: str) -> str:
    """A path as the beginning of a glob that matches it and nothing else."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"

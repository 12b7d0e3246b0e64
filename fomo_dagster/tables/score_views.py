"""The views that say more of scores: by chunk, by time, by distribution, and what guessing has."""

from __future__ import annotations

from collections.abc import Mapping

from fomo_dagster.data.benchmark.registry import benchmark_datasets

# As the scores' transfer and forgetting take them: concepts without test samples are left out.
_MATRIX = """
SELECT
    c.experiment, c.stage, k.stage AS chunk,
    avg(c.value ORDER BY c.dataset, c.concept) AS score,  -- to the last digit
    count(*) AS concepts,
    CASE WHEN count(g.value) = count(*) THEN avg(g.value ORDER BY c.dataset, c.concept) END
        AS chance
FROM concept_scores AS c
JOIN experiments AS e USING (experiment)
JOIN chunks AS k ON k.stream = e.stream AND k.dataset = c.dataset AND k.concept = c.concept
LEFT JOIN evaluations AS g ON g.experiment = c.experiment AND g.stage = c.stage
    AND g.dataset = c.dataset AND g.metric = 'chance'
WHERE c.role = 'adaptation'
GROUP BY c.experiment, c.stage, k.stage
"""

# A test sample is of its concept's time, which is what orders a dated stream: the year of its
# dataset, or the arrival that brought it. Each dataset of a window weighs the same, as in KA.
_WINDOWS = """
WITH dated AS (
    SELECT
        e.experiment, k.stage AS trained, k.dataset, k.concept,
        CASE WHEN e.stream_order = 'time_incremental' THEN o.figure::BIGINT::VARCHAR
            ELSE k.dataset END AS time,
        CASE WHEN e.stream_order = 'time_incremental' THEN o.figure::BIGINT ELSE k.stage END
            AS place
    FROM experiments AS e
    JOIN chunks AS k USING (stream)
    LEFT JOIN orders AS o ON o.stream = k.stream AND o.dataset = k.dataset
        AND o.concept = k.concept
    WHERE e.stream_order = 'time_incremental' OR (e.settings->>'$.stream.growing') IS NOT NULL
), numbered AS (
    SELECT *, dense_rank() OVER (PARTITION BY experiment ORDER BY place) AS number FROM dated
), until AS (
    SELECT
        c.experiment, c.stage, max(n.number) AS number, arg_max(n.time, n.number) AS time
    FROM (SELECT DISTINCT experiment, stage FROM concept_scores) AS c
    LEFT JOIN numbered AS n ON n.experiment = c.experiment AND n.trained <= c.stage
    GROUP BY c.experiment, c.stage
), of_datasets AS (
    SELECT
        c.experiment, c.stage, n.number, n.time, c.dataset,
        sum(c.value * c.samples ORDER BY c.concept) / sum(c.samples) AS score,
        sum(c.samples)::BIGINT AS samples
    FROM concept_scores AS c
    JOIN numbered AS n USING (experiment, dataset, concept)
    WHERE c.role = 'adaptation'
    GROUP BY c.experiment, c.stage, n.number, n.time, c.dataset
)
SELECT
    d.experiment, d.stage, any_value(u.time) AS trained_until, d.time AS tested_on,
    d.number - any_value(u.number) AS distance,
    avg(d.score ORDER BY d.dataset) AS score,
    CASE WHEN count(g.value) = count(*) THEN avg(g.value ORDER BY d.dataset) END AS chance,
    count(*) AS datasets, sum(d.samples)::BIGINT AS samples
FROM of_datasets AS d
JOIN until AS u USING (experiment, stage)
LEFT JOIN evaluations AS g ON g.experiment = d.experiment AND g.stage = d.stage
    AND g.dataset = d.dataset AND g.metric = 'chance'
GROUP BY d.experiment, d.stage, d.number, d.time
"""

# R[t][i], the score of stage t on chunk i, is a row of `matrix`; chunk i's own stage is i.
_TRANSFER = """
WITH cells AS (
    SELECT *, max(score) FILTER (stage >= chunk) OVER so_far AS best
    FROM matrix WINDOW so_far AS (PARTITION BY experiment, chunk ORDER BY stage)
), of_chunks AS (
    SELECT
        experiment, chunk,
        max(score) FILTER (stage = 0) AS at_start,
        max(score) FILTER (stage = chunk - 1) AS before,
        max(score) FILTER (stage = chunk) AS learnt
    FROM matrix GROUP BY experiment, chunk
)
SELECT
    c.experiment, c.stage,
    avg(o.before - o.at_start ORDER BY c.chunk) FILTER (c.chunk > 1) AS forward_transfer,
    avg(c.score - o.learnt ORDER BY c.chunk) FILTER (c.chunk < c.stage) AS backward_transfer,
    avg(c.best - c.score ORDER BY c.chunk) FILTER (c.chunk < c.stage) AS forgetting,
    avg(o.learnt ORDER BY c.chunk) AS plasticity,
    avg(c.score ORDER BY c.chunk) FILTER (c.chunk < c.stage) AS stability
FROM cells AS c JOIN of_chunks AS o USING (experiment, chunk)
WHERE c.chunk <= c.stage
GROUP BY c.experiment, c.stage
"""

_CHANCES = """
WITH of_datasets AS (
    SELECT s.experiment, s.stage, s.role, g.value
    FROM evaluations AS s LEFT JOIN evaluations AS g ON g.asset = s.asset
        AND g.dataset = s.dataset AND g.metric = 'chance'
    WHERE s.metric = 'score' AND s.experiment IS NOT NULL
), of_roles AS (
    SELECT
        experiment, stage, role,
        CASE WHEN count(value) = count(*) THEN avg(value ORDER BY value) END AS value
    FROM of_datasets GROUP BY experiment, stage, role
)
SELECT
    experiment, stage,
    max(value) FILTER (role = 'adaptation') AS knowledge_accumulation,
    max(value) FILTER (role = 'held_out') AS zero_shot_retention,
    sqrt(knowledge_accumulation * zero_shot_retention) AS geometric_mean
FROM of_roles GROUP BY experiment, stage
"""

_SHIFTS = """
SELECT
    e.experiment, e.stage, s.shift_of, avg(e.value ORDER BY e.dataset) AS score,
    any_value(o.value) AS score_of_original,
    CASE WHEN count(g.value) = count(*) THEN avg(g.value ORDER BY e.dataset) END AS chance,
    count(*) AS datasets
FROM evaluations AS e
JOIN published AS s ON s.dataset = e.dataset AND s.shift_of IS NOT NULL
LEFT JOIN evaluations AS o ON o.experiment = e.experiment AND o.stage = e.stage
    AND o.dataset = s.shift_of AND o.metric = 'score'
LEFT JOIN evaluations AS g ON g.asset = e.asset AND g.dataset = e.dataset AND g.metric = 'chance'
WHERE e.metric = 'score' AND e.experiment IS NOT NULL
GROUP BY e.experiment, e.stage, s.shift_of
"""


def _published() -> str:
    def row(name: str, zero_shot: float, shift_of: str | None) -> str:
        of = "NULL" if shift_of is None else f"'{shift_of}'"
        return f"('{name}', {zero_shot!r}::DOUBLE, {of})"

    rows = [row(d.name, d.zero_shot, d.shift_of) for d in benchmark_datasets().values()]
    return (
        f"SELECT dataset, zero_shot, shift_of::VARCHAR AS shift_of "
        f"FROM (VALUES {', '.join(rows)}) AS published(dataset, zero_shot, shift_of)"
    )


SCORE_VIEWS: Mapping[str, str] = {
    "matrix": _MATRIX,
    "transfer": _TRANSFER,
    "windows": _WINDOWS,
    "chances": _CHANCES,
    "published": _published(),
    "shifts": _SHIFTS,
}
"""View → SELECT, in the order in which they can be created."""

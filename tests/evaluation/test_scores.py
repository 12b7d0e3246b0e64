"""Scores of stages against hand calculation and plain loops."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from statistics import fmean

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.errors import DataError
from fomo_dagster.evaluation.scores import SCORES, stage_scores

EVALUATIONS = ["stage", "dataset", "role", "metric", "value"]
CONCEPTS = ["stage", "dataset", "role", "concept", "value"]
CHUNKS = {"stage": pl.Int64, "dataset": pl.String, "concept": pl.String}


def table(rows: list[tuple[object, ...]], schema: list[str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")


def evaluations_of(values: dict[tuple[str, str], list[float]]) -> pl.DataFrame:
    """Scores by (role, dataset), stage by stage, beside another metric that must not count."""
    rows: list[tuple[object, ...]] = []
    for (role, dataset), scores in values.items():
        for stage, value in enumerate(scores):
            rows.append((stage, dataset, role, "score", value))
            rows.append((stage, dataset, role, "top_5_accuracy", 99.0))
    return table(rows, EVALUATIONS)


def concepts_of(values: dict[tuple[str, str], list[float]]) -> pl.DataFrame:
    """Adaptation scores by (dataset, concept), stage by stage."""
    rows = [
        (stage, dataset, "adaptation", concept, value)
        for (dataset, concept), scores in values.items()
        for stage, value in enumerate(scores)
    ]
    return pl.DataFrame(
        rows,
        schema={n: pl.Float64 if n == "value" else pl.String for n in CONCEPTS}
        | {"stage": pl.Int64},
        orient="row",
    )


NO_CONCEPTS = concepts_of({})
NO_CHUNKS = pl.DataFrame(schema=CHUNKS)


def test_a_stream_worked_out_by_hand() -> None:
    evaluations = evaluations_of(
        {
            ("adaptation", "digits"): [10.0, 40.0, 60.0],
            ("adaptation", "flowers"): [30.0, 20.0, 40.0],
            ("held_out", "pets"): [80.0, 60.0, 2.0],
        }
    )
    concepts = concepts_of(
        {
            ("digits", "one"): [0.0, 80.0, 50.0],
            ("flowers", "rose"): [20.0, 60.0, 70.0],
            ("flowers", "tulip"): [0.0, 10.0, 90.0],
        }
    )
    chunks = pl.DataFrame(
        [
            (1, "digits", "one"),
            (1, "flowers", "rose"),
            (2, "flowers", "tulip"),
            (2, "digits", "nil"),
        ],
        schema=CHUNKS,
        orient="row",
    )
    scores = stage_scores(evaluations, concepts, chunks)
    assert dict(scores.schema) == SCORES
    assert scores.rows() == [
        (0, 20.0, 80.0, 40.0, None, None),
        (1, 30.0, 60.0, pytest.approx(math.sqrt(1800)), None, None),
        # R[1][1] = (80 + 60) / 2 = 70, R[2][1] = (50 + 70) / 2 = 60.
        (2, 50.0, 2.0, 10.0, -10.0, 10.0),
    ]


@given(data=st.data(), stages=st.integers(1, 6), concepts=st.integers(1, 12))
def test_transfer_and_forgetting_are_those_of_plain_loops(
    data: st.DataObject, stages: int, concepts: int
) -> None:
    score = st.floats(0, 100)
    chunk_of = [data.draw(st.integers(1, stages)) for _ in range(concepts)]
    values = {
        ("set", f"c{c}"): data.draw(st.lists(score, min_size=stages + 1, max_size=stages + 1))
        for c in range(concepts)
    }
    chunks = pl.DataFrame(
        [(chunk, "set", f"c{c}") for c, chunk in enumerate(chunk_of)], schema=CHUNKS, orient="row"
    )
    evaluations = evaluations_of({("adaptation", "set"): [50.0] * (stages + 1)})
    scores = stage_scores(evaluations, concepts_of(values), chunks)

    def mean_score(stage: int, chunk: int) -> float:
        return fmean(values["set", f"c{c}"][stage] for c in range(concepts) if chunk_of[c] == chunk)

    for stage, *_, transfer, forgetting in scores.rows():
        earlier = [chunk for chunk in set(chunk_of) if chunk < stage]
        if not earlier:
            assert (transfer, forgetting) == (None, None)
            continue
        now = {chunk: mean_score(stage, chunk) for chunk in earlier}
        best = {
            chunk: max(mean_score(s, chunk) for s in range(chunk, stage + 1)) for chunk in earlier
        }
        assert transfer == pytest.approx(
            fmean(now[i] - mean_score(i, i) for i in earlier), abs=1e-9
        )
        assert forgetting == pytest.approx(fmean(best[i] - now[i] for i in earlier), abs=1e-9)
        assert forgetting >= 0


def test_without_held_out_datasets_retention_is_null_and_not_zero() -> None:
    scores = stage_scores(
        evaluations_of({("adaptation", "digits"): [10.0, 20.0]}), NO_CONCEPTS, NO_CHUNKS
    )
    assert scores.rows() == [(0, 10.0, None, None, None, None), (1, 20.0, None, None, None, None)]


def test_the_order_of_rows_changes_no_digit() -> None:
    rng = random.Random(3)
    evaluations = evaluations_of(
        {("adaptation", f"set {d}"): [rng.uniform(0, 100) for _ in range(4)] for d in range(41)}
        | {("held_out", f"held {d}"): [rng.uniform(0, 100) for _ in range(4)] for d in range(22)}
    )
    values = {("set 0", f"c{c}"): [rng.uniform(0, 100) for _ in range(4)] for c in range(60)}
    concepts = concepts_of(values)
    chunks = pl.DataFrame(
        [(1 + c % 3, "set 0", f"c{c}") for c in range(60)], schema=CHUNKS, orient="row"
    )
    scores = stage_scores(evaluations, concepts, chunks)
    for seed in range(5):
        shuffled = [
            frame.sample(fraction=1, shuffle=True, seed=seed)
            for frame in (evaluations, concepts, chunks)
        ]
        assert stage_scores(*shuffled).equals(scores)


def test_a_dataset_that_lacks_a_stage_is_named() -> None:
    evaluations = evaluations_of(
        {("adaptation", "digits"): [1.0, 2.0, 3.0], ("held_out", "pets"): [1.0, 2.0]}
    )
    with pytest.raises(DataError, match=r"role 'held_out', dataset 'pets' .* stages \[2\]"):
        stage_scores(evaluations, NO_CONCEPTS, NO_CHUNKS)


def test_a_score_given_twice_is_named() -> None:
    evaluations = evaluations_of({("adaptation", "digits"): [1.0, 2.0]})
    twice = pl.concat([evaluations, evaluations.filter(pl.col("stage") == 1)])
    with pytest.raises(DataError, match=r"dataset 'digits' .* stages \[1\]"):
        stage_scores(twice, NO_CONCEPTS, NO_CHUNKS)


def test_a_missing_stage_is_named() -> None:
    evaluations = evaluations_of({("adaptation", "digits"): [1.0, 2.0, 3.0]})
    with pytest.raises(DataError, match=r"that of \[1\] is missing"):
        stage_scores(evaluations.filter(pl.col("stage") != 1), NO_CONCEPTS, NO_CHUNKS)


def test_scores_load_no_pytorch() -> None:
    code = "import sys, fomo_dagster.evaluation.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A stream of two stages, of which each brings a dataset that is evaluated from then on.
ARRIVING = {("adaptation", "one"): [40.0, 60.0], ("adaptation", "two"): [20.0]}
SINCE = {"one": 1, "two": 2}


def arriving(values: dict[tuple[str, str], list[float]]) -> tuple[pl.DataFrame, ...]:
    """Evaluations, concept scores (one concept a dataset) and chunks of such a stream."""
    rows = [
        (SINCE[dataset] + after, dataset, role, "score", value)
        for (role, dataset), scores in values.items()
        for after, value in enumerate(scores)
    ]
    held_out = [(stage, "old", "held_out", "score", 30.0) for stage in range(3)]
    evaluations = table([*held_out, *rows], EVALUATIONS)
    concepts = table([(s, d, r, f"of {d}", v) for s, d, r, _, v in rows], CONCEPTS)
    chunks = table([(1, "one", "of one"), (2, "two", "of two")], list(CHUNKS))
    return evaluations, concepts, chunks


def test_a_growing_stream_is_scored_by_what_has_arrived() -> None:
    scores = stage_scores(*arriving(ARRIVING), SINCE)
    assert scores["knowledge_accumulation"].to_list() == [None, 40.0, 40.0]
    assert scores["zero_shot_retention"].to_list() == [30.0] * 3
    assert scores["backward_transfer"].to_list() == [None, None, 20.0]
    assert scores["forgetting"].to_list() == [None, None, 0.0]


@pytest.mark.parametrize("missing", [1, 2])
def test_what_has_arrived_has_a_value_at_each_stage_from_then_on(missing: int) -> None:
    evaluations, concepts, chunks = arriving(ARRIVING)
    kept = ~((pl.col("dataset") == "one") & (pl.col("stage") == missing))
    with pytest.raises(DataError, match=rf"'one' has none or several at the stages \[{missing}\]"):
        stage_scores(evaluations.filter(kept), concepts, chunks, SINCE)


def test_a_value_from_before_a_dataset_arrived_is_refused() -> None:
    evaluations, concepts, chunks = arriving(ARRIVING)
    with pytest.raises(DataError, match=r"'two' has none or several at the stages \[1\]"):
        stage_scores(evaluations, concepts, chunks, {"one": 1, "two": 1})

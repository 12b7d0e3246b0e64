"""What the views say of scores beyond the scores: against the scores' own code, and by hand."""

import random

import polars as pl
import pytest

from fomo_dagster.data.benchmark.registry import benchmark_datasets
from fomo_dagster.evaluation.scores import stage_scores
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables.files import write_table
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.views import query

DIGEST = "a" * 32


def write(home, table, asset, rows):
    nothing = dict.fromkeys(SCHEMAS[table])
    frame = pl.DataFrame([{**nothing, **row} for row in rows], schema=dict(SCHEMAS[table]))
    write_table(home, table, asset, DIGEST, frame)
    head = {
        "kind": "evaluation", "experiment": "e", "stage": None, "digest": DIGEST,
        "data_version": DIGEST, "code_version": "", "recipes": {}, "artifacts": {}, "facts": {},
        "status": "computed", "recorded_at": "2026-03-04T05:06:07+00:00", "seconds": 1.0,
    }  # fmt: skip
    Heads(home / "heads").write(Head(asset=asset, **head))


def evaluations(home, stage, values):
    """values: (dataset, role, metric) → value."""
    rows = [
        {"experiment": "e", "stage": stage, "dataset": dataset, "role": role,
         "task": "classification", "metric": metric, "value": value, "samples": 1}
        for (dataset, role, metric), value in values.items()
    ]  # fmt: skip
    write(home, "evaluations", f"e/evaluation_{stage:03d}", rows)


def test_transfer_follows_from_the_matrix_of_stages_and_chunks(tmp_path):
    drawn, stages = random.Random(3), 4
    chunks = pl.DataFrame(
        [(stage, "d", f"c{stage}{one}") for stage in range(1, stages + 1) for one in "ab"],
        schema={"stage": pl.Int64, "dataset": pl.String, "concept": pl.String}, orient="row",
    )  # fmt: skip
    concepts = pl.DataFrame(
        [(stage, "d", "adaptation", concept, drawn.uniform(0, 100))
         for stage in range(stages + 1) for concept in chunks["concept"]],
        schema=["stage", "dataset", "role", "concept", "value"], orient="row",
    )  # fmt: skip
    write(tmp_path, "chunks", "streams/s/chunks", [
        {"stream": "s", "position": 1, "samples": 1, **row} for row in chunks.to_dicts()
    ])  # fmt: skip
    write(tmp_path, "concept_scores", "e/evaluation", [
        {"experiment": "e", "metric": "accuracy", "samples": 1, **row}
        for row in concepts.to_dicts()
    ])  # fmt: skip
    texts = {name: "" for name, kind in SCHEMAS["experiments"].items() if kind == pl.String}
    numbers = {name: 0 for name in SCHEMAS["experiments"] if name not in texts}
    write(tmp_path, "experiments", "e/scores", [
        {**texts, **numbers, "experiment": "e", "stream": "s", "settings": "{}"}
    ])  # fmt: skip
    found = query(tmp_path, "FROM transfer ORDER BY stage")
    assert found["stage"].to_list() == [1, 2, 3, 4]

    main = pl.DataFrame(
        [(stage, "d", "adaptation", "score", 1.0) for stage in range(stages + 1)],
        schema=["stage", "dataset", "role", "metric", "value"], orient="row",
    )  # fmt: skip
    own = stage_scores(main, concepts, chunks).filter(pl.col("stage") > 0)
    for name in ("backward_transfer", "forgetting"):
        assert found[name].to_list() == pytest.approx(own[name].to_list())

    def score(stage, chunk):
        of = concepts.filter(
            pl.col("stage") == stage, pl.col("concept").str.starts_with(f"c{chunk}")
        )
        return of["value"].mean()

    def mean(values):
        values = list(values)
        return sum(values) / len(values) if values else None

    for row in found.iter_rows(named=True):
        stage = row["stage"]
        learnt, earlier = range(1, stage + 1), range(1, stage)
        assert row["plasticity"] == pytest.approx(mean(score(c, c) for c in learnt))
        assert row["stability"] == pytest.approx(mean(score(stage, c) for c in earlier))
        ahead = mean(score(c - 1, c) - score(0, c) for c in learnt if c > 1)
        assert row["forward_transfer"] == pytest.approx(ahead)


def test_chances_are_means_as_the_scores_are_and_null_where_one_is_not_known(tmp_path):
    known = {
        ("a", "adaptation", "score"): 60.0, ("a", "adaptation", "chance"): 10.0,
        ("b", "adaptation", "score"): 60.0, ("b", "adaptation", "chance"): 30.0,
        ("c", "held_out", "score"): 60.0, ("c", "held_out", "chance"): 5.0,
    }  # fmt: skip
    evaluations(tmp_path, 0, known)
    evaluations(tmp_path, 1, {key: v for key, v in known.items() if key[::2] != ("a", "chance")})
    found = query(tmp_path, "SELECT * EXCLUDE (experiment) FROM chances ORDER BY stage")
    assert found.rows() == [(0, 20.0, 5.0, 10.0), (1, None, 5.0, None)]


def test_datasets_of_one_distribution_shift_are_one_score(tmp_path):
    values = {"imagenet_a": 20.0, "imagenet_r": 40.0, "imagenet": 70.0, "domainnet_sketch": 50.0,
              "birdsnap": 90.0}  # fmt: skip
    evaluations(tmp_path, 0, {(name, "held_out", "score"): v for name, v in values.items()} | {
        (name, "held_out", "chance"): 0.5 for name in ("imagenet_a", "imagenet_r")
    })  # fmt: skip
    found = query(tmp_path, "SELECT * EXCLUDE (experiment, stage) FROM shifts ORDER BY shift_of")
    assert found.rows() == [
        ("domainnet", 50.0, None, None, 1), ("imagenet", 30.0, 70.0, 0.5, 2)
    ]  # fmt: skip
    shifted = [d for d in benchmark_datasets().values() if d.shift_of is not None]
    assert all(d.name.startswith(d.shift_of) or d.name == "objectnet" for d in shifted)
    assert len(shifted) == 11

"""Metrics are declared once, and what was computed before one was declared stays readable."""

from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import pytest

from fomo_dagster.evaluation import classification, retrieval
from fomo_dagster.graph.core.facts import Facts
from fomo_dagster.graph.nodes.leaderboard import LeaderboardNode
from fomo_dagster.graph.nodes.summaries import scores as scores_node
from fomo_dagster.graph.nodes.summaries.scores import SCORES, ScoresNode
from fomo_dagster.metrics import FORGETTING, STAGE_METRICS, values_of, with_all_scores

BEFORE = pl.DataFrame({"stage": [0, 1], "knowledge_accumulation": [10.0, 20.0]})


def test_scores_of_before_a_metric_was_declared_are_null_in_it():
    rows = with_all_scores(BEFORE).rows(named=True)
    assert [row["knowledge_accumulation"] for row in rows] == [10, 20]
    assert {row[metric.name] for row in rows for metric in STAGE_METRICS[1:]} == {None}


def test_the_leaderboard_takes_experiments_that_were_scored_before_a_metric(tmp_path):
    now = with_all_scores(BEFORE).with_columns(forgetting=pl.lit(1.5))
    for name, frame in (("old", BEFORE), ("new", now)):
        (tmp_path / name).mkdir()
        frame.write_parquet(tmp_path / name / SCORES)

    def artifact(key):
        return SimpleNamespace(path=lambda file: tmp_path / key.partition("/")[0] / file)

    node = LeaderboardNode(key="leaderboard", score_keys=("old/scores", "new/scores"))
    facts = {key: Facts(key) for key in node.inputs}
    recipe = node.recipes(facts)["only"]
    node.make("only", recipe, tmp_path, SimpleNamespace(artifact=artifact))
    made = pl.read_parquet(tmp_path / SCORES)
    assert dict(made.group_by("experiment").agg("forgetting").iter_rows()) == {
        "old": [None, None], "new": [1.5, 1.5],
    }  # fmt: skip


SCORED = ("stage", "knowledge_accumulation", "zero_shot_retention")


def test_the_leaderboards_picture_is_of_means_over_replicates(tmp_path, monkeypatch):
    rows = {"a_seed_0": (10.0, 30.0), "a_seed_1": (20.0, 50.0), "a": (1.0, 1.0), "b": (5.0, 5.0)}
    for name, (ka, zs) in rows.items():
        (tmp_path / name).mkdir()
        frame = pl.DataFrame([(0, ka, zs)], schema=SCORED, orient="row")
        with_all_scores(frame).write_parquet(tmp_path / name / SCORES)
    drawn = []
    monkeypatch.setattr("fomo_dagster.plots.scores.paths_plot", lambda f: drawn.append(f) or b"")
    node = LeaderboardNode(
        key="leaderboard", score_keys=tuple(f"{name}/scores" for name in rows),
        method_of={"a_seed_0": "a", "a_seed_1": "a"},
    )  # fmt: skip
    recipe = node.recipes({key: Facts(key) for key in node.inputs})["only"]

    def artifact(key):
        return SimpleNamespace(path=lambda file: tmp_path / key.partition("/")[0] / file)

    node.make("only", recipe, tmp_path, SimpleNamespace(artifact=artifact))
    (means,) = drawn
    ka = "knowledge_accumulation"
    assert means.select("experiment", "replicates", ka, f"{ka}_within").rows() == [
        ("a", 2, 15.0, pytest.approx(12.706 * 5, rel=1e-4)), ("b", 1, 5.0, None)
    ]  # fmt: skip


def test_a_metric_that_is_added_has_scores_computed_again(monkeypatch):
    node = ScoresNode(
        key="e/scores", experiment="e", evaluation_keys=(), chunk_keys=(), roles={}, since={},
        retention_warning=0.1, overview={},
    )  # fmt: skip
    before = node.recipes({})["only"]
    added = (*STAGE_METRICS, replace(FORGETTING, name="plasticity", first=False))
    monkeypatch.setattr(scores_node, "STAGE_METRICS", added)
    assert node.recipes({})["only"].parameters == {"roles": {}, "metrics": ["plasticity"]}
    assert node.recipes({})["only"].digest != before.digest


def test_one_metric_of_each_task_is_its_score():
    for metrics in (classification.METRICS, retrieval.METRICS):
        assert len({metric.name for metric in metrics}) == len(metrics)
        score = [metric.name for metric in metrics if metric.is_score]
        assert score in (["accuracy"], ["recall@5"])
        fixed = [replace(m, compute=lambda found, m=m: (len(m.name), found)) for m in metrics]
        values = values_of(fixed, 7)
        assert values["score"] == (len(score[0]), 7)
        assert list(values)[1:] == [metric.name for metric in metrics]

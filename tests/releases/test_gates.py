"""What gates say, of answers whose differences are known."""

import math

import polars as pl
import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.release import Gates, Release
from fomo_dagster.releases.gates import Evaluated, concepts_of, judge
from fomo_dagster.statistics.intervals import student
from fomo_dagster.tables.view_columns import PREDICTION_COLUMNS

ROLES = {"birds": "adaptation", "old": "held_out"}


def model(ece=2.0, **right):
    """dataset → how many of 200 images of two concepts it gets right, from the first on."""
    predictions = {}
    for dataset, count in right.items():
        rows = pl.DataFrame(
            {
                "dataset": dataset,
                "query": "image",
                "key": [f"{number:03d}" for number in range(200)],
                "concept": ["robin"] * 100 + ["wren"] * 100,
                "rank": [int(number not in range(*count)) for number in range(200)],
            },
            schema_overrides={"rank": pl.Int64},
        )
        columns = pl.DataFrame(schema=PREDICTION_COLUMNS)
        whole = pl.concat([columns, rows], how="diagonal")
        predictions[dataset] = whole.with_columns(correct=pl.col("rank") == 0)
    metrics = {name: {"expected_calibration_error": ece} for name in right}
    return Evaluated(predictions, metrics)


def verdict(gates, stage, live=None):
    (found,) = judge(Gates.model_validate(gates), ROLES, stage, live, 3)
    return found


@pytest.mark.parametrize("gained", [0, 2, 6, 30])
def test_a_better_score_passes_once_its_whole_interval_is_above(gained):
    live = model(birds=(0, 100), old=(0, 50))
    found = verdict(
        {"knowledge": {"at_least": "live"}}, model(birds=(0, 100 + gained), old=(0, 50)), live
    )
    assert found.estimate == pytest.approx(gained / 2)
    if gained:
        share = gained / 200
        error = 100 * math.sqrt(share * (1 - share) / 199)
        assert found.high - found.low == pytest.approx(2 * student(199) * error, rel=0.15)
    assert found.passed == (gained >= 6)
    if gained == 2:
        assert found.samples_needed > 200
        assert f"200 test samples are too few to tell, about {found.samples_needed}" in found.said
    if not gained:  # identical answers: no number of samples would show that it is better
        assert found.samples_needed is None


def test_no_worse_allows_its_margin_and_no_more():
    live = model(birds=(0, 100), old=(0, 100))
    gate = {"retention": {"no_worse_than": "live", "margin": 3}}
    assert verdict(gate, model(birds=(0, 100), old=(0, 100)), live).passed
    lost = verdict(gate, model(birds=(0, 100), old=(0, 90)), live)
    assert not lost.passed
    assert lost.samples_needed is None
    assert lost.said.startswith("ZS −5.00 (−")
    unclear = verdict(gate, model(birds=(0, 100), old=(0, 96)), live)
    assert (unclear.passed, unclear.limit) == (False, -3.0)
    assert unclear.samples_needed > unclear.samples == 200


def test_a_number_is_held_against_the_score_itself_and_needs_nothing_live():
    found = verdict({"geometric_mean": {"at_least": 40}}, model(birds=(0, 120), old=(0, 120)))
    assert found.passed
    assert found.estimate == pytest.approx(60)
    assert not verdict({"knowledge": {"at_least": 58}}, model(birds=(0, 120), old=(0, 9))).passed
    missing = verdict({"knowledge": {"at_least": "live"}}, model(birds=(0, 9), old=(0, 9)))
    assert (missing.passed, missing.said) == (False, "nothing is live yet")


def test_each_protected_dataset_and_concept_counts_by_itself():
    live = model(birds=(0, 150), old=(0, 100))
    stage = model(birds=(20, 170), old=(0, 100))  # robins lost, as many wrens won
    gates = {"protected": {"datasets": ["birds"], "concepts": ["birds/robin"], "margin": 8}}
    dataset, concept = judge(Gates.model_validate(gates), ROLES, stage, live, 3)
    assert (dataset.gate, concept.gate) == ("protected: birds", "protected: birds/robin")
    assert (dataset.estimate, concept.estimate) == (0.0, -20.0)
    assert (dataset.passed, concept.passed) == (True, False)
    assert (dataset.samples, concept.samples) == (200, 100)


def test_a_concept_without_its_dataset_is_that_of_each_which_has_it():
    protected = Gates.model_validate({"protected": {"concepts": ["wren", "old/red"]}}).protected
    there = {"birds": ("robin", "wren"), "old": ("red", "wren")}
    assert concepts_of(protected, there) == [("birds", "wren"), ("old", "wren"), ("old", "red")]
    with pytest.raises(InputError, match=r"the concept 'wren', which no .* did you mean 'wrens'"):
        concepts_of(Gates.model_validate({"protected": {"concepts": ["wren"]}}).protected,
                    {"birds": ("wrens",)})  # fmt: skip


def test_calibration_is_a_share_of_the_mean_error():
    stage = model(ece=4.9, birds=(0, 9), old=(0, 9))
    assert verdict({"calibration": {"ece_at_most": 0.05}}, stage).passed
    found = verdict({"calibration": {"ece_at_most": 0.04}}, stage)
    assert (found.passed, found.said) == (False, "calibration error 4.90 %: at most 4 %")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({}, "give either at_least, or no_worse_than"),
        ({"at_least": "live", "no_worse_than": "live", "margin": 1}, "give either"),
        ({"no_worse_than": "live"}, "no_worse_than needs a margin"),
        ({"at_least": "live", "margin": 1}, "margin belongs to no_worse_than"),
    ],
)
def test_a_gate_asks_one_thing(gate, said):
    with pytest.raises(ValueError, match=said):
        Gates.model_validate({"knowledge": gate})


def test_nothing_goes_live_unasked_and_unlooked_at():
    with pytest.raises(ValueError, match="there are no gates, so anything would go live"):
        Release(name="search", approval="automatic")
    assert Release(name="search").approval == "manual"

"""What gates say, of answers whose differences are known."""

import math
from dataclasses import replace

import polars as pl
import pytest

from fomo_dagster.data.near_duplicates import PAIRS, Found
from fomo_dagster.experiment.release import Gates, Release
from fomo_dagster.galleries.drift import METRICS
from fomo_dagster.releases.costs import Compared, Costs, Latency
from fomo_dagster.releases.gates import (
    Evaluated,
    GalleryDrift,
    absent,
    concepts_of,
    judge,
)
from fomo_dagster.statistics.intervals import student
from fomo_dagster.tables.view_columns import PREDICTION_COLUMNS

ROLES = {"birds": "adaptation", "old": "held_out"}


def model(ece=2.0, sure=0.95, **right):
    """dataset → how many of 200 images of two concepts it gets right, from the first on, of which
    it is so sure, and of the others as little."""
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
        predictions[dataset] = whole.with_columns(
            correct=pl.col("rank") == 0,
            probability_of_predicted=pl.when(pl.col("rank") == 0).then(sure).otherwise(1 - sure),
        )
    metrics = {name: {"accuracy": 0.0, "expected_calibration_error": ece} for name in right}
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
    assert not list(absent(protected, there))
    assert [concepts_of(named, there) for named in protected.concepts] == [
        [("birds", "wren"), ("old", "wren")], [("old", "red")]
    ]  # fmt: skip
    (said,) = absent(protected, {"birds": ("wrens",), "old": ("red",)})
    assert "the concept 'wren', which no evaluation dataset has: did you mean 'wrens'" in said
    protected = Gates.model_validate({"protected": {"datasets": ["bird"]}}).protected
    (said,) = absent(protected, there)
    assert "the dataset 'bird', which is not evaluated: did you mean 'birds'" in said


def test_calibration_is_a_share_of_the_mean_error():
    stage = model(ece=4.9, birds=(0, 9), old=(0, 9))
    assert verdict({"calibration": {"ece_at_most": 0.05}}, stage).passed
    found = verdict({"calibration": {"ece_at_most": 0.04}}, stage)
    assert (found.passed, found.said) == (
        False, "calibration error 4.90 % (4.90 to 4.90): at most 4 %"
    )  # fmt: skip


def test_a_calibration_error_lies_below_its_limit_by_the_whole_interval():
    def found(limit):
        stage = model(ece=0.0, sure=0.5, birds=(0, 100))  # as sure of all, right in half
        return verdict({"calibration": {"ece_at_most": limit}}, stage)

    error = 100 * student(199) * 0.5 / math.sqrt(199)
    assert found(0.08).passed
    assert found(0.08).high == pytest.approx(error, rel=1e-9)
    unclear = found(0.05)
    assert not unclear.passed
    assert unclear.samples_needed == math.ceil(200 * (error / 5) ** 2)
    assert f"200 test samples are too few to tell, about {unclear.samples_needed}" in unclear.said


@pytest.mark.parametrize("right", [1, 0])
def test_a_few_samples_that_all_are_right_or_wrong_leave_a_calibration_error_open(right):
    def found(*counts):
        birds = model(ece=0.0, sure=1.0, birds=(0, 200 * right)).predictions["birds"]
        predictions = {str(count): birds.head(count) for count in counts}
        metrics = {
            name: {"accuracy": 1.0, "expected_calibration_error": 0.0} for name in predictions
        }
        return verdict({"calibration": {"ece_at_most": 0.05}}, Evaluated(predictions, metrics))

    variance = {n: (n + 2) * 2 / (n + 4) ** 3 for n in (1, 5, 200)}  # of (n + 2) of n + 4
    assert found(200).high == pytest.approx(100 * student(199) * math.sqrt(variance[200]))
    assert found(200).passed
    few = found(5)
    assert few.high == pytest.approx(100 * student(4) * math.sqrt(variance[5]))
    assert not few.passed
    assert "5 test samples are too few to tell" in few.said
    assert found(1).high == 100.0
    freedom = (variance[5] + variance[200]) ** 2 / (
        variance[5] ** 2 / 4 + variance[200] ** 2 / 199
    )  # Satterthwaite's
    both = 100 * student(freedom) * math.sqrt(variance[5] + variance[200]) / 2
    assert found(5, 200).high == pytest.approx(both)


def test_what_a_stage_cannot_show_does_not_pass_and_says_so():
    held_out = model(old=(0, 100))
    gates = Gates.model_validate(
        {
            "knowledge": {"at_least": "live"},
            "protected": {"datasets": ["birds"], "concepts": ["lark", "old/robin"], "margin": 8},
        }
    )
    knowledge, dataset, concept, there = judge(gates, {"old": "held_out"}, held_out, held_out, 3)
    assert [one.passed for one in (knowledge, dataset, concept)] == [False] * 3
    assert knowledge.said.startswith("KA: no adaptation dataset is evaluated at this stage, so")
    assert dataset.said.startswith("birds is not evaluated at this stage, so nobody can tell")
    assert concept.said.startswith("lark has no test sample at this stage, so nobody can tell")
    assert (there.gate, there.passed) == ("protected: old/robin", True)


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({"birds": {"recall@5": 3.0}}, "nothing is classified"),
        ({"birds": {"accuracy": 3.0}}, "birds has no probabilities"),
    ],
)
def test_a_calibration_error_that_nobody_knows_does_not_pass(metrics, why):
    stage = replace(model(birds=(0, 9)), metrics=metrics)
    found = verdict({"calibration": {"ece_at_most": 0.05}}, stage)
    assert not found.passed
    assert found.said == (
        f"calibration error: {why} at this stage, so nobody can tell: at most 5 %"
    )


def brought(**kinds):
    """What a stage of 50 samples brings: kind → how many have a pair of it."""
    rows = [
        (kind, "birds", f"{kind}{number}", "old", "test", f"{number}", number)
        for kind, count in kinds.items()
        for number in range(count)
    ]
    return Found(50, 0, pl.DataFrame([(*row, None) for row in rows], PAIRS, orient="row"))


def test_test_images_that_earlier_stages_brought_are_leaks_as_well():
    gates = Gates.model_validate({"data": {}})
    stage, clean = model(birds=(0, 9), old=(0, 9)), brought()

    def found(earlier, **options):
        (verdict,) = judge(gates, ROLES, stage, None, None, clean, earlier, **options)
        return verdict

    assert found({1: clean}).passed
    leaking = found({1: clean, 2: brought(leakage=3)})
    assert not leaking.passed
    assert leaking.said == (
        "0 of 50 samples are near duplicates of a test image; stage 2, which its weights learnt "
        "from: 3 of 50 samples are near duplicates of a test image, such as birds/leakage0 and "
        "old/0 (0 bits apart): none"
    )
    assert found({2: brought(leakage=3)}, left_out=True).passed
    assert found({2: brought(earlier=3)}).passed


def test_what_a_later_test_set_has_of_earlier_stages_is_a_leak():
    gates = Gates.model_validate({"data": {}})
    found = brought(past_leakage=2)
    for left_out in (False, True):
        (verdict,) = judge(gates, ROLES, model(old=(0, 9)), None, None, found, left_out=left_out)
        assert (verdict.passed, verdict.estimate) == (False, 0.0)
        assert "2 of those that earlier stages brought are near duplicates" in verdict.said


def test_what_a_release_learnt_is_a_leak_or_not_known():
    gates = Gates.model_validate({"data": {}})
    leaking = brought(learnt_leakage=1)
    (verdict,) = judge(gates, ROLES, model(old=(0, 9)), None, None, leaking)
    assert (verdict.passed, verdict.estimate) == (False, 0.0)
    assert "1 of those that the release learnt which it starts from is a near" in verdict.said
    unknown = replace(brought(), unknown=[f"streams/a/chunk_00{n}" for n in (1, 2, 3, 4)])
    (verdict,) = judge(gates, ROLES, model(old=(0, 9)), None, None, unknown)
    assert not verdict.passed
    assert "streams/a/chunk_003 and 1 more: run an experiment of that stream" in verdict.said
    allowed = Gates.model_validate({"data": {"leakage": "allow", "near_duplicates_at_most": 0}})
    (verdict,) = judge(allowed, ROLES, model(old=(0, 9)), None, None, unknown)
    assert verdict.passed


@pytest.mark.parametrize("repeated", [1, 2])
def test_a_share_of_near_duplicates_is_allowed_and_no_leak(repeated):
    gates = Gates.model_validate({"data": {"near_duplicates_at_most": 0.02}})
    found = brought(earlier=repeated, leakage=1)
    leakage, share = judge(gates, ROLES, model(birds=(0, 9), old=(0, 9)), None, None, found)
    assert (leakage.gate, leakage.passed, leakage.estimate) == ("data: leakage", False, 2.0)
    assert leakage.said == (
        "1 of 50 samples is a near duplicate of a test image, such as birds/leakage0 and old/0 "
        "(0 bits apart): none"
    )
    assert (share.gate, share.passed) == ("data: near duplicates", repeated == 1)
    assert (share.estimate, share.limit, share.samples) == (2.0 * repeated, 2.0, 50)
    assert share.said.endswith("(0 bits apart): at most 2 %")


def test_data_is_judged_only_as_far_as_it_is_trained_on_and_asked_about():
    stage = model(birds=(0, 9), old=(0, 9))
    found = brought(leakage=3)

    def verdicts(gate, *arguments, **options):
        gates = Gates.model_validate({"data": gate})
        return judge(gates, ROLES, stage, None, None, *arguments, **options)

    (left_out,) = verdicts({}, found, left_out=True)
    assert (left_out.passed, left_out.estimate) == (True, 0.0)
    assert left_out.said.startswith("3 of 50 samples are near duplicates of a test image, such as")
    assert left_out.said.endswith(", left out: none")
    (allowed,) = verdicts({"near_duplicates_at_most": 0, "leakage": "allow"}, found)
    assert allowed.passed
    (of_nothing,) = verdicts({})
    assert (of_nothing.passed, of_nothing.said) == (True, "stage 0 brings no samples")
    with pytest.raises(ValueError, match="near_duplicates_at_most left out, so nothing is asked"):
        Gates.model_validate({"data": {"leakage": "allow"}})


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


def of_cost(gate, costs):
    gates, stage = Gates.model_validate({"cost": gate}), model(birds=(0, 9), old=(0, 9))
    return judge(gates, ROLES, stage, None if costs is None else stage, 3, costs=costs)


@pytest.mark.parametrize("image", [104, 105, 106])
def test_operations_and_parameters_may_grow_by_so_much(image):
    gate = {"flops_ratio_at_most": 1.05, "parameters_ratio_at_most": 2}
    costs = Compared(stage=Costs(image, 30, 3000), live=Costs(100, 40, 1000))
    of_image, of_text, parameters = of_cost(gate, costs)
    assert (of_image.passed, of_text.passed, parameters.passed) == (image <= 105, True, False)
    assert of_image.estimate == pytest.approx(image)
    assert (of_text.estimate, of_text.limit) == (75.0, 105.0)
    assert parameters.said == (
        "parameters: 3,000 are 3 times 1,000: at most 2 times those of release 3"
    )
    (alone,) = of_cost({"parameters_ratio_at_most": 3}, costs)
    assert alone.passed


def test_one_architecture_costs_the_same_and_what_is_not_counted_does_not_pass():
    gate = {"flops_ratio_at_most": 1}
    same = of_cost(gate, Compared(is_same=True))
    assert [(one.passed, one.estimate) for one in same] == [(True, 100.0)] * 2
    assert not any(
        one.passed for one in of_cost({"flops_ratio_at_most": 0.9}, Compared(None, None, True))
    )
    unknown = of_cost(gate, Compared(stage=Costs(1, 1, 1), live=None))
    assert [one.passed for one in unknown] == [False] * 2
    assert "those of release 3 cannot be counted" in unknown[0].said
    (nothing,) = of_cost(gate, None)
    assert (nothing.passed, nothing.said) == (False, "nothing is live yet")


def of_speed(limit, costs):
    gates = Gates.model_validate({"speed": {"latency_ratio_at_most": limit}})
    stage = model(birds=(0, 9), old=(0, 9))
    return judge(gates, ROLES, stage, None if costs is None else stage, 3, costs=costs)


@pytest.mark.parametrize(("high", "passes"), [(1.04, True), (1.06, False)])
def test_a_stage_may_take_so_much_longer_by_the_whole_interval(high, passes):
    latencies = {"image": Latency(1.02, 1.01, high, 90), "text": Latency(0.5, 0.4, 0.6, 90)}
    image, text = of_speed(1.05, Compared(latencies=latencies))
    assert (image.passed, text.passed) == (passes, True)
    assert (image.estimate, image.limit, image.samples) == (102.0, 105.0, 90)
    assert text.said == (
        "latency of texts 0.5 (0.4 to 0.6) times: at most 1.05 times that of release 3"
    )


def test_one_architecture_is_as_fast_and_with_nothing_live_nobody_can_tell():
    same = of_speed(1, Compared(is_same=True))
    assert [(one.passed, one.estimate) for one in same] == [(True, 100.0)] * 2
    assert not any(one.passed for one in of_speed(0.9, Compared(is_same=True)))
    (nothing,) = of_speed(1, None)
    assert (nothing.passed, nothing.said) == (False, "nothing is live yet")


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ({"cost": {}}, "give flops_ratio_at_most or parameters_ratio_at_most"),
        ({"speed": {}}, "latency_ratio_at_most"),
        ({"speed": {"latency_ratio_at_most": 0}}, "greater than 0"),
    ],
)
def test_a_gate_that_asks_nothing_is_refused(gates, said):
    with pytest.raises(ValueError, match=said):
        Gates.model_validate(gates)


def drift(**values):
    """metric → its mean, and how far its interval goes to each side, of 300 queries."""
    rows = [
        {"concept": None, "metric": metric, "value": mean, "low": mean - wide,
         "high": mean + wide, "samples": 300}
        for metric, (mean, wide) in values.items()
    ]  # fmt: skip
    rows.append({"concept": "wren", "metric": "cosine", "value": 0.1, "low": 0, "high": 1})
    return GalleryDrift(pl.DataFrame(rows, schema=METRICS))


def of_galleries(gate, **drifts):
    gates = Gates.model_validate({"galleries": gate})
    stage = model(birds=(0, 1))
    return judge(gates, ROLES, stage, stage, 0, drifts=drifts)


def test_a_gallery_must_still_be_found_by_the_whole_interval():
    gate = {"recall_compensated_at_least": 0.8, "cosine_at_least": 0.9}
    cosine, recall = of_galleries(
        gate, pets=drift(recall_compensated=(81.0, 0.5), cosine=(0.95, 0.01))
    )
    assert (cosine.gate, cosine.passed) == ("galleries: pets cosine", True)
    assert (recall.passed, recall.limit, recall.samples) == (True, 80, 300)
    assert recall.said == "pets recall_compensated 81.00 (80.50 to 81.50): at least 80"
    cosine, recall = of_galleries(
        gate, pets=drift(recall_compensated=(81.0, 2.0), cosine=(0.85, 0.01))
    )
    assert (cosine.passed, recall.passed) == (False, False)
    assert recall.samples_needed == 1200
    assert "300 queries are too few to tell, about 1200 would do" in recall.said


@pytest.mark.parametrize(
    ("asked", "metric", "limit"),
    [
        ("cosine_at_least", "cosine", 0.5),
        ("recall_old_queries_at_least", "recall_old_queries", 50),
        ("recall_new_queries_at_least", "recall_new_queries", 50),
        ("recall_compensated_at_least", "recall_compensated", 50),
    ],
)
def test_each_measure_of_a_gallery_can_be_asked_for(asked, metric, limit):
    below, above = (drift(**{metric: (limit * share, 0.01)}) for share in (0.8, 1.2))
    (shut,), (opened,) = (of_galleries({asked: 0.5}, pets=found) for found in (below, above))
    assert (shut.passed, opened.passed) == (False, True)
    assert shut.limit == opened.limit == limit
    assert shut.estimate == pytest.approx(0.8 * limit)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (GalleryDrift(), "it is not embedded yet"),
        (GalleryDrift(pl.DataFrame(schema=METRICS)), "it has too few rows to tell"),
        (drift(recall_compensated=(99, 0.1)), "its embeddings are of another size"),
        (drift(cosine=(0.9, 0.1)), "it has too few rows to tell"),
    ],
)
def test_a_gallery_that_cannot_be_judged_does_not_pass(found, why):
    (verdict,) = of_galleries({"recall_new_queries_at_least": 0.5}, pets=found)
    assert not verdict.passed
    assert why in verdict.said


def test_weights_that_embedded_a_gallery_are_no_drift():
    same = GalleryDrift(pl.DataFrame(schema=METRICS), is_same=True)
    (verdict,) = of_galleries({"recall_new_queries_at_least": 1}, pets=same)
    assert verdict.passed
    assert "embedded by these very weights" in verdict.said


def test_a_gate_on_galleries_asks_something():
    with pytest.raises(ValueError, match="nothing is asked: give one of cosine_at_least"):
        Gates.model_validate({"galleries": {}})

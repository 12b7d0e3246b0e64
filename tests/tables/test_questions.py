"""Every query of the guide has the answer that other ways to the same numbers have."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from fomo_dagster.tables.predictions import read_predictions
from fomo_dagster.tables.views import query

GUIDE = Path(__file__).parents[2] / "docs" / "questions.md"
QUERIES = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
STAGES, STEPS = 3, 2  # of the experiment `toy`
OF_MODELS = ("backbone", "trained", "evaluation")  # the kinds that compute on a device


def answer(home, number):
    """The rows that the guide's query of a number gives, counted from 1."""
    asked = QUERIES[number - 1].replace("quickstart_merge", "toy").replace("quickstart", "toy")
    return query(home.root, asked).rows()


def trajectories(home, view, *names):
    """What a row is of → its values by stage."""
    of = " AND metric = 'score'" if view == "evaluations" else ""
    columns = ", ".join((*names, "stage", "value"))
    rows = query(home.root, f"SELECT {columns} FROM {view} WHERE value IS NOT NULL{of}").rows()
    found = {}
    for *name, stage, value in rows:
        found.setdefault(tuple(name), {})[stage] = value
    return found


def predictions(home, stage):
    """(dataset, key) → a row."""
    rows = read_predictions(home, "toy", stage).rows.to_dicts()
    return {(row["dataset"], row["key"]): row for row in rows}


def steps_of(home, column):
    asked = f"SELECT stage, step, {column} FROM training_steps WHERE experiment = 'toy'"
    rows = query(home.root, asked).rows()
    assert len(rows) == STAGES * STEPS
    return sorted(rows)


def test_the_best_by_its_mean(finished):
    last = query(finished.home.root, f"FROM scores WHERE stage = {STAGES}").to_dicts()[0]
    assert answer(finished.home, 1) == [("toy", 1, last["geometric_mean"], None)]


def test_what_was_forgotten_of_datasets(finished):
    of_datasets = trajectories(finished.home, "evaluations", "dataset", "role")
    expected = {n: max(by.values()) - by[STAGES] for n, by in of_datasets.items()}
    found = answer(finished.home, 2)
    assert {(dataset, role): value for dataset, role, value in found} == expected
    assert [row[-1] for row in found] == sorted(expected.values(), reverse=True)


def test_concepts_that_drop(finished):
    drops = {
        (stage, *name): by[stage] - by[stage - 1]
        for name, by in trajectories(finished.home, "concept_scores", "dataset", "concept").items()
        for stage in range(1, STAGES + 1)
        if stage in by and stage - 1 in by and by[stage] < by[stage - 1]
    }
    found = answer(finished.home, 3)
    assert drops
    assert {row[:-1]: row[-1] for row in found} == drops
    assert [row[-1] for row in found] == sorted(drops.values())


def test_loss_curves_side_by_side(finished):
    losses = steps_of(finished.home, "loss")
    assert answer(finished.home, 4) == [(*row, row[-1]) for row in losses]


def test_what_a_point_costs(finished):
    values = dict(
        query(finished.home.root, "SELECT stage, knowledge_accumulation FROM scores").rows()
    )
    points = values[STAGES] - values[0]
    read = finished.home.heads.read
    costs = [read(f"toy/trained_{stage:03d}").cost for stage in range(1, STAGES + 1)]
    total = {name: sum(cost[name] for cost in costs) for name in ("flops", "seconds")}
    ((name, *found),) = answer(finished.home, 5)
    assert name == "toy"
    if points:
        assert found == pytest.approx([points, total["flops"] / points, total["seconds"] / points])
    else:
        assert found[0] == 0


def test_images_that_are_wrong(finished):
    wrong = [row for row in predictions(finished.home, STAGES).values() if row["rank"] > 0]
    columns = ("dataset", "key", "concept", "predicted", "probability_of_predicted")
    assert 0 < len(wrong) <= 20
    found = answer(finished.home, 6)
    assert sorted(found) == sorted(tuple(row[name] for name in columns) for row in wrong)
    assert [row[-1] for row in found] == sorted((row[-1] for row in found), reverse=True)


def test_concepts_that_were_hit_hardest(finished):
    before, after = (predictions(finished.home, stage) for stage in (0, STAGES))
    samples, lost, won = Counter(), Counter(), Counter()
    for name, row in after.items():
        was_right, is_right = before[name]["rank"] == 0, row["rank"] == 0
        concept = (row["dataset"], row["concept"])
        samples[concept] += 1
        lost[concept] += was_right and not is_right
        won[concept] += is_right and not was_right
    found = answer(finished.home, 7)
    assert sorted(found) == sorted((*c, n, lost[c], won[c]) for c, n in samples.items())
    assert sum(lost.values()) + sum(won.values()) > 0
    hit = [row[3] - row[4] for row in found]
    assert hit == sorted(hit, reverse=True)


def test_samples_a_second(finished):
    # on a CPU nobody tells of how much that is
    expected = [(*row, None) for row in steps_of(finished.home, "samples_per_second")]
    assert answer(finished.home, 8) == expected


def test_hits_and_what_was_computed(finished):
    found = answer(finished.home, 9)
    assert sum(row[1] for row in found) == 0
    assert sum(row[2] for row in found) == len(list(finished.home.heads.below("")))


def test_device_hours(finished):
    heads = [finished.home.heads.read(asset) for asset in finished.home.heads.below("")]
    of_models = [head for head in heads if head.kind in OF_MODELS]
    ((device, hours, _),) = answer(finished.home, 10)
    assert device == "cpu"
    assert hours == pytest.approx(math.fsum(head.cost["seconds"] for head in of_models) / 3600)


def test_there_are_ten():
    assert len(QUERIES) == 10

"""Further measures of a stage: assets of their own, which leave all others as they are."""

import shutil

import pytest
from PIL import Image

from fomo_dagster.errors import InputError
from fomo_dagster.evaluation import few_shot, layer_temperature, temperature
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.core.facts import Facts
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work import counted_costs
from fomo_dagster.models import layers
from fomo_dagster.tables.views import query

OPTIONS = {
    "few_shot": "evaluation.few_shot={shots: [1, 3], regularisation: {per_decade: 1}}",
    "temperature": "evaluation.temperature={}",
    "layer_temperature": "evaluation.layer_temperature={}",
    "corruptions": "evaluation.corruptions={kinds: [contrast], severities: [1, 5]}",
}
COLUMNS = "dataset", "metric", "value"
LAST = "SELECT * FROM evaluations WHERE stage = 3"


def made(project, kind):
    """The context, and what materialising the last stage's measure gave."""
    graph = build_graph([project.load("toy", OPTIONS[kind])])
    context = RunContext(graph, project.home)
    return context, materialise(f"toy/{kind}_003", context)


@pytest.mark.parametrize("kind", OPTIONS)
def test_a_measure_adds_assets_and_changes_no_other(project, kind):
    before, after = project.graph("toy"), project.graph("toy", OPTIONS[kind])
    new = {f"toy/{kind}_{stage:03d}" for stage in range(4)}
    assert after.nodes.keys() - before.nodes.keys() == new
    kept = {key: after.code_versions[key] for key in before.code_versions}
    assert kept == before.code_versions
    assert project.graph("toy", f"evaluation.{kind}=null").nodes.keys() == before.nodes.keys()


def test_a_plan_computes_measures_alone_once_they_are_asked_for(finished_project):
    graph = build_graph([finished_project.load("toy", *OPTIONS.values())])
    planned = plan(graph.nodes.values(), RunContext(graph, finished_project.home))
    computed = {entry.asset for entry in planned if entry.compute}
    assert computed == {f"toy/{kind}_{stage:03d}" for kind in OPTIONS for stage in range(4)}
    (last,) = (entry for entry in planned if entry.asset == "toy/few_shot_003")
    assert last.compute == ("birds", "cats", "old")
    assert last.samples == 9 * 4 + 9 * 2  # four training images of each concept, and two test


def test_few_shot_rows_stand_beside_the_evaluation_and_in_no_score(finished_project):
    home = finished_project.home.root
    scores = query(home, "FROM scores"), query(home, "FROM leaderboard")
    context, outcome = made(finished_project, "few_shot")
    rows = query(home, f"{LAST} AND metric LIKE '%_shot'")
    assert set(rows["metric"]) == {
        f"{name}_{shots}_shot" for name in ("linear_probe", "nearest_class_mean")
        for shots in (1, 3)
    }  # fmt: skip
    assert dict(rows.select("dataset", "role").unique().iter_rows()) == {
        "birds": "adaptation", "cats": "adaptation", "old": "held_out",
    }  # fmt: skip
    assert dict(rows.select("dataset", "samples").unique().iter_rows()) == {
        "birds": 8, "cats": 4, "old": 6,
    }  # fmt: skip
    assert scores[0].equals(query(home, "FROM scores"))
    assert scores[1].equals(query(home, "FROM leaderboard"))
    shown = context.graph.nodes["toy/few_shot_003"].shown(outcome, context)
    assert shown["chosen_C"]["shots"].to_list() == [1, 3] * 3


def test_measures_take_the_features_of_the_evaluation_and_the_scores_are_the_same(
    finished_project, monkeypatch
):
    kinds = "evaluation", "few_shot", "temperature"
    asked = (OPTIONS["few_shot"], OPTIONS["temperature"])
    project, seen = finished_project, []
    home = project.home.root
    images, features = Encoder.images, EvaluationNode.image_features

    def count(encoder, dataset, samples, index):
        seen.append((dataset, *samples["split"].unique(), *samples["key"]))
        return images(encoder, dataset, samples, index)

    def keep_nothing(node, *others, kept):
        return features(node, *others, kept=False)

    monkeypatch.setattr(Encoder, "images", count)

    def rows():
        for kind in kinds:
            shutil.rmtree(home / "store" / kind, ignore_errors=True)
        context = RunContext(build_graph([project.load("toy", *asked)]), project.home)
        for kind in kinds:
            materialise(f"toy/{kind}_003", context)
        return query(home, f"{LAST} ORDER BY ALL")

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationNode, "image_features", keep_nothing)
        usual = rows()
    assert {seen.count(one) for one in seen if one[1] == "test"} == {3}
    seen.clear()
    assert rows().equals(usual)
    assert {one[0] for one in seen} == {"birds", "cats", "old"}
    assert len(set(seen)) == len(seen)


def test_before_a_temperature_is_fitted_calibration_is_the_evaluations(finished_project):
    context, outcome = made(finished_project, "temperature")
    rows = query(finished_project.home.root, LAST)
    evaluated = {(d, m): value for d, m, value in rows.select(*COLUMNS).iter_rows()}
    shown = context.graph.nodes["toy/temperature_003"].shown(outcome, context)
    for row in shown["metrics"].iter_rows(named=True):
        if row["metric"] == "temperature":
            assert row["value"] == pytest.approx(shown["metrics"]["value"][0])  # shared by all
        else:
            name = row["metric"].removesuffix("_scaled")
            assert row["before"] == evaluated[row["dataset"], name]
            assert row["value"] == evaluated[row["dataset"], row["metric"]]
    names = {metric for _, metric in evaluated}
    assert {metric.name for metric in temperature.METRICS} <= names
    assert not names & {metric.name for metric in few_shot.METRICS}
    assert shown["reliability_all"].path.read_bytes().startswith(b"\x89PNG")


def test_the_stack_of_one_layer_is_the_model_with_its_temperature(finished_project):
    """The toy's image tower has one block. One fold would have its opposite: it gets the weight 0,
    and the highest temperature, 100."""
    context, outcome = made(finished_project, "layer_temperature")
    rows = query(finished_project.home.root, LAST)
    evaluated = {(d, m): value for d, m, value in rows.select(*COLUMNS).iter_rows()}
    names = {metric for _, metric in evaluated}
    assert {metric.name for metric in layer_temperature.METRICS[1:]} | {"layer_weight_1"} <= names
    shown = context.graph.nodes["toy/layer_temperature_003"].shown(outcome, context)
    assert set(shown["metrics"]["dataset"]) == {"birds", "cats", "old"}
    for row in shown["metrics"].iter_rows(named=True):
        assert row["as_it_is"] == evaluated[row["dataset"], row["metric"]]
        assert row["with_layers"] == pytest.approx(row["with_temperature"], rel=0.02)
        assert row["with_layers"] == evaluated[row["dataset"], f"{row['metric']}_stacked"]
    assert shown["reliability_all"].path.read_bytes().startswith(b"\x89PNG")


def test_a_tower_that_gives_no_layers_is_refused_in_the_plan(project, monkeypatch):
    monkeypatch.setattr(layers, "_BLOCKS", ())
    monkeypatch.setattr(counted_costs, "_known", {})
    graph = build_graph([project.load("toy", OPTIONS["layer_temperature"])])
    refusal = "backbone 'toy': the vision tower, VisionTransformer, cannot give"
    with pytest.raises(InputError, match=refusal):
        plan(graph.nodes.values(), RunContext(graph, project.home))


def test_another_kind_of_corruption_is_computed_alone(finished_project):
    context, outcome = made(finished_project, "corruptions")
    rows = query(finished_project.home.root, f"{LAST} AND dataset = 'birds'")
    values = dict(rows.select("metric", "value").iter_rows())
    mean = (values["accuracy_contrast_1"] + values["accuracy_contrast_5"]) / 2
    assert values["corruption_accuracy"] == mean
    shown = context.graph.nodes["toy/corruptions_003"].shown(outcome, context)
    assert shown["corruption_accuracy_birds"] == round(mean, 2)
    more = "evaluation.corruptions={kinds: [fog, contrast], severities: [1, 5]}"
    graph = build_graph([finished_project.load("toy", more)])
    planned = plan(graph.nodes.values(), RunContext(graph, finished_project.home))
    (last,) = (entry for entry in planned if entry.asset == "toy/corruptions_003")
    assert last.compute == ("birds/fog", "cats/fog", "old/fog")
    assert last.samples == 2 * 18


def test_other_photographs_of_frost_are_another_recipe(finished_project):
    project = finished_project
    given = "kinds: [contrast, frost], severities: [1], frost_pictures: ../frost"
    option = f"evaluation.corruptions={{{given}}}"
    folder = project.root / "frost"
    folder.mkdir()

    def to_compute():
        graph = build_graph([project.load("toy", option)])
        planned = plan(graph.nodes.values(), RunContext(graph, project.home))
        (last,) = (entry for entry in planned if entry.asset == "toy/corruptions_003")
        return last.compute

    with pytest.raises(InputError, match=f"no photographs of frost in {project.root}"):
        to_compute()
    Image.new("RGB", (40, 40), (200, 220, 255)).save(folder / "a.png")
    graph = build_graph([project.load("toy", option)])
    materialise("toy/corruptions_003", RunContext(graph, project.home))
    kinds = query(project.home.root, f"SELECT DISTINCT metric {LAST[9:]} AND metric LIKE '%frost%'")
    assert kinds["metric"].to_list() == ["accuracy_frost_1"]
    assert to_compute() == ()
    Image.new("RGB", (40, 40), (0, 0, 255)).save(folder / "b.png")
    assert to_compute() == ("birds/frost", "cats/frost", "old/frost")


@pytest.mark.parametrize(
    ("shared_by", "groups"),
    [
        ("stage", {"all": ("birds", "cats", "old")}),
        ("role", {"adaptation": ("birds", "cats"), "held_out": ("old",)}),
        ("dataset", {name: (name,) for name in ("birds", "cats", "old")}),
    ],
)
def test_what_shares_a_temperature_is_declared(project, shared_by, groups):
    graph = project.graph("toy", f"evaluation.temperature={{shared_by: {shared_by}}}")
    assert graph.nodes["toy/temperature_001"].groups == groups


def test_datasets_without_training_split_are_left_out_and_said(project):
    node = project.graph("toy", OPTIONS["few_shot"]).nodes["toy/few_shot_001"]

    def facts(**train):
        details = {
            name: SampleDetails(
                train={"a": "digest"} if name in train else {},
                train_samples={"a": train[name]} if name in train else {}, wordless=[],
                test="t", test_samples=4, concepts=["a", "b"], quarantined=[],
            )
            for name in node.datasets
        }  # fmt: skip
        found = {f"shards/{name}": Facts("0" * 32, of) for name, of in details.items()}
        return {**found, node.evaluation.checkpoint_key: Facts("1" * 32)}

    assert node.recipes(facts(birds=20, old=20)).keys() == {"birds", "old"}
    said = list(node.remarks(facts(birds=20, old=20), None))
    assert [sentence for sentence in said if "no training split" in sentence] == [
        "dataset 'cats' has no training split, and is left out of few_shot: give it one to have "
        "it measured"
    ]
    with pytest.raises(InputError, match="none of birds, cats, old has a training split"):
        node.recipes(facts())

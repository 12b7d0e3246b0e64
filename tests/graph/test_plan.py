"""What a plan counts where assets have something in common."""

from dataclasses import replace

import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.evaluation import alike
from fomo_dagster.evaluation.alike import alike_classes
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.core.facts import facts_of
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext

CONCEPTS = {"birds": ("robin", "wren", "crow", "swan"), "cats": ("lion", "lynx"),
            "old": ("red", "green", "blue")}  # fmt: skip


def test_what_assets_have_in_common_is_computed_once_and_said_so(project):
    project.write("other", optimiser={"learning_rate": 2e-3})
    graph = build_graph([project.load("toy"), project.load("other")])
    entries = plan(graph.of("toy", "other"), RunContext(graph, project.home))
    of = {entry.asset: entry for entry in entries}
    first, second = of["toy/evaluation_000"], of["other/evaluation_000"]
    assert set(first.compute) == set(second.hits) == {"birds", "cats", "old"}
    assert first.reasons == ("never computed",)
    assert second.reasons == ("computed once, for toy/evaluation_000",)
    assert (second.status, second.compute, second.current) == ("hit", (), False)
    assert second.estimated_seconds == 0
    for name in ("trained_001", "evaluation_001", "scores"):
        assert of[f"toy/{name}"].compute
        assert of[f"other/{name}"].compute


@pytest.mark.parametrize(
    ("other", "said"), [({"kind": "of_tomorrow"}, "of_tomorrow"), ({"facts": {}}, "samples")]
)
def test_a_head_of_another_version_is_a_sentence_with_the_asset(finished_project, other, said):
    head = finished_project.home.heads.read("shards/cats")
    with pytest.raises(StoreError, match=f"wrote the head of shards/cats, .*{said}.*: materialise"):
        facts_of(replace(head, **other))


def test_classes_are_compared_once_for_all_stages_of_all_experiments(project, monkeypatch):
    asked = []

    def counting(classes, prompts, own_prompt, *others, **options):
        asked.append((tuple(classes), prompts))
        return alike_classes(classes, prompts, own_prompt, *others, **options)

    monkeypatch.setattr(alike, "alike_classes", counting)
    project.write("other", seed=1)
    project.write("worded", evaluation={"held_out": ["old"], "prompts": ["a {}", "one {}"]})
    names = ("toy", "other", "worded")
    graph = build_graph([project.load(name) for name in names])
    plan(graph.of(*names), RunContext(graph, project.home))
    classes = [tuple(sorted(concepts)) for concepts in CONCEPTS.values()]
    assert sorted(asked, key=str) == sorted(
        [(one, prompts) for one in classes for prompts in ("dataset", ("a {}", "one {}"))], key=str
    )

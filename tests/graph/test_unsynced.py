"""Dagster's own staleness: "Materialize unsynced" selects what a change touches, and no more."""

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus

from assets.building import build_definitions
from assets.specs import key_of
from fomo_dagster.cli.dagster_home import prepare
from fomo_dagster.cli.materialising import observe_sources
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import COMMANDS
from resources.run_contexts import RunContexts


def definitions_of(project):
    request = resolve_request("toy", [])
    return build_definitions(request.graph, RunContexts.of(project.home), COMMANDS)


def unsynced(project, instance):
    """The keys that the UI's "Materialize unsynced" would select."""
    observe_sources(resolve_request("toy", []), instance)
    graph = definitions_of(project).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, loading_context=_context(instance))
    return {
        key.to_user_string()
        for key in graph.materializable_asset_keys
        if resolver.get_status(key) != StaleStatus.FRESH
    }


def _context(instance):
    from dagster._core.loader import LoadingContextForTest

    return LoadingContextForTest(instance)


def follow(*first):
    """The closure of some assets in the toy's graph."""
    graph = resolve_request("toy", []).graph
    found = set(first)
    for node in graph.nodes.values():
        if found & set(node.inputs):
            found.add(node.key)
    return found


CHANGES = {
    "nothing": (lambda project: None, lambda: set()),
    "execution": (
        lambda project: project.write("toy", execution={"device": "cpu", "workers": 1}),
        lambda: set(),
    ),
    "the learning rate": (
        lambda project: project.write("toy", optimiser={"learning_rate": 5e-4}),
        lambda: follow("toy/trained_001", "toy/trained_002", "toy/trained_003"),
    ),
    "the evaluation's prompts": (
        lambda project: project.write("toy", evaluation={"held_out": ["old"], "prompts": ["a {}"]}),
        lambda: follow(*(f"toy/evaluation_{stage:03d}" for stage in range(4))),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_unsynced_is_what_a_change_touches_and_materialising_it_updates_all(
    finished_project, change
):
    do, expected = CHANGES[change]
    instance = prepare(finished_project.home)
    assert unsynced(finished_project, instance) == set()
    do(finished_project)
    stale = unsynced(finished_project, instance)
    assert stale == expected()
    if stale:
        materialise(finished_project, stale, instance)
    assert unsynced(finished_project, instance) == set()
    assert all(entry.current for entry in resolve_request("toy", []).plan())


def test_new_images_go_stale_edge_by_edge_until_nothing_they_touch_is(finished_project):
    """Dagster compares data versions one edge far: whether what follows changes, the content of
    what was just made decides. Chunks of other concepts come out as they were and stop it."""
    instance = prepare(finished_project.home)
    finished_project.add_image("cats", "train", "lynx", 1004)
    seen = []
    while stale := unsynced(finished_project, instance):
        seen.append(stale)
        materialise(finished_project, stale, instance)
    assert seen[0] == {"shards/cats"}
    touched = set().union(*seen)
    assert "toy/trained_003" in touched
    assert touched.isdisjoint({"toy/trained_001", "toy/trained_002", "backbones/toy"})
    assert all(entry.current for entry in resolve_request("toy", []).plan())


def materialise(project, keys, instance):
    definitions = definitions_of(project)
    assert dg.materialize(
        [*definitions.assets],
        selection=dg.AssetSelection.assets(*map(key_of, keys)),
        resources=definitions.resources,
        instance=instance,
    ).success

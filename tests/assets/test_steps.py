"""The steps that make assets, beside what Dagster's own decorator gives for the same specs."""

import dagster as dg
import pytest
from dagster._core.selector.subset_selector import generate_asset_dep_graph

from assets.building import build_assets, job_of
from assets.checks import check_specs_of
from assets.specs import spec_of
from fomo_dagster.cli.materialising import Materialising
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.graph.core.keys import step_of, what_is_made
from resources.dagster_internals import dependencies_of
from resources.run_contexts import RunContexts


def as_decorated(nodes, graph):
    @dg.multi_asset(
        name=step_of(nodes[0].key),
        specs=[spec_of(node, graph) for node in nodes],
        check_specs=[check for node in nodes for check in check_specs_of(node)],
        can_subset=len(nodes) > 1,
        required_resource_keys={"run_contexts"},
    )
    def compute(context: dg.AssetExecutionContext):
        yield from ()

    return compute


def outs_of(made):
    return {
        out.name: (out.dagster_type.key, out.is_required, out.description, out.code_version)
        for out in made.op.output_defs
    }


@pytest.mark.parametrize("kind", ["shards", "backbones", "streams", "toy"])
def test_a_step_is_what_dagster_s_decorator_gives_for_its_specs(project, kind):
    graph = project.graph()
    steps: dict[str, list] = {}
    for node in graph.nodes.values():
        steps.setdefault(what_is_made(node.key), []).append(node)
    made = {one.op.name: one for one in build_assets(graph) if isinstance(one, dg.AssetsDefinition)}
    looked_at = [nodes for key, nodes in steps.items() if key.startswith(kind)]
    assert looked_at
    for nodes in looked_at:
        step, expected = made[step_of(nodes[0].key)], as_decorated(nodes, graph)
        assert list(step.specs) == list(expected.specs)
        assert list(step.check_specs) == list(expected.check_specs)
        assert step.can_subset == expected.can_subset
        assert set(step.keys_by_input_name.values()) == set(expected.keys_by_input_name.values())
        assert step.keys_by_output_name == expected.keys_by_output_name
        assert step.op.required_resource_keys == expected.op.required_resource_keys
        assert outs_of(step) == outs_of(expected)
        assert {one.dagster_type.key for one in step.op.input_defs} <= {"Nothing"}


def test_what_depends_on_an_asset_is_what_dagster_finds(project):
    resources = {"run_contexts": RunContexts.of(project.home)}
    definitions = dg.Definitions(build_assets(project.graph()), resources=resources)
    graph = definitions.get_repository_def().asset_graph
    found = dependencies_of(graph.assets_defs)
    assert found == generate_asset_dep_graph(graph.assets_defs)
    assert len(found["downstream"]) > 20
    assert all(found["upstream"][key] == graph.get(key).parent_keys for key in found["upstream"])


def test_assets_with_resources_are_others_than_those_without(project):
    step = next(
        one for one in build_assets(project.graph()) if isinstance(one, dg.AssetsDefinition)
    )
    first, second = (
        step.with_resources({"run_contexts": dg.ResourceDefinition.hardcoded_resource(one)})
        for one in ("first", "second")
    )
    assert first.resource_defs != second.resource_defs
    assert not step.resource_defs
    assert list(first.specs) == list(step.specs)


def test_a_run_defines_the_assets_of_its_experiments_alone(project, monkeypatch):
    project.write("other")
    monkeypatch.setenv("FOMO_PROJECT", str(project.root))
    monkeypatch.setenv("FOMO_HOME", str(project.root / ".fomo"))
    request = resolve_request("toy", [])
    run = Materialising(request, None, "", None, None, None, None, {})
    made = [one for one in run._assets if isinstance(one, dg.AssetsDefinition)]
    keys = {key.to_user_string() for one in made for key in one.keys}
    assert keys == {node.key for node in request.nodes} < request.graph.nodes.keys()
    job = dg.Definitions(
        run._assets, jobs=[job_of("toy", ["toy"], request.graph)],
        resources={"run_contexts": RunContexts.of(request.home)},
    ).resolve_job_def("toy")  # fmt: skip
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == keys

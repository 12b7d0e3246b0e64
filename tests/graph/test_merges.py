"""What a stage deploys where it merges: what it is made from, and that it is just that merge."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("merge", "declared", "bases"),
    [
        ({}, {"technique": "interpolation", "weight": 0.5}, False),
        ({"weight": 0.25}, {"technique": "interpolation", "weight": 0.25}, False),
        ({"technique": "slerp"}, {"technique": "slerp", "weight": 0.5}, False),
        (
            {"technique": "magmax", "group_scales": {"text": 0.5}},
            {"technique": "magmax", "scale": 1.0, "group_scales": {"text": 0.5}},
            True,
        ),
    ],
)
def test_techniques_over_task_vectors_are_made_from_theta_0_too(project, merge, declared, bases):
    project.write("toy", method={"start_from": "deployed", "merge": merge})
    nodes = project.graph().nodes
    theta = next(key for key, node in nodes.items() if getattr(node, "kind", "") == "backbone")
    second = nodes["toy/deployed_002"]
    assert second.declared == declared  # what is not given is no part of the identity
    base = (theta,) if bases else ()
    assert second.inputs == (*base, "toy/deployed_001", "toy/trained_002")
    assert nodes["toy/deployed_001"].inputs == (theta, "toy/trained_001")


def test_what_is_deployed_is_the_merge_of_the_trained_weights_over_theta_0(finished_project):
    arithmetic = {"technique": "task_arithmetic", "coefficients": [0.5, 0.25], "scale": 0.8}
    finished_project.write("toy", method={"merge": arithmetic})
    graph = finished_project.graph()
    context = RunContext(graph, finished_project.home)

    def weights(key):
        loaded = load_file(context.artifact(key).path(WEIGHTS))
        return {name: values.astype(np.float64) for name, values in loaded.items()}

    theta = weights(graph.nodes["toy/deployed_001"].base_key)
    deployed = theta
    for stage in (1, 2):
        materialise(f"toy/deployed_{stage:03d}", context)
        found, trained = weights(f"toy/deployed_{stage:03d}"), weights(f"toy/trained_{stage:03d}")
        assert any(not np.array_equal(found[name], theta[name]) for name in theta)
        for name, base in theta.items():
            merged = 0.5 * (deployed[name] - base) + 0.25 * (trained[name] - base)
            np.testing.assert_allclose(found[name], base + 0.8 * merged, rtol=1e-5, atol=1e-7)
        deployed = found


@pytest.mark.parametrize("technique", ["model_stock", "consensus"])
def test_the_first_stage_deploys_what_was_trained_where_no_other_can_be_merged(
    finished_project, technique
):
    """θ₀ is no model of its own here, which would hold a merge of agreement back for ever."""
    finished_project.write("toy", method={"merge": {"technique": technique}})
    context = RunContext(finished_project.graph(), finished_project.home)
    materialise("toy/deployed_001", context)
    found, trained = (
        load_file(context.artifact(f"toy/{kind}_001").path(WEIGHTS))
        for kind in ("deployed", "trained")
    )
    for name, values in trained.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-8)

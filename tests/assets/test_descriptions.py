"""What Dagster shows of an asset: plain numbers to plot, and their cost in units to read."""

from assets.descriptions import metadata_of
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.units import in_units


def test_the_cost_of_an_asset_stands_in_units_beside_the_plain_numbers(finished_project):
    context = RunContext(finished_project.graph(), finished_project.home)
    head = context.heads.read("toy/trained_001")
    artifacts = {name: context.artifact("toy/trained_001", name) for name in head.artifacts}
    outcome = Outcome(head, artifacts, (), 0.0)
    shown = metadata_of(context.graph.nodes["toy/trained_001"], outcome, context)
    assert shown["flops"] == 2 * 3_646_368
    cost = shown["cost"].split(", ")
    assert {"7.29 MFLOPs", "18 samples", in_units("seconds", head.cost["seconds"])} <= set(cost)
    assert any(part.startswith("peak process memory ") for part in cost)
    assert any(part.endswith(" samples/s") for part in cost)

"""An average over steps in the graph: it is identity where it is there, and nothing where not."""

from typing import Any

import pytest

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.errors import InputError

pytestmark = pytest.mark.slow


def declared(project: Any, stage: int, **method: Any) -> dict[str, Any]:
    project.write("averaged", method=method)
    found: dict[str, Any] = dict(
        project.graph("averaged").nodes[f"averaged/trained_{stage:03d}"].declared
    )
    return found


@pytest.mark.parametrize("method", [{}, {"name": "lora", "rank": 2}], ids=["weights", "adapters"])
def test_an_average_enters_the_recipe_where_it_is_declared_and_only_there(
    project: Any, method: dict[str, Any]
) -> None:
    plain = declared(project, 2, **method)
    assert declared(project, 2, **method, average=None) == plain
    averaged = declared(project, 2, **method, average={"name": "uniform"})
    assert averaged == plain | {"average": {"name": "uniform", "every": 100}}


def test_another_decay_trains_all_stages_anew(finished_project: Any) -> None:
    """But θ₀, which is not averaged."""
    finished_project.write("toy", method={"average": {"name": "exponential", "decay": 0.5}})
    planned = {entry.asset for entry in resolve_request("toy", []).plan() if entry.compute}
    assert {f"toy/trained_{stage:03d}" for stage in (1, 2, 3)} <= planned
    assert not {"backbones/toy", "toy/evaluation_000"} & planned


def test_an_average_that_does_not_exist_is_named(project: Any) -> None:
    project.write("averaged", method={"average": {"name": "exponentail"}})
    with pytest.raises(InputError, match=r"exponentail.*exponential"):
        project.load("averaged")


def test_a_second_average_beside_the_optimisers_is_refused(project: Any) -> None:
    project.write(
        "averaged",
        method={"average": {"name": "uniform", "every": 1}},
        optimiser={"name": "schedule_free_adamw"},
        schedule={"name": "constant"},
    )
    with pytest.raises(InputError, match=r"average is uniform, but optimiser.name is schedule_fr"):
        project.load("averaged")

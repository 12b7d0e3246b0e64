"""Whole numbers of what nobody lives to see are refused, at every key that takes one."""

import typing
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from fomo_dagster.cli.schedules import rates_of
from fomo_dagster.data.declarations import LARGEST_COUNT, LARGEST_SEED, Declaration
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.json_schema import json_schema
from fomo_dagster.graph.work.budgets import MemoryAdjusted

HUGE = 10**20


def forms(form: type[Declaration] = Declaration) -> Iterator[type[Declaration]]:
    """All that is declared, and takes a whole number somewhere."""
    for kind in form.__subclasses__():
        yield kind
        yield from forms(kind)


def refused_at(form: type[Declaration], key: str, value: object) -> bool:
    try:
        form.model_validate({key: value})
    except ValidationError as error:
        return any(problem["loc"][:1] == (key,) for problem in error.errors())
    return False


def test_no_key_takes_a_number_that_cannot_be_done():
    json_schema()  # imports what an experiment can have
    keys = {
        (form, key)
        for form in forms()
        for key, field in form.model_fields.items()
        if int in (field.annotation, *typing.get_args(field.annotation))
    }
    assert len(keys) > 40
    assert [(form, key) for form, key in keys if not refused_at(form, key, HUGE)] == []


@pytest.mark.parametrize(
    ("key", "largest"), [("seed", LARGEST_SEED), ("batch_size", LARGEST_COUNT)]
)
def test_a_seed_can_be_any_that_a_table_holds_and_a_count_less(project, key, largest):
    loaded = project.load("toy", f"{key}={largest}", "budget={steps: 3}")
    assert getattr(loaded.experiment, key) == largest
    said = rf"{key} is {largest + 1}: a whole number must be at most {largest:,}$"
    with pytest.raises(InputError, match=said):
        project.load("toy", f"{key}={largest + 1}", "budget={steps: 3}")


def test_a_number_within_a_mapping_is_named(project):
    said = rf"backbone\.architecture: .* at most {LARGEST_COUNT:,}, and {HUGE} is in it"
    with pytest.raises(InputError, match=said):
        project.load("toy", f"backbone.architecture.embed_dim={HUGE}")


@pytest.mark.parametrize("budget", ["steps: 1e20", f"samples: {HUGE}", "epochs: 1e7"])
def test_a_budget_of_any_unit_has_an_end(project, budget):
    with pytest.raises(InputError, match=r"must be at most|a smaller whole number"):
        project.load("toy", f"budget={{{budget}}}")


def test_operations_that_buy_too_many_steps_are_refused():
    cost = MemoryAdjusted(10**6, 0, 1, multiplier=1.0)  # 0.001 MAFs a step
    assert cost.steps(2e9, 2) == 10**12
    with pytest.raises(InputError, match=r"budget.mafs is 4e\+09, which buys 2,000,000,000,000 s"):
        cost.steps(4e9, 2)


def test_a_schedule_of_too_many_steps_is_not_computed(project):
    many = ["budget={steps: 2_000_000}"]
    with pytest.raises(InputError, match="toy has 3 stages of 2,000,000 steps, and `fomo"):
        rates_of("toy", many, None, None)
    with pytest.raises(InputError, match=r"3 stages of 100,000,000,000,000,000,000 steps"):
        rates_of("toy", [], HUGE, None)
    assert rates_of("toy", many, 5, 2)[1].height == 10

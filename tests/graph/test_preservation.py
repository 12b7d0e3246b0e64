from __future__ import annotations

from typing import Any

import pytest

from fomo_dagster.errors import InputError


def inputs(project: Any, name: str, stage: int) -> tuple[str, ...]:
    return project.graph(name).nodes[f"{name}/trained_{stage:03d}"].inputs


def test_a_stage_depends_on_the_weights_that_its_preservation_looks_back_at(project: Any) -> None:
    for name, to in (("near_start", "start"), ("near_theta", "initial")):
        preserve = {"name": "l2", "strength": 0.1, "to": to}
        project.write(name, method={"name": "finetune", "preserve": preserve})
    project.write("plain")
    theta = "backbones/toy"
    assert inputs(project, "near_start", 2) == tuple(
        key.replace("plain/", "near_start/") for key in inputs(project, "plain", 2)
    )
    assert theta in inputs(project, "near_theta", 2)
    assert theta not in inputs(project, "near_start", 2)


def test_a_preservation_that_does_not_go_with_the_method_is_refused(project: Any) -> None:
    preserve = {"name": "l2", "to": "start"}
    project.write("held", method={"name": "lora", "rank": 2, "preserve": preserve})
    with pytest.raises(InputError, match=r"l2 holds .* lora trains adapters .* use it with finet"):
        project.load("held")
    project.write("misspelt", method={"preserve": {"name": "l3"}})
    with pytest.raises(InputError, match=r"l3.*l2"):
        project.load("misspelt")

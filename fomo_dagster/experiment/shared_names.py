"""The names under which the experiments of a sweep share θ₀, the stream and pools.

What several members declare identically under one name, they share in the graph of assets. If a
sweep varies something below such a name, each value gets its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.sweeping import Point
from fomo_dagster.store.digests import digest_of

ORDERS_BY_MODEL = ("performance", "similarity", "frequency")  # frequency: its pretraining pool

_Behind = Callable[[Experiment], Mapping[str, Any]]


def _stream(experiment: Experiment) -> Mapping[str, Any]:
    fields = {"stream", "datasets", "training_texts", "validation"}
    if experiment.stream.order in ORDERS_BY_MODEL:
        fields |= {"backbone", "evaluation", "pretraining_pool"}
    told = experiment.model_dump(mode="json", include=fields)
    return {**told, "stream": {**told["stream"], "name": None}}


def _at(place: Sequence[str]) -> _Behind:
    return lambda experiment: {
        **_part(experiment, place).model_dump(mode="json"), "name": None
    }  # fmt: skip


def _part(experiment: Experiment, place: Sequence[str]) -> Any:
    part: Any = experiment
    for field in place:
        part = getattr(part, field, None)
    return part


_PLACES: Mapping[tuple[str, ...], _Behind] = {
    ("validation",): _at(("validation",)),
    ("pretraining_pool",): _at(("pretraining_pool",)),
    ("backbone", "pretraining", "pool"): _at(("backbone", "pretraining", "pool")),
    ("backbone",): _at(("backbone",)),
    ("stream",): _stream,
}


def with_shared_names(made: Sequence[tuple[Loaded, Point]], sweep: str) -> list[Loaded]:
    """The experiments of a sweep's points, with names under which they can stand in one graph."""
    result = [member for member, _ in made]
    for place, behind in _PLACES.items():
        named: dict[str, list[int]] = {}
        for number, member in enumerate(result):
            part = _part(member.experiment, place)
            if part is not None:
                named.setdefault(part.name or sweep, []).append(number)
        for name, numbers in named.items():
            digests = {n: digest_of(behind(result[n].experiment)) for n in numbers}
            points = {n: made[n][1] for n in numbers}
            axes = _telling(digests, points)
            for n in numbers:
                endings = [points[n].values[a].label for a in axes if a in points[n].values]
                full = _checked("_".join([name, *endings]), place)
                experiment = _renamed(result[n].experiment, place, full)
                result[n] = replace(result[n], experiment=experiment)
    return result


def _telling(digests: Mapping[int, str], points: Mapping[int, Point]) -> list[str]:
    """The fewest axes, as they stand, whose values tell what a member declares."""
    axes = list(dict.fromkeys(axis for point in points.values() for axis in point.values))
    for axis in list(axes):
        fewer = [other for other in axes if other != axis]
        told: dict[tuple[str, ...], set[str]] = {}
        for number, point in points.items():
            key = tuple(point.values[a].label if a in point.values else "" for a in fewer)
            told.setdefault(key, set()).add(digests[number])
        if all(len(one) == 1 for one in told.values()):
            axes = fewer
    return axes


def _checked(name: str, place: Sequence[str]) -> str:
    """The name, where it can be one; `InputError` where it is too long, and what to do."""
    try:
        return check_safe_name(name)
    except ValueError as error:
        where = ".".join((*place, "name"))
        raise InputError(f"{where} in a sweep: {error}; name the values of its axes") from error


def _renamed(model: Any, place: Sequence[str], name: str) -> Any:
    assert isinstance(model, BaseModel)
    if not place:
        return model.model_copy(update={"name": name})
    part = _renamed(getattr(model, place[0]), place[1:], name)
    return model.model_copy(update={place[0]: part})

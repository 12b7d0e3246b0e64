"""How one experiment's values override another's: what `extends` and `--set` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import ORIGINS, can_be_a_folder
from fomo_dagster.experiment.backbone_names import whole_backbone
from fomo_dagster.experiment.mixture import ChangingMixture, Mixture
from fomo_dagster.experiment.stream import ARRANGED
from fomo_dagster.experiment.sweeping import EXTENDS, REPLICATES, SEED_LIST, SWEEP
from fomo_dagster.merging.techniques import AnyTechnique
from fomo_dagster.methods.averaging.declaration import AnyAverage
from fomo_dagster.methods.loss.declaration import AnyLoss
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection
from fomo_dagster.methods.preservation.registry import AnyPreservation
from fomo_dagster.methods.registry import AnyMethod
from fomo_dagster.optimisation.optimisers import AnyOptimiser
from fomo_dagster.optimisation.schedules import AnySchedule
from fomo_dagster.yaml_files import read_value

_BACKBONES = ("backbone", "teacher", "reference")
# Keys of which exactly one may stand: a child that gives another replaces its parent's.
_EXCLUSIVE: Mapping[str, Sequence[Sequence[str]]] = {
    "mixture": [
        (constant, changing)
        for constant in Mixture.model_fields
        for changing in ChangingMixture.model_fields
    ],
    "budget": [("samples", "steps", "epochs", "mafs")],
    "method": [("combination", "start_from"), ("combination", "deploy")],
    **{key: [ORIGINS] for key in _BACKBONES},
    "stream": [("datasets", "concepts", "file", "growing"), ("stages", "positions")],
}


class _Choice(NamedTuple):
    """A mapping that takes one of several forms."""

    tag: str
    """The key that names the form."""
    forms: Mapping[str, type[BaseModel]]


def _choice(tag: str, union: Any) -> _Choice:
    branches = [get_args(branch) for branch in get_args(get_args(union)[0])]
    return _Choice(tag, {named.tag: form for form, named in branches})


_CHOICES: Mapping[str, _Choice] = {
    "optimiser": _choice("name", AnyOptimiser),
    "schedule": _choice("name", AnySchedule),
    "loss": _choice("name", AnyLoss),
    "method": _choice("name", AnyMethod),
    "preserve": _choice("name", AnyPreservation),
    "average": _choice("name", AnyAverage),
    "selection": _choice("name", AnyOnlineSelection),
    "merge": _choice("technique", AnyTechnique),
}


def merged(base: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """`child` over `base`: mappings key by key, everything else replaced.

    If the child names another form of something (an optimiser, a method, a technique), inherited
    keys that the form does not have are dropped. Likewise, the weights and name of a backbone are
    dropped if the child's architecture names weights too, and the architecture if the child's
    weights are a folder, which states its own; and what arranges a stream, if the child's grows.
    """
    result = dict(base)
    if child.keys() & {REPLICATES, SEED_LIST}:
        result = {k: v for k, v in base.items() if k not in (REPLICATES, SEED_LIST)}
    for key, value in child.items():
        old = result.get(key)
        if key in _BACKBONES and isinstance(old, str):
            old = {"architecture": old}
        if key == SWEEP and isinstance(old, dict) and isinstance(value, dict):
            result[key] = {**old, **value}  # an axis is replaced whole
        elif isinstance(old, dict) and isinstance(value, dict):
            result[key] = merged(_inherited(key, old, value), value)
        else:
            result[key] = value
    return result


def nested(key: str, value: Any) -> dict[str, Any]:
    """The mapping that a dotted key and a value stand for."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _inherited(key: str, old: Mapping[str, Any], child: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a parent's mapping under `key` can stand beside the child's."""
    left_out = set()
    for group in _EXCLUSIVE.get(key, ()):
        if any(k in child for k in group):
            left_out |= {k for k in group if k not in child}
    if key == "stream" and child.get("growing") is not None:
        left_out |= ARRANGED - child.keys()
    if key in _BACKBONES:
        if whole_backbone(child.get("architecture")) is not None:
            left_out |= {"name", *ORIGINS}
        if can_be_a_folder(child.get("weights")) and "architecture" not in child:
            left_out.add("architecture")
    if key in _CHOICES:
        tag, forms = _CHOICES[key]
        form = forms.get(str(child.get(tag)))
        if form is not None and child[tag] != old.get(tag):
            left_out |= old.keys() - form.model_fields.keys()
    return {k: v for k, v in old.items() if k not in left_out}


def apply_override(data: dict[str, Any], override: str) -> None:
    """Put what `key=value` says into the data: a dotted key and a YAML value.

    Raises `InputError` for what is not of this form.
    """
    key, separator, text = override.partition("=")
    if not separator or not all(key.strip().split(".")):
        raise InputError(f"--set {override!r} is not of the form key=value (key may have dots)")
    if (top := key.strip().partition(".")[0]) in (EXTENDS, SWEEP):
        raise InputError(f"--set {override!r}: {top} is a key of experiment files alone: write one")
    try:
        value = read_value(text)
    except InputError as error:
        raise InputError(f"--set {override!r}: {error}") from error
    result = merged(data, nested(key.strip(), value))
    data.clear()
    data.update(result)

"""The counted cost of trainings and features, cached by what decides it.

Counting takes seconds and holds for every training of the same model, method and batch, and for
every image and text, as the number of an architecture's layers does. So it is done once per
process, and kept as a small file in the home's cache, which can be deleted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.declaration import Finetune, Method
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import skipped_where_refused, write_bytes
from fomo_dagster.training.cost_case import CostCase

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from fomo_dagster.models.backbones import Architecture
    from fomo_dagster.models.operations import EncodingCost
    from fomo_dagster.training.compute import Cost

T = TypeVar("T", bound="DataclassInstance")
logger = logging.getLogger(__name__)

_VERSION = 1  # raised when a training comes to cost something else
_WITHOUT_COST = {"schedule", "budget", "crop_scale", "max_logit_scale", "batch_size"}
_WITHOUT_COST_OF_OPTIMISERS = {"learning_rate", "weight_decay"}
_known: dict[str, Any] = {}
_uncountable: set[str] = set()


def trained_by(method: Method, *, goes_on: bool) -> dict[str, Any]:
    """What the method trains, averages and preserves, as plain data; where it starts and what it
    deploys is the graph's. goes_on: whether there is something that the stage before left."""
    if isinstance(method, Finetune):
        trained = method.model_dump(mode="json", include={"train"})
    else:
        shared = set(Method.model_fields) - {"name"}
        trained = {"adapters": method.model_dump(mode="json", exclude=shared)}
    if method.average is not None:
        trained["average"] = method.average.model_dump(mode="json")
    if method.preserve is not None:
        unused = set() if goes_on else set(method.preserve.of_carried)
        trained["preserve"] = method.preserve.model_dump(mode="json", exclude=unused)
    return trained


def reference_of(method: Method, architecture: Any) -> Any:
    """The architecture of the other model that the method's preservation looks at, or None."""
    reference = None if method.preserve is None else method.preserve.reference
    return reference.architecture if isinstance(reference, Backbone) else reference and architecture


def cost_key(case: CostCase) -> CostCase:
    """A case of the same cost without what does not count for its method, so that as few as can be
    are counted: what preserves nothing does not tell the pools apart, nor stages."""
    preserve = case.method.preserve
    if preserve is None and case.selection is None:
        sizes = {"update": sum(case.sizes.values())}
        return replace(case, sizes=sizes, goes_on=True, update_samples=None)
    estimated = getattr(preserve, "samples", None)
    if estimated is None or case.update_samples is None or case.update_samples >= estimated:
        return replace(case, update_samples=None)
    return case


def parameters_of(case: CostCase) -> dict[str, Any]:
    """What decides a cost, as plain data."""
    case = cost_key(case)
    settings = case.settings.model_dump(
        mode="json", include=set(TrainingSettings.model_fields) - _WITHOUT_COST
    )
    settings["optimiser"] = {
        k: v for k, v in settings["optimiser"].items() if k not in _WITHOUT_COST_OF_OPTIMISERS
    }
    return {
        **settings, **trained_by(case.method, goes_on=case.goes_on),
        "architecture": case.architecture, "sizes": dict(case.sizes), "goes_on": case.goes_on,
        "update_samples": case.update_samples, "reference": case.reference,
        **_selecting(case),
    }  # fmt: skip


def _selecting(case: CostCase) -> dict[str, Any]:
    if case.selection is None:
        return {}
    selection = case.selection.model_dump(mode="json")
    reference = getattr(case.selection, "reference", None)
    return {"selection": selection, "selecting": reference and reference.architecture}


def cost_of(case: CostCase, cache: Path) -> Cost:
    """The cost of a case, counted where it is not known. Raises as `count` does."""
    from fomo_dagster.training.compute import Cost, count

    case = cost_key(case)
    return _cached(Cost, parameters_of(case), cache, lambda: count(case))


def training_flops(case: CostCase, steps: int, cache: Path) -> Mapping[str, int]:
    """`flops`: the operations of a stage, and `flops_per_step`; nothing if they cannot be counted,
    since no training is lost to its accounts. `flops_per_replay_feature` is there for who remembers
    samples."""
    try:
        cost = cost_of(case, cache)
    except Exception as error:  # any code of a backbone's library that fake tensors do not run
        logger.warning("the operations of a training could not be counted: %s", error)
        return {}
    recorded = {"flops": cost.of_stage(steps), "flops_per_step": cost.flops_per_step}
    if cost.flops_per_replay_feature:
        recorded["flops_per_replay_feature"] = cost.flops_per_replay_feature
    return recorded


def encoding_flops(
    architecture: Architecture, cache: Path, *, images: int = 0, texts: int = 0
) -> Mapping[str, int]:
    """`flops`: the operations that features of so many images and texts take; nothing if they
    cannot be counted, which is said once."""
    cost = encoding_cost(architecture, cache)
    if cost is None:
        return {}
    return {"flops": images * cost.flops_per_image + texts * cost.flops_per_text}


def encoding_cost(architecture: Architecture, cache: Path) -> EncodingCost | None:
    """What features of an image and of a text cost; None if that cannot be counted, which is said
    once."""
    from fomo_dagster.models.operations import EncodingCost, of_encoding

    parameters = {"encoding": architecture}
    if digest_of(parameters) in _uncountable:
        return None
    try:
        return _cached(EncodingCost, parameters, cache, lambda: of_encoding(architecture))
    except Exception as error:  # as above
        _uncountable.add(digest_of(parameters))
        logger.warning("the operations of evaluations could not be counted: %s", error)
        return None


@dataclass(frozen=True)
class _Layers:
    layers: int


def layers_of(architecture: Architecture, cache: Path) -> int:
    """How many layers of the image tower give features. Raises as `count_layers` does."""
    from fomo_dagster.models.layers import count_layers

    def count() -> _Layers:
        return _Layers(count_layers(architecture))

    return _cached(_Layers, {"layers": architecture}, cache, count).layers


def _cached(
    kind: Callable[..., T], parameters: Mapping[str, Any], cache: Path, count: Callable[[], T]
) -> T:
    """What was counted for the parameters, in this process or in the cache, or is now."""
    key = digest_of({"version": _VERSION, **parameters})
    if key not in _known:
        path = cache / "costs" / f"{key}.json"
        try:
            _known[key] = kind(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):  # not there, damaged, or of another version
            _known[key] = count()
            with skipped_where_refused():
                write_bytes(path, json.dumps(asdict(_known[key])).encode())
    found: T = _known[key]
    return found

"""Reads mergekit's recipes: YAML with models, a `merge_method` and its parameters.

A recipe becomes a technique of `fomo_dagster.merging`, its files oldest first, and θ₀. What has no
counterpart there is refused, never ignored. Where mergekit leaves things to chance or counts them
otherwise, the technique's own way holds: docs/merging.md lists these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pydantic import Field, TypeAdapter

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.validating import Place, validated
from fomo_dagster.merging.technique import Technique
from fomo_dagster.merging.techniques import TECHNIQUES
from fomo_dagster.yaml_files import read_mapping

_REFUSED = {
    "slices": "layers of several models are not put together here: list whole models under models",
    "modules": "list whole models under models",
    "tokenizer_source": "CLIP's tokenizer is the architecture's: leave it out",
    "tokenizer": "CLIP's tokenizer is the architecture's: leave it out",
    "chat_template": "CLIP has none: leave it out",
}
_REQUIRED = object()


class Recipe(NamedTuple):
    """What a file asks for."""

    technique: Technique
    models: tuple[Path, ...]
    """Oldest first."""
    base: Path | None


class _Model(Declaration):
    model: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class _File(Declaration):
    merge_method: str
    models: list[_Model] = Field(min_length=1)
    base_model: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None


@dataclass
class _Given:
    """A recipe's parameters. Each that a method knows is asked for; what is left over is wrong."""

    where: str
    base: str | None
    models: list[_Model]
    """Without the base."""
    shared: dict[str, Any]
    known: set[str] = field(default_factory=set)

    def one(self, name: str, default: Any = _REQUIRED) -> Any:
        """A parameter of the whole merge."""
        self.known.add(name)
        return self._plain(name, self._found(name, self.shared.get(name, default)))

    def each(self, name: str, default: Any = _REQUIRED) -> tuple[float, ...]:
        """A parameter of every model."""
        self.known.add(name)
        shared = self.shared.get(name, default)
        return tuple(
            self._plain(name, self._found(name, model.parameters.get(name, shared), model.model))
            for model in self.models
        )

    def alike(self, name: str, default: Any = _REQUIRED) -> Any:
        """A parameter of every model that must be the same for all."""
        values = self.each(name, default)
        if len(set(values)) > 1:
            raise InputError(
                f"{self.where}: {name} is {list(values)} of the models, and here it is one number "
                "for all: give the same"
            )
        return values[0]

    def refuse(self, name: str, value: Any, otherwise: str) -> None:
        """Raises where a parameter is given another value than the only one there is here."""
        if self.one(name, value) != value:
            given = self.shared[name]
            raise InputError(
                f"{self.where}: {name} is {given!r}, which has no counterpart: {otherwise}"
            )

    def check_known(self) -> None:
        for parameters in (self.shared, *(model.parameters for model in self.models)):
            for name, value in parameters.items():
                if name not in self.known:
                    raise InputError(
                        f"{self.where}: unknown parameter {name!r} (value {value!r}); "
                        f"{nearest(name, self.known)}"
                    )

    def _found(self, name: str, value: Any, model: str = "") -> Any:
        if value is _REQUIRED:
            of = f" of {model}" if model else ""
            raise InputError(f"{self.where}: the parameter {name}{of} is missing: give a number")
        return value

    def _plain(self, name: str, value: Any) -> Any:
        if not isinstance(value, int | float):
            raise InputError(
                f"{self.where}: {name} is {value!r}, and one number is expected: gradients over "
                "layers and filters by name have no counterpart; group_scales of --technique scale "
                "groups of parameters"
            )
        return value


Translation: TypeAlias = Callable[[_Given], dict[str, Any]]


def _linear(given: _Given) -> dict[str, Any]:
    weights = given.each("weight")
    if given.one("normalize", True):
        weights = _shares(given, weights)
    return {"technique": "weighted_mean", "coefficients": weights}


def _shares(given: _Given, weights: tuple[float, ...]) -> tuple[float, ...]:
    total = math.fsum(weights)
    if total == 0:
        raise InputError(f"{given.where}: the weights {list(weights)} add up to 0: change one")
    return tuple(weight / total for weight in weights)


def _of_vectors(
    technique: str, rest: Callable[[_Given], dict[str, Any]], *, elects: bool, normalize: bool,
    rescale: bool,
) -> Translation:  # fmt: skip
    """A method of mergekit's generalised task arithmetic."""

    def translate(given: _Given) -> dict[str, Any]:
        weights = given.each("weight")
        given.one("int8_mask", False)  # saves memory there, and changes no number
        given.refuse("rescale", rescale, f"leave it out, which is {str(rescale).lower()}")
        parameters = rest(given) | {"technique": technique, "scale": given.one("lambda", 1.0)}
        normalizes = given.one("normalize", normalize)
        if elects:
            parameters["combine"] = "mean" if normalizes else "sum"
            if normalizes and min(weights) < 0:
                raise InputError(
                    f"{given.where}: weight is {list(weights)}, and a mean divides by magnitudes "
                    "here: give no negative one, or normalize: false"
                )
        elif normalizes:
            weights = _shares(given, weights)
        return parameters | {"coefficients": weights}

    return translate


def _nothing(given: _Given) -> dict[str, Any]:
    if given.alike("density", 1.0) != 1:
        raise InputError(f"{given.where}: task_arithmetic drops nothing: leave out density")
    return {}


def _trimmed(given: _Given) -> dict[str, Any]:
    return {"density": given.alike("density", 1.0), "over": "tensor"}


def _dropped(given: _Given) -> dict[str, Any]:
    return {"drop": 1 - given.alike("density", 1.0)}


def _ranked(given: _Given) -> dict[str, Any]:
    density, spread = given.alike("density", 1.0), 2 * given.alike("epsilon", 0.15)
    return {"drop": 1 - density, "spread": spread} if density < 1 else {"drop": 0, "spread": 0}


def _untailed(given: _Given) -> dict[str, Any]:
    density, largest = given.alike("density", 1.0), given.alike("gamma", 0.01)
    largest = min(largest, 1 - density)
    return {"smallest": max(0.0, 1 - density - largest), "largest": largest, "over": "tensor"}


def _nuslerp(given: _Given) -> dict[str, Any]:
    given.refuse("nuslerp_row_wise", False, "leave it out, or give nuslerp_flatten: false alone")
    weights = given.each("weight")
    share = weights[-1] / math.fsum(weights) if abs(math.fsum(weights)) >= 1e-6 else 0.5
    per = "tensor" if given.one("nuslerp_flatten", True) else "row"
    return {"technique": "nuslerp", "weight": share, "per": per}


def _multislerp(given: _Given) -> dict[str, Any]:
    given.refuse("normalize_weights", True, "leave it out")
    return {"technique": "multislerp", "coefficients": _shares(given, given.each("weight"))}


def _model_stock(given: _Given) -> dict[str, Any]:
    given.refuse("filter_wise", False, "leave it out")
    return {"technique": "model_stock"}


def _sce(given: _Given) -> dict[str, Any]:
    given.one("int8_mask", False)
    return {"technique": "sce", "density": given.one("select_topk", 1.0)}


_BASE_FIRST, _BASE, _NO_BASE = "the older model", "θ₀", "none"
_METHODS: dict[str, tuple[str, Translation]] = {
    "linear": (_NO_BASE, _linear),
    "slerp": (_BASE_FIRST, lambda given: {"technique": "slerp", "weight": given.one("t")}),
    "nearswap": (_BASE_FIRST, lambda given: {"technique": "nearswap", "distance": given.one("t")}),
    "nuslerp": (_NO_BASE, _nuslerp),
    "multislerp": (_NO_BASE, _multislerp),
    "karcher": (_NO_BASE, lambda g: {"technique": "karcher", "steps": g.one("max_iter", 10)}),
    "model_stock": (_BASE, _model_stock),
    "sce": (_BASE, _sce),
    "task_arithmetic": (
        _BASE,
        _of_vectors("task_arithmetic", _nothing, elects=False, normalize=False, rescale=False),
    ),
    "ties": (_BASE, _of_vectors("ties", _trimmed, elects=True, normalize=True, rescale=False)),
    "dare_linear": (
        _BASE, _of_vectors("dare", _dropped, elects=False, normalize=False, rescale=True),
    ),
    "dare_ties": (
        _BASE, _of_vectors("dare_ties", _dropped, elects=True, normalize=False, rescale=True),
    ),
    "della": (
        _BASE, _of_vectors("della_ties", _ranked, elects=True, normalize=True, rescale=True),
    ),
    "della_linear": (
        _BASE, _of_vectors("della", _ranked, elects=False, normalize=False, rescale=True),
    ),
    "breadcrumbs": (
        _BASE,
        _of_vectors("breadcrumbs", _untailed, elects=False, normalize=False, rescale=False),
    ),
    "breadcrumbs_ties": (
        _BASE,
        _of_vectors("breadcrumbs_ties", _untailed, elects=True, normalize=False, rescale=False),
    ),
}  # fmt: skip
"""mergekit's method → what its `base_model` is here, and its parameters."""


def read_recipe(path: Path) -> Recipe:
    """Paths in it are relative to the current folder, as mergekit has them.

    Raises `InputError` for a file that cannot be read, and for what has no counterpart here.
    """
    values = read_mapping(path)
    for key, reason in _REFUSED.items():
        if key in values:
            raise InputError(f"{path}: {key} has no counterpart: {reason}")
    asked: _File = validated(
        TypeAdapter(_File), values, str(path), _File, whole="the recipe", place=Place(path)
    )
    for key in ("dtype", "out_dtype"):
        kind = getattr(asked, key)
        if kind not in (None, "float32"):
            raise InputError(
                f"{path}: {key} is {kind!r}, but merges are computed in float64 and written as "
                "float32: give float32, or leave it out"
            )
    if asked.merge_method not in _METHODS:
        raise InputError(
            f"{path}: there is no merge_method {asked.merge_method!r} here: "
            f"{nearest(asked.merge_method, _METHODS)}"
        )
    role, translate = _METHODS[asked.merge_method]
    base = asked.base_model
    others = [model for model in asked.models if model.model != base]
    if role != _NO_BASE and base is None:
        raise InputError(
            f"{path}: {asked.merge_method} needs a base_model, which is {role} here: name it"
        )
    if role == _NO_BASE and base is not None:
        if len(others) == len(asked.models):
            raise InputError(
                f"{path}: base_model is {base!r}, and {asked.merge_method} has none here, only "
                "models: leave it out, or list it under models"
            )
        others = list(asked.models)
    if not others:
        raise InputError(f"{path}: models has the base_model alone: list what is merged with it")
    given = _Given(f"{path}: {asked.merge_method}", base, others, asked.parameters)
    parameters = translate(given)
    given.check_known()
    chosen = TECHNIQUES[parameters["technique"]]
    technique: Technique = validated(
        TypeAdapter(chosen), parameters, given.where, chosen, whole="the parameters"
    )
    models = tuple(_file(path, model.model) for model in others)
    if role == _BASE_FIRST and base is not None:
        models = (_file(path, base), *models)
    return Recipe(technique, models, _file(path, base) if base and role == _BASE else None)


def _file(recipe: Path, model: str) -> Path:
    if not Path(model).is_file():
        what = "is a folder" if Path(model).is_dir() else "is no file here"
        raise InputError(
            f"{recipe}: the model {model!r} {what}: name a .safetensors or .pt file of weights, "
            "relative to the current folder"
        )
    return Path(model)

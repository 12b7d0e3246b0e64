"""Which trackers are used: by name, each with an extra of this package of the same name.

FOMO_TRACKERS: their names, separated by commas; by default none. Each tracker's own variables say
where it sends to (see its module), by default below FOMO_HOME: nothing leaves the machine unasked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.trackers.sending import Trackers
from fomo_dagster.trackers.tracker import Tracker

VARIABLE = "FOMO_TRACKERS"


def _tensorboard(folder: Path) -> Tracker:
    from fomo_dagster.trackers.tensorboard import TensorBoard

    return TensorBoard(folder)


def _wandb(folder: Path) -> Tracker:
    from fomo_dagster.trackers.wandb import WeightsAndBiases

    return WeightsAndBiases(folder)


def _mlflow(folder: Path) -> Tracker:
    from fomo_dagster.trackers.mlflow import MLflow

    return MLflow(folder)


KINDS: Mapping[str, Callable[[Path], Tracker]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


PLACES: Mapping[str, str] = {
    "tensorboard": "TENSORBOARD_LOGGING_DIR",
    "wandb": "WANDB_MODE, WANDB_DIR, WANDB_BASE_URL and `wandb login`",
    "mlflow": "MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME",
}
"""What says where each sends to."""


REGISTRIES = frozenset({"mlflow"})
"""Those that register releases."""


def registries_of(names: Iterable[str]) -> tuple[str, ...]:
    """Those of some trackers that register releases."""
    return tuple(name for name in names if name in REGISTRIES)


def named_by_environment() -> tuple[str, ...]:
    """The names in FOMO_TRACKERS; raises `InputError` for one that there is not."""
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",")]
    return check_names(filter(None, names), VARIABLE)


def check_names(names: Iterable[str], place: str) -> tuple[str, ...]:
    """The names, each once; raises `InputError` for one that there is not. place: that has them."""
    unique = tuple(dict.fromkeys(names))
    for name in unique:
        if name not in KINDS:
            raise InputError(f"{place}: there is no tracker {name!r}: {nearest(name, KINDS)}")
    return unique


def open_trackers(names: Iterable[str], home: Path) -> Trackers:
    """Trackers that are ready to be sent to; nothing is imported or written yet.

    home: FOMO_HOME. Raises `InputError` for one that is not installed.
    """
    names = tuple(names)
    for name in names:
        spec = find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name, such as wandb makes
            raise InputError(
                f"tracker {name!r} is not installed: pip install 'fomo-dagster[{name}]', or "
                f"leave it out of {VARIABLE}"
            )
    folder = home / "trackers"
    kinds = {name: partial(KINDS[name], folder) for name in names}
    advice = {
        name: f"Check {PLACES[name]} (docs/trackers.md), or leave {name} out of {VARIABLE}. "
        for name in names
    }
    return Trackers(kinds, folder / "sent", advice=advice)

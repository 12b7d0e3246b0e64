"""The settings of an experiment that questions are mostly about, in one row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.schema import Experiment

NO_SETTING = {
    "name", "description", "owners", "execution", "release", "retention", "inspection",
    "cron_schedule", "cron_timezone",
}  # fmt: skip
"""The parts of an experiment that change no number."""


def overview(loaded: Loaded) -> dict[str, Any]:
    """A row of the table `experiments`, without the experiment's name and stages."""
    experiment = loaded.experiment
    method, stream = experiment.method, experiment.stream
    budget = experiment.budget.model_dump(exclude_none=True)
    (unit, amount), *_ = budget.items()
    no_setting = NO_SETTING if experiment.deduplicates else NO_SETTING | {"near_duplicates"}
    return {
        "file": _within_project(loaded.path),
        "sweep": loaded.sweep,
        "replicate_of": loaded.replicate_of,
        "replicate": loaded.replicate,
        "seed": experiment.seed,
        "backbone": experiment.backbone.name,
        "stream": experiment.stream_name,
        "stream_order": stream.order,
        "method": method.name,
        "preserve": None if method.preserve is None else method.preserve.name,
        "start_from": method.start_from,
        "deploy": method.deploy,
        "technique": None if method.merge is None else method.merge.technique,
        "optimiser": experiment.optimiser.name,
        "learning_rate": experiment.optimiser.learning_rate,
        "schedule": experiment.schedule.name,
        "batch_size": experiment.batch_size,
        "budget": float(amount),
        "budget_unit": unit,
        **{f"{pool}_share": _mean_share(experiment, pool) for pool in ("update", "buffer")},
        "pretraining_share": _mean_share(experiment, "pretraining"),
        "settings": json.dumps(
            experiment.model_dump(mode="json", exclude=no_setting), sort_keys=True
        ),
    }


def _within_project(path: Path) -> str:
    """From the folder `experiments` on, where the file is in one: projects are moved."""
    parts = path.parts
    if "experiments" not in parts:
        return str(path)
    start = len(parts) - 1 - parts[::-1].index("experiments")
    return "/".join(parts[start:])


def _mean_share(experiment: Experiment, pool: str) -> float:
    shares = [share for _, share in experiment.mixture.shares(pool)]
    return sum(shares) / len(shares)

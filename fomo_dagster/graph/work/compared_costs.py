"""What a stage that is up for release costs to use, beside what is live.

Operations and parameters are counted, by the architectures alone. A latency is another one on each
machine and each time, so it is timed once for two architectures, and never where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.weights_folder import described
from fomo_dagster.graph.work.counted_costs import encoding_cost
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.releases.costs import Compared, Costs, Latency
    from fomo_dagster.store.artifacts import Artifact

LATENCIES = "latencies"
"""The artifact of what was timed, and its kind."""
_VERSION, _FILE = 1, "latencies.json"


def architectures_of(backbone: Backbone, live: Mapping[str, Any] | None) -> list[Any]:
    """That of a stage and, where something is live, whose backbone is declared so, its; None of
    that where the folder that states it is gone. Raises `InputError` for the stage's folder that is
    not there."""
    own = described(backbone).architecture
    if live is None:
        return [own]
    try:
        return [own, described(Backbone.model_validate(dict(live))).architecture]
    except InputError:
        return [own, None]


def latencies_recipe(architectures: Sequence[Any], precision: str) -> Recipe | None:
    """What is timed of those of `architectures_of`; None where there is nothing to time."""
    if len(architectures) < 2 or architectures[1] in (None, architectures[0]):
        return None
    of = {"architectures": list(architectures), "precision": precision}
    return Recipe(LATENCIES, _VERSION, of, {})


def time_latencies(encoders: Sequence[Encoder], folder: Path) -> None:
    """Time the stage and what is live, into a folder. Raises as `timed_by_turns`."""
    import numpy as np
    from scipy.stats import quantile_test

    from fomo_dagster.evaluation.latency import timed_by_turns
    from fomo_dagster.releases.costs import Latency
    from fomo_dagster.statistics.intervals import LEVEL

    found = {}
    for of, passes in timed_by_turns(encoders).items():
        ratios = passes[:, 0] / passes[:, 1]
        low, high = quantile_test(ratios, p=0.5).confidence_interval(LEVEL)
        found[of] = asdict(Latency(float(np.median(ratios)), low, high, len(ratios)))
    (folder / _FILE).write_text(json.dumps(found))


def compared(
    architectures: Sequence[Any] | None, timed: Artifact | None, cache: Path | None
) -> Compared | None:
    """The two of `architectures_of`; None where there are no two. timed: the artifact of their
    latencies; cache: where their costs are counted; each where that is asked for."""
    from fomo_dagster.releases.costs import Compared, Latency

    if architectures is None or len(architectures) < 2:
        return None
    stage, live = architectures
    if stage == live:
        return Compared(is_same=True)
    latencies: dict[str, Latency] | None = None
    if timed is not None:
        data = json.loads(timed.path(_FILE).read_text())
        latencies = {of: Latency(**one) for of, one in data.items()}
    if cache is None:
        return Compared(latencies=latencies)
    return Compared(_costs(stage, cache), None if live is None else _costs(live, cache), latencies)


def _costs(architecture: Any, cache: Path) -> Costs | None:
    from fomo_dagster.releases.costs import Costs

    cost = encoding_cost(architecture, cache)
    if cost is None:
        return None
    return Costs(cost.flops_per_image, cost.flops_per_text, cost.parameters)

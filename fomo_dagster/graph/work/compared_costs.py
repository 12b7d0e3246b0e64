"""What a stage that is up for release costs to use, beside what is live.

Everything is counted, by the architectures alone. A latency is not: it would be another one on each
machine and each time, and a candidate's verdict must be the same wherever it is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.weights_folder import described
from fomo_dagster.graph.work.counted_costs import encoding_cost

if TYPE_CHECKING:
    from fomo_dagster.releases.gates import Compared, Costs


def architectures_of(backbone: Backbone, live: Mapping[str, Any] | None) -> list[Any]:
    """That of a stage and, where something is live, whose backbone is declared so, its. Raises
    `InputError` for a folder of weights that is not there."""
    others = () if live is None else (Backbone.model_validate(dict(live)),)
    return [described(one).architecture for one in (backbone, *others)]


def costs_of(architectures: Sequence[Any] | None, cache: Path) -> Compared | None:
    """What the two of `architectures_of` cost; None where there are no two."""
    from fomo_dagster.releases.gates import Compared

    if architectures is None or len(architectures) < 2:
        return None
    stage, live = architectures
    if stage == live:
        return Compared(is_same=True)
    return Compared(stage=_costs(stage, cache), live=_costs(live, cache))


def _costs(architecture: Any, cache: Path) -> Costs | None:
    from fomo_dagster.releases.gates import Costs

    cost = encoding_cost(architecture, cache)
    if cost is None:
        return None
    return Costs(cost.flops_per_image, cost.flops_per_text, cost.parameters)

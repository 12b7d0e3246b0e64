"""All techniques, and the one door to merging: `merge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias, get_args

from pydantic import Tag

from fomo_dagster.data.declarations import chosen_by
from fomo_dagster.errors import InputError
from fomo_dagster.merging.breadcrumbs import Breadcrumbs, BreadcrumbsTies
from fomo_dagster.merging.dare import Dare, DareTies, RandomSelection
from fomo_dagster.merging.della import Della, DellaTies
from fomo_dagster.merging.gram import Karcher, ModelStock, Slerp
from fomo_dagster.merging.linear import Interpolation, WeightedMean
from fomo_dagster.merging.magmax import MagMax
from fomo_dagster.merging.sce import Sce
from fomo_dagster.merging.tall_masks import Consensus
from fomo_dagster.merging.task_vectors import TaskArithmetic
from fomo_dagster.merging.technique import Technique
from fomo_dagster.merging.ties import Ties

AnyTechnique: TypeAlias = Annotated[
    Annotated[Interpolation, Tag("interpolation")]
    | Annotated[WeightedMean, Tag("weighted_mean")]
    | Annotated[Slerp, Tag("slerp")]
    | Annotated[Karcher, Tag("karcher")]
    | Annotated[ModelStock, Tag("model_stock")]
    | Annotated[TaskArithmetic, Tag("task_arithmetic")]
    | Annotated[Ties, Tag("ties")]
    | Annotated[Dare, Tag("dare")]
    | Annotated[DareTies, Tag("dare_ties")]
    | Annotated[Della, Tag("della")]
    | Annotated[DellaTies, Tag("della_ties")]
    | Annotated[Breadcrumbs, Tag("breadcrumbs")]
    | Annotated[BreadcrumbsTies, Tag("breadcrumbs_ties")]
    | Annotated[MagMax, Tag("magmax")]
    | Annotated[Consensus, Tag("consensus")]
    | Annotated[Sce, Tag("sce")]
    | Annotated[RandomSelection, Tag("random")],
    chosen_by("technique", "interpolation"),
]
"""A technique with its parameters, as it is declared: `technique` names it."""

TECHNIQUES: dict[str, type[Technique]] = {
    tag.tag: technique
    for technique, tag in (get_args(branch) for branch in get_args(get_args(AnyTechnique)[0]))
}
"""Name → technique."""


def merge(
    technique: Technique,
    models: Sequence[Path],
    output: Path,
    base: Path | None = None,
    labels: Mapping[Path, str] | None = None,
) -> None:
    """Write what the technique makes of the models, as fp32 safetensors.

    models: safetensors files, oldest first. base: θ₀, for the techniques that need it; others do
    not look at it. labels: what errors call a file instead of its path. No input is changed. What
    `technique.repair` asks for is done to the result by `fomo_dagster.merging.repair`.

    Raises `InputError` for a number of models or parameters that the technique cannot do with, and
    for a θ₀ that is not there; `DataError` for files that cannot be read, that do not go together
    (tensors that are missing or differ in shape or kind, integers that differ), or that hold
    numbers that are not finite, and for a merge that overflows.
    """
    from fomo_dagster.merging.checkpoints import Checkpoints, write_merged

    if not models:
        raise InputError("there is nothing to merge: give at least one model")
    if technique.needs_base and base is None:
        raise InputError(
            f"{technique.technique} merges differences from θ₀, and there is none: give the "
            "weights that the models were trained from as base"
        )
    reason = technique.why_unsupported(len(models))
    if reason is not None:
        count = "one model" if len(models) == 1 else f"{len(models)} models"
        raise InputError(f"{technique.technique} cannot merge {count}: {reason}")
    used_base = base if technique.needs_base else None
    with Checkpoints(models, used_base, labels) as checkpoints:
        write_merged(checkpoints, technique.plan(checkpoints), output, technique.by_rows)

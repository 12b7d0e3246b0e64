"""All techniques, and the one door to merging: `merge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, get_args

from fomo_dagster.data.declarations import one_of
from fomo_dagster.errors import InputError
from fomo_dagster.merging.breadcrumbs import Breadcrumbs, BreadcrumbsTies
from fomo_dagster.merging.dare import Dare, DareTies, RandomSelection
from fomo_dagster.merging.della import Della, DellaTies
from fomo_dagster.merging.fisher import Fisher
from fomo_dagster.merging.gram import Karcher, ModelStock, Slerp
from fomo_dagster.merging.isotropic import IsoC, IsoCts
from fomo_dagster.merging.knots import Knots
from fomo_dagster.merging.linear import Interpolation, WeightedMean
from fomo_dagster.merging.magmax import MagMax
from fomo_dagster.merging.multislerp import MultiSlerp
from fomo_dagster.merging.nearswap import NearSwap
from fomo_dagster.merging.nuslerp import NuSlerp
from fomo_dagster.merging.opcm import Opcm
from fomo_dagster.merging.regmean import RegMean
from fomo_dagster.merging.sce import Sce
from fomo_dagster.merging.tall_masks import Consensus
from fomo_dagster.merging.task_vectors import TaskArithmetic
from fomo_dagster.merging.technique import Technique
from fomo_dagster.merging.ties import Ties
from fomo_dagster.merging.tsv import TsvMerge
from fomo_dagster.merging.wudi import Wudi

_TECHNIQUES: tuple[type[Technique], ...] = (
    Interpolation,
    WeightedMean,
    Fisher,
    RegMean,
    NearSwap,
    Slerp,
    NuSlerp,
    MultiSlerp,
    Karcher,
    ModelStock,
    Opcm,
    TaskArithmetic,
    Ties,
    Dare,
    DareTies,
    Della,
    DellaTies,
    Breadcrumbs,
    BreadcrumbsTies,
    MagMax,
    Consensus,
    Sce,
    RandomSelection,
    TsvMerge,
    IsoC,
    IsoCts,
    Knots,
    Wudi,
)
TECHNIQUES: dict[str, type[Technique]] = {
    name: technique
    for technique in _TECHNIQUES
    for name in get_args(technique.model_fields["technique"].annotation)
}
"""Name → technique."""

if TYPE_CHECKING:
    AnyTechnique: TypeAlias = Technique
else:
    AnyTechnique = one_of(_TECHNIQUES, "technique", "interpolation")


def merge(
    technique: Technique,
    models: Sequence[Path],
    output: Path,
    base: Path | None = None,
    labels: Mapping[Path, str] | None = None,
    statistics: Sequence[Path] = (),
) -> None:
    """Write what the technique makes of the models, as fp32 safetensors.

    models: safetensors files, oldest first. base: θ₀, for the techniques that need it; others do
    not look at it. labels: what errors call a file instead of its path. statistics: those of each
    model's data, for the techniques that need them. No input is changed. What `technique.repair`
    asks for is done to the result by `fomo_dagster.merging.repair`.

    Raises `InputError` for a number of models or parameters that the technique cannot do with, and
    for a θ₀ or statistics that are not there; `DataError` for files that cannot be read, that do
    not go together (tensors that are missing or differ in shape or kind, integers that differ), or
    that hold numbers that are not finite, and for a merge that overflows.
    """
    from fomo_dagster.merging.checkpoints import Checkpoints, write_merged
    from fomo_dagster.merging.threads import one_thread_each

    if not models:
        raise InputError("there is nothing to merge: give at least one model")
    if technique.needs_base and base is None:
        raise InputError(
            f"{technique.technique} merges differences from θ₀, and there is none: name the "
            "weights that the models were trained from with --base"
        )
    reason = technique.why_unsupported(len(models))
    if reason is not None:
        count = "one model" if len(models) == 1 else f"{len(models)} models"
        raise InputError(f"{technique.technique} cannot merge {count}: {reason}")
    expected = len(models) if technique.statistics else 0
    if len(statistics) != expected:
        raise InputError(_why_other_statistics(technique, len(models), len(statistics)))
    used_base = base if technique.needs_base else None
    scratch = output.resolve().parent
    behind, beside = (statistics, ()) if technique.statistics_as_models else ((), statistics)
    with (
        Checkpoints([*models, *behind], used_base, labels, scratch, beside) as checkpoints,
        ExitStack() as stack,
    ):
        if technique.by_matrices:
            stack.enter_context(one_thread_each())
        write_merged(checkpoints, technique.plan(checkpoints), output, technique.by_rows)


def _why_other_statistics(technique: Technique, models: int, statistics: int) -> str:
    name = technique.technique
    if not technique.statistics:
        return f"{name} takes no statistics, and {statistics} are given: leave them out"
    return (
        f"{name} needs statistics of what each model was trained on, which weights do not hold: "
        f"there are {statistics} for {models} models. An experiment that merges by {name} makes "
        "them for each stage (method.combination: offline_merge); fomo merge takes their files as "
        "--statistics, in the order of the models"
    )

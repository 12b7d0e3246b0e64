"""Which weights of an experiment stay in the store after a run."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from fomo_dagster.data.declarations import Declaration

_KEEPS_ALL = "retention={last: null, every: null, deployed_only: false}"


class Retention(Declaration):
    """Which stages' weights stay after a run; by default all. It is never part of identity.

    The last stage always stays, and so does what the next stage of a growing stream is made from.
    Scores, predictions and all tables stay in any case.
    """

    last: int | None = Field(None, ge=1, description="Keep the weights of this many last stages.")
    every: int | None = Field(
        None, ge=1, description="Keep the weights of every so many stages, beside the last."
    )
    deployed_only: bool = Field(
        False,
        description="Of these stages, keep only the weights that are deployed, and not those that "
        "were merged into them.",
    )

    pack: bool = Field(
        False,
        description="Keep the weights of all stages but the last as what differs from θ₀, without "
        "loss; they are unpacked when something needs them.",
    )

    @property
    def keeps_all(self) -> bool:
        """Whether nothing goes."""
        return self.last is None and self.every is None and not self.deployed_only

    def stages(self, stages: Iterable[int]) -> set[int]:
        """Those of an experiment's stages, from 1 on, whose weights stay."""
        there = sorted(stages)
        if self.last is None and self.every is None:
            return set(there)
        kept = set(there[-(self.last or 1) :])
        return kept | {stage for stage in there if self.every and stage % self.every == 0}


def restoring(experiment: str) -> str:
    """The command that makes an experiment's weights again, also those that its `retention` takes:
    these stay until the next run without `--set`, which merges, so that each field is named."""
    return f"`fomo run {experiment} --restore --set '{_KEEPS_ALL}'`"

"""SPU: the few weights that new data ask for most are trained (arXiv 2308.12462)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class SPU(Preservation):
    """Selective parameter update (arXiv 2308.12462): of each trained tensor, the stage changes only
    the `share` of weights with the largest gradient over the new data, at its start."""

    name: Literal["spu"]
    weights_themselves: ClassVar[bool] = True
    share: float = Field(0.1, gt=0, le=1, description="Of the weights of each trained tensor.")
    samples: int = Field(
        1024, ge=1, description="Samples whose gradient selects, at most all of the stage's chunk."
    )
    batch_size: int = Field(
        64, ge=2, description="Batch size of that gradient: each image is told apart among as many."
    )

    @property
    def batches(self) -> Mapping[str, int]:
        return {"batch_size": self.batch_size}

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.spu.hooks import SPUHooks

        return SPUHooks(
            stage_context,
            stage_inputs,
            share=self.share,
            samples=self.samples,
            batch_size=self.batch_size,
        )

"""Replay with its own loss: ER (arXiv 1902.10486), DER and DER++ (arXiv 2004.07211)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from fomo_dagster.methods.preservation.declaration import Preservation

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class _Replayed(Preservation):
    """Treats the buffer's rows differently from the others."""

    @property
    def pools(self) -> tuple[Literal["buffer"]]:
        return ("buffer",)


class ER(_Replayed):
    """Experience replay (arXiv 1902.10486): adds `alpha` · the contrastive loss of the buffer's
    rows among themselves."""

    name: Literal["er"]
    alpha: float = Field(1.0, gt=0, description="Weight of the loss of the buffer's rows.")

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.replay.hooks import Replay

        return Replay(stage_context, stage_inputs, of_loss=self.alpha, of_logits=0)


class DER(_Replayed):
    """Dark experience replay (arXiv 2004.07211): adds `alpha` · the mean squared difference between
    the logits of the buffer's rows and the stored ones."""

    name: Literal["der"]
    leaves_replay_features: ClassVar[bool] = True
    of_likelihood: ClassVar[bool] = True
    alpha: float = Field(0.3, gt=0, description="Weight of the squared difference of logits.")

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.replay.hooks import Replay

        return Replay(stage_context, stage_inputs, of_loss=0, of_logits=self.alpha)


class DERPP(_Replayed):
    """DER++ (arXiv 2004.07211): adds `alpha` · the mean squared difference between the logits of
    the buffer's rows and the stored ones, and `beta` · the contrastive loss of these rows."""

    name: Literal["derpp"]
    leaves_replay_features: ClassVar[bool] = True
    of_likelihood: ClassVar[bool] = True
    alpha: float = Field(0.1, gt=0, description="Weight of the squared difference of logits.")
    beta: float = Field(
        0.5, gt=0, description="Weight of the contrastive loss of the buffer's rows."
    )

    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        from fomo_dagster.methods.preservation.replay.hooks import Replay

        return Replay(stage_context, stage_inputs, of_loss=self.beta, of_logits=self.alpha)

"""All preservations, and the one door to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fomo_dagster.experiment import preservation as declared
from fomo_dagster.methods.distillation import ZSCL, LwF
from fomo_dagster.methods.ewc import EWC
from fomo_dagster.methods.l2 import L2
from fomo_dagster.methods.mas import MAS
from fomo_dagster.methods.preservation import Preservation, StageContext, StageInputs
from fomo_dagster.methods.replay import DER, DERPP, ER
from fomo_dagster.methods.si import SI
from fomo_dagster.methods.transfer import Transfer

_MAKERS: Mapping[
    type[declared.Preservation], Callable[[Any, StageContext, StageInputs], Preservation]
] = {
    declared.L2: L2,
    declared.LwF: LwF,
    declared.ZSCL: ZSCL,
    declared.ER: ER,
    declared.DER: DER,
    declared.DERPP: DERPP,
    declared.Transfer: Transfer,
    declared.EWC: EWC,
    declared.SI: SI,
    declared.MAS: MAS,
}


def begin(
    settings: declared.Preservation | None, stage_inputs: StageInputs, stage_context: StageContext
) -> Preservation:
    """What `settings` ask for, for one stage; plain training where they are None.

    Raises `InputError` where it does not go with the model or with what is trained.
    """
    if settings is None:
        return Preservation(stage_context)
    return _MAKERS[type(settings)](settings, stage_context, stage_inputs)

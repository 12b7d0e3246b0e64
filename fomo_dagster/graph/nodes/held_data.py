"""What a stage that is up for release learnt from, beside test images and what came before: the
near duplicates that a gate on its data is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fomo_dagster.graph.core.facts import FactsByKey
from fomo_dagster.graph.nodes.live_start import StartDetails
from fomo_dagster.graph.nodes.near_duplicates import NearDuplicatesNode, found_by

if TYPE_CHECKING:
    from fomo_dagster.data.near_duplicates import Found
    from fomo_dagster.graph.core.context import NodeContext

OF_STAGE, OF_LEARNT = "near_duplicates", "learnt"  # roles of a candidate's inputs


@dataclass(frozen=True)
class HeldData:
    """near: of what stages from 1 to `stage` bring; none where no gate is about them. start_key:
    what the stage was trained from, where that is what was live then."""

    stage: int
    near: tuple[NearDuplicatesNode, ...]
    start_key: str | None

    @property
    def keys(self) -> tuple[str, ...]:
        """The assets that it is told by."""
        start = () if self.start_key is None or not self.near else (self.start_key,)
        return (*(one.key for one in self.near), *start)

    @property
    def leaves_out(self) -> bool:
        """Whether no stage is trained on near duplicates."""
        return any(one.settings.deduplicate for one in self.near)

    def inputs(self, facts: FactsByKey) -> dict[str, Any]:
        """Role → data versions, for a recipe: of what the stage brings, and by stage of what its
        weights learnt from before."""
        start = None if self.start_key is None else facts.get(self.start_key)
        learnt = None if start is None else start.of(StartDetails).learnt
        found: dict[str, Any] = {}
        for one in self.near:
            version = facts[one.key].data_version
            if one.stage == self.stage:
                found[OF_STAGE] = version
            elif learnt is None or one.stage in learnt:
                found.setdefault(OF_LEARNT, {})[str(one.stage)] = version
        return found


def near_duplicates_of(inputs: Mapping[str, Any], context: NodeContext) -> Found | None:
    """What the stage brings, by the inputs of a recipe; None where it brings nothing, or no gate is
    about it."""
    return found_by(inputs[OF_STAGE], context) if OF_STAGE in inputs else None


def learnt_near_duplicates_of(inputs: Mapping[str, Any], context: NodeContext) -> dict[int, Found]:
    """What its weights learnt from before, by stage."""
    learnt = inputs.get(OF_LEARNT, {})
    return {int(stage): found_by(digest, context) for stage, digest in learnt.items()}

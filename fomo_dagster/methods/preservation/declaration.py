"""What keeps earlier abilities while new ones are learnt, as an experiment file says it.

A preservation is a package of this room: its declaration, which imports no PyTorch, and beside it
the hooks that a training calls.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.experiment.backbone import Backbone

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class Preservation(Declaration):
    """What all have: a name, and what a stage needs for it."""

    name: str
    carries: ClassVar[bool] = False
    """Whether a stage leaves something in its artifact that the next one starts with."""
    carried_version: ClassVar[int] = 1
    """Raised where a stage makes something else of what the one before left it."""
    of_carried: ClassVar[frozenset[str]] = frozenset()
    """The parameters that act on what was carried alone, and so not at the first stage."""
    of_each_pair: ClassVar[bool] = False
    """Whether it takes gradients of single pairs, each in one process."""
    leaves_replay_features: ClassVar[bool] = False
    """Whether a stage leaves features of its samples for all that come after it."""
    of_likelihood: ClassVar[bool] = False
    """Whether it looks at logits or probabilities, which are what the loss makes of features."""

    @property
    def weights_themselves(self) -> bool:
        """Whether it holds the weights that are trained, so that these must be the model's own."""
        return False

    @property
    def reference(self) -> Literal["initial", "deployed"] | Backbone | None:
        """The weights that a stage looks at beside those it starts from: θ₀, those deployed
        before it, or those of another model; None: no others."""
        return None

    @property
    def pools(self) -> tuple[Literal["update", "buffer", "pretraining"], ...]:
        """The pools that every batch must hold samples of, but that the first stage has no
        buffer."""
        return ()

    @property
    def batches(self) -> Mapping[str, int]:
        """The sizes of batches of its own, by the names of its settings."""
        return {}

    @abstractmethod
    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        """What it does in one stage; imports PyTorch.

        Raises `InputError` where it does not go with the model or with what is trained.
        """


class ByImportance(Preservation):
    """Holds each weight as much as it counted in the stages before; the first has no penalty."""

    carries: ClassVar[bool] = True
    of_carried: ClassVar[frozenset[str]] = frozenset({"strength", "decay"})
    weights_themselves: ClassVar[bool] = True

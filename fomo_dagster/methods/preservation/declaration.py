"""What every preservation declares: what keeps earlier abilities while new ones are learned.

A preservation is a package of this folder. Its `__init__.py` holds the declaration and imports no
PyTorch; its `hooks.py` holds the hooks that training calls.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.experiment.backbone import Backbone

if TYPE_CHECKING:
    from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks, StageInputs


class Preservation(Declaration):
    """What every preservation has: a name, and what a stage needs for it."""

    name: str
    carries: ClassVar[bool] = False
    """Whether a stage leaves something in its artifact that the next one starts with."""
    carried_version: ClassVar[int] = 1
    """Raised where a stage makes something else of what the one before left it."""
    carried_for_each_weight: ClassVar[tuple[str, ...]] = ("",)
    """Prefixes of the names of what it carries: for each of them and each trained weight, a tensor
    of the weight's shape under `prefix + name`."""
    of_carried: ClassVar[frozenset[str]] = frozenset()
    """The parameters that act on what was carried alone, and so not at the first stage."""
    of_each_pair: ClassVar[bool] = False
    """Whether it takes gradients of single pairs, each in one process."""
    leaves_replay_features: ClassVar[bool] = False
    """Whether a stage leaves features of its samples for all that come after it."""
    designs_lora: ClassVar[bool] = False
    """Whether it chooses what the LoRA adapters of a stage start with."""
    of_likelihood: ClassVar[bool] = False
    """Whether it looks at logits or probabilities, which are what the loss makes of features."""

    @property
    def weights_themselves(self) -> bool:
        """Whether it anchors the trained weights, which must then be the model's own."""
        return False

    @property
    def reference(self) -> Literal["initial", "deployed"] | Backbone | None:
        """Another model that a stage looks at: θ₀, the weights deployed before the stage, or a
        declared model; None if it needs none."""
        return None

    @property
    def pools(self) -> tuple[Literal["update", "buffer", "pretraining"], ...]:
        """The pools of which every batch must hold samples. The first stage has no buffer, and is
        exempt from it."""
        return ()

    @property
    def batches(self) -> Mapping[str, int]:
        """Batch sizes of its own, by the names of its settings."""
        return {}

    def carried_shapes(self, module: Any) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of what a stage leaves of a model that is ready to train, where it carries
        something."""
        trained = {n: tuple(p.shape) for n, p in module.named_parameters() if p.requires_grad}
        return {
            prefix + name: shape
            for prefix in self.carried_for_each_weight
            for name, shape in trained.items()
        }

    @abstractmethod
    def begin(self, stage_context: StageContext, stage_inputs: StageInputs) -> StageHooks:
        """What it does in one stage. This imports PyTorch.

        Raises `InputError` if it does not suit the model or what is trained.
        """


class ByImportance(Preservation):
    """Holds each weight by how much it mattered in earlier stages. The first stage has no
    penalty."""

    carries: ClassVar[bool] = True
    of_carried: ClassVar[frozenset[str]] = frozenset({"strength", "decay"})
    weights_themselves: ClassVar[bool] = True

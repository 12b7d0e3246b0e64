"""A step of training: gradient, clipping, optimiser, and the state that goes from step to step.

What a method adds to a step is a `StageHooks`; when it is asked is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.averaging.average import Average
from fomo_dagster.methods.online_selection.choosing import OnlineSelection
from fomo_dagster.methods.preservation.hooks import Batch, StageContext, StageHooks
from fomo_dagster.optimisation.schedule_free import ScheduleFreeSteps
from fomo_dagster.training.parameter_groups import grouped
from fomo_dagster.training.sharding import optimiser_state, state_of_parts


class Learner:
    """Trains some parameters of a model, in place, on the device it is on.

    Weights, gradients and optimiser are fp32; with bf16 and fp16 the towers compute under autocast,
    and with fp16 the loss is scaled so that small gradients survive (arXiv 1710.03740).
    """

    def __init__(
        self,
        stage_context: StageContext,
        preservation: StageHooks,
        settings: TrainingSettings,
        average: Average | None = None,
        selection: OnlineSelection | None = None,
    ) -> None:
        self._module = stage_context.model.module
        self._trained, self._shards = stage_context.trained, stage_context.shards
        self._preservation, self._average, self._selection = preservation, average, selection
        self._clip_norm = settings.optimiser.clip_norm
        trains_scale = "logit_scale" in stage_context.trained
        self._max_logit_scale = settings.max_logit_scale if trains_scale else None
        groups = grouped(self._module, stage_context.trained, settings)
        self._optimiser = settings.optimiser.create(groups)
        device_type = stage_context.device.type
        self._scaler = torch.amp.GradScaler(device_type, enabled=settings.precision == "fp16")
        self._gradient = stage_context.gradient
        self.unannealed: dict[str, Tensor] = {}
        """What `leave_unannealed` kept: on the CPU, whole at the first process."""

    def step(
        self, batch: Batch, learning_rate: float, towers: Mapping[str, float], seed: int
    ) -> Tensor:
        """Train on one batch, or on the rows of it that the selection keeps.

        towers: image or text → times what that tower takes the learning rate, where it is not 1.
        seed: of what is random.

        Returns (4,), on the device: the loss, what the preservation adds to it, the norm of the
        whole gradient before clipping, and the logit scale, all as they were before the weights
        changed.
        """
        self._optimiser.zero_grad()
        if self._selection is not None:
            batch = self._selection.choose(batch, seed)
        loss, added = self._gradient(batch, seed, self._preservation.loss, self._scaler.scale)
        if self._shards.shared_out and self._scaler.is_enabled():
            self._share_overflow()
        self._scaler.unscale_(self._optimiser)
        penalty = self._preservation.add_penalty_gradient()
        if penalty is not None:
            added = added + penalty
        norm = self._clip()
        measured = torch.stack([loss, added, norm, self._module.logit_scale.detach().reshape(())])
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate * group["factor"] * towers.get(group["tower"], 1.0)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._clamp()
        self._preservation.after_step()
        if self._average is not None:
            self._average.after_step()
        return measured

    def leave_unannealed(self) -> None:
        """Keep the weights as they are, before the anneal, for the next stage to start from."""
        self.unannealed = {n: t.detach().to("cpu", copy=True) for n, t in self.weights().items()}

    def trained_of(self, counts: Mapping[str, int]) -> Mapping[str, int]:
        """How many rows of each pool of a batch are trained on."""
        return counts if self._selection is None else self._selection.kept(counts)

    def end_of_stage(self) -> dict[str, Tensor]:
        """After the last step: put the average into the place of its weights, where there is one,
        of the method or of the optimiser; return what the preservation, which sees the weights that
        are kept, leaves."""
        if self._average is not None:
            self._average.put_in_place()
        if isinstance(self._optimiser, ScheduleFreeSteps):
            self._optimiser.put_average_in_place()
            self._clamp()
        return self._preservation.end_of_stage()

    def _clamp(self) -> None:
        """Keep the logit scale in bounds, where it is trained, as OpenCLIP does."""
        if self._max_logit_scale is None:
            return
        scale = self._module.logit_scale
        with torch.no_grad():
            if isinstance(self._optimiser, ScheduleFreeSteps):
                self._optimiser.clamp(scale, 0, self._max_logit_scale)
            else:
                scale.clamp_(0, self._max_logit_scale)

    def _gradients(self) -> dict[str, Tensor]:
        return {n: p.grad for n, p in self._trained.items() if p.grad is not None}

    def _share_overflow(self) -> None:
        """Where any process holds a gradient that is not finite, have all skip the step."""
        gradients = self._gradients()
        zero = self._shards.total({name: (0 * g).sum() for name, g in gradients.items()})  # or NaN
        for gradient in gradients.values():
            gradient.add_(zero)

    def _clip(self) -> Tensor:
        gradients = self._gradients()
        if self._shards.shared_out:
            squares = {name: gradient.square().sum() for name, gradient in gradients.items()}
            norm = self._shards.total(squares).sqrt()
        else:
            norm = nn.utils.get_total_norm(gradients.values())
        if self._clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._trained.values(), self._clip_norm, norm)
        return norm

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, for a resume point, whole at the first process; frozen
        weights stay as they were given."""
        unannealed = {"unannealed": self.unannealed} if self.unannealed else {}
        return {
            **unannealed,
            "weights": self.weights(),
            "optimiser": optimiser_state(self._optimiser, self._numbers(), self._shards),
            "scaler": self._scaler.state_dict(),
            "preservation": self._preservation.state(),
            "average": self._average.state() if self._average is not None else {},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        with torch.no_grad():
            for name, tensor in self._changing().items():
                tensor.copy_(self._shards.part(name, state["weights"][name]))
        of_parts = state_of_parts(state["optimiser"], self._numbers(), self._shards)
        self._optimiser.load_state_dict(of_parts)
        self._scaler.load_state_dict(state["scaler"])
        self._preservation.restore(state["preservation"])
        if self._average is not None:
            self._average.restore(state["average"])
        self.unannealed = state.get("unannealed", {})

    def weights(self) -> dict[str, Tensor]:
        """What of the module's state training changes, whole at the first process."""
        return {name: self._shards.whole(name, part) for name, part in self._changing().items()}

    def _changing(self) -> dict[str, Tensor]:
        """What of the module's state training changes, as far as it is held: all but frozen
        parameters; norms keep statistics beside theirs."""
        frozen = {n for n, p in self._module.named_parameters() if not p.requires_grad}
        state = self._module.state_dict()
        return {
            name: self._trained[name].detach() if name in self._shards.shared_out else tensor
            for name, tensor in state.items()
            if name not in frozen
        }

    def _numbers(self) -> dict[int, str]:
        """The numbers of parameters in the optimiser's state, with their names."""
        names = {id(parameter): name for name, parameter in self._trained.items()}
        ordered = (p for group in self._optimiser.param_groups for p in group["params"])
        return {number: names[id(parameter)] for number, parameter in enumerate(ordered)}

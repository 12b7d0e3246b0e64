"""A step of training: gradient, clipping, optimiser, and the state that goes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.models.backbones import Clip
from fomo_dagster.training.gradcache import GradientPass
from fomo_dagster.training.loss import contrastive_loss
from fomo_dagster.training.optimisers import create_optimiser

_LOWER_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """Trains some parameters of a module, in place, on the device it is on.

    Weights, gradients and optimiser are fp32; with bf16 and fp16 the towers compute under autocast,
    and with fp16 the loss is scaled so that small gradients survive (arXiv 1710.03740).
    """

    def __init__(
        self,
        module: Clip,
        trained: Mapping[str, nn.Parameter],
        settings: TrainingSettings,
        device: torch.device,
        micro_batch_size: int | None,
        normalise: Callable[[Tensor], Tensor],
    ) -> None:
        self._module = module
        self._trained = list(trained.values())
        self._clip_norm = settings.optimiser.clip_norm
        self._max_logit_scale = settings.max_logit_scale if "logit_scale" in trained else None
        self._optimiser = create_optimiser(self._trained, settings.optimiser)
        self._scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "fp16")
        dtype = _LOWER_PRECISION.get(settings.precision)

        def autocast() -> AbstractContextManager[None]:
            return nullcontext() if dtype is None else torch.autocast(device.type, dtype)

        self._gradient = GradientPass(
            module=module,
            loss=contrastive_loss(),
            device=device,
            normalise=normalise,
            autocast=autocast,
            scale=self._scaler.scale,
            micro_batch_size=micro_batch_size,
        )

    def step(self, images: Tensor, tokens: Tensor, learning_rate: float, seed: int) -> Tensor:
        """Train on one batch: images (B, 3, H, W), tokens (B, L). `seed`: of what is random.

        Returns (3,), on the device: the loss, the norm of the whole gradient before clipping, and
        the logit scale, both as they were before the weights changed.
        """
        self._optimiser.zero_grad()
        loss = self._gradient.backward(images, tokens, seed)
        self._scaler.unscale_(self._optimiser)
        norm = self._clip()
        measured = torch.stack([loss, norm, self._module.logit_scale.detach().reshape(())])
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._max_logit_scale is not None:
            with torch.no_grad():
                self._module.logit_scale.clamp_(0, self._max_logit_scale)  # as OpenCLIP does
        return measured

    def _clip(self) -> Tensor:
        if self._clip_norm is not None:
            return nn.utils.clip_grad_norm_(self._trained, self._clip_norm)
        gradients = [p.grad for p in self._trained if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, for a resume point."""
        return {
            "weights": self._module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._module.load_state_dict(state["weights"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])

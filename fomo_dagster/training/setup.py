"""What a stage starts with: a model made ready to train, and the learner over it.

A training and the counting of its cost both start through here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fomo_dagster.data.transforms import normalise
from fomo_dagster.distributed.parameter_shards import UNSHARDED, ParameterShards
from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.methods.adapters.declaration import Adapters
from fomo_dagster.methods.adapters.wrapping import Adapted, add_adapters
from fomo_dagster.methods.averaging.average import Average
from fomo_dagster.methods.declaration import Finetune, Method
from fomo_dagster.methods.loss.contrastive import check_goes_with, contrastive_loss
from fomo_dagster.methods.online_selection.choosing import Features, OnlineSelection
from fomo_dagster.methods.preservation.hooks import StageContext, StageHooks
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models.backbones import Clip, Model
from fomo_dagster.training.gradcache import GradientPass
from fomo_dagster.training.learner import Learner
from fomo_dagster.training.precision import autocast_of
from fomo_dagster.training.spec import StageSpec
from fomo_dagster.training.towers import Encode


def prepare_trainable(
    module: Clip, method: Method, seed: int, continued: Mapping[str, Tensor] | None = None
) -> Adapted | None:
    """Have the module ask for gradients where the method trains; its adapters, where it has any.

    seed: of what is random in new adapters. continued: adapters to continue with. Raises as
    `select_trained` and `add_adapters` do.
    """
    if isinstance(method, Finetune):
        select_trained(module, method.train)
        return None
    assert isinstance(method, Adapters)  # what every other method is
    adapted = add_adapters(module, method, seed)
    if continued is not None:
        adapted.load(continued)
    return adapted


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model trains, and how its passes run.

    compile_tower: what compiles a tower's pass; None: it runs as it is. group: the processes that
    train together. shards: how the model is shared out over them.
    """

    device: torch.device
    micro_batch_size: int | None = None
    compile_tower: Callable[[Encode], Encode] | None = None
    group: ProcessGroup = SINGLE_PROCESS
    shards: ParameterShards = UNSHARDED


def build_learner(
    model: Model,
    spec: StageSpec,
    placement: Placement,
    steps: int,
    preserve: Callable[[StageContext], StageHooks],
    select: Callable[[StageContext, Features], OnlineSelection] | None = None,
) -> Learner:
    """A learner over what asks for a gradient in a model that is on its device and ready to train.

    steps: how many it will make. select: makes what chooses the rows of batches that are trained
    on; None: all are. Raises what its parts raise for settings that do not suit the model.
    """
    average = spec.method.average
    stage_context, gradient_pass = begin_stage(model, spec, placement)
    trained, shards = stage_context.trained, placement.shards
    averaged = Average(average, trained, steps, shards) if average else None
    selection = select(stage_context, gradient_pass.encoded) if select is not None else None
    return Learner(stage_context, preserve(stage_context), spec.settings, averaged, selection)


def begin_stage(
    model: Model, spec: StageSpec, placement: Placement
) -> tuple[StageContext, GradientPass]:
    """What takes gradients of the loss over a model that is on its device and ready to train.
    Raises `InputError` for a loss that does not go with the model."""
    settings, device, shards = spec.settings, placement.device, placement.shards
    loss = contrastive_loss(settings.loss)
    check_goes_with(loss, model.module)
    autocast = autocast_of(settings.precision, device)
    gradient_pass = GradientPass(
        module=model.module,
        device=device,
        normalise=partial(normalise, mean=model.mean, std=model.std),
        autocast=autocast,
        micro_batch_size=placement.micro_batch_size,
        compile_tower=placement.compile_tower,
        group=placement.group,
        shards=shards,
    )
    stage_context = StageContext(
        model=model,
        trained=shards.held(model.module),
        loss=loss,
        gradient=gradient_pass.backward,
        device=device,
        autocast=autocast,
        micro_batch_size=placement.micro_batch_size,
        seed=spec.seed,
        stage=spec.stage,
        group=placement.group,
        shards=shards,
    )
    return stage_context, gradient_pass

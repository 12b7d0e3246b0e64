"""The cost of a training step: floating-point operations, and peak memory in bytes.

The cost is counted over steps of the real learner on tensors without data (`FakeTensorMode`), so
neither weights nor an accelerator are needed. It includes the parts of the method, its selection of
samples, its loss, what it does after an update and after the last step, its optimiser and its
average. `models/operations.py` says which operations count.

Whole batches are counted, whatever `execution` makes of them: micro-batches save memory at the
price of a second forward pass, and an experiment must not get fewer steps because it runs on a
smaller device. fp16 is counted as bf16, whose tensors have the same sizes. Evaluation, merging and
reading data are not covered. The same steps on real tensors measure the memory of a device.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fomo_dagster.data.batches import Batch
from fomo_dagster.data.mixture import POOLS, StepSizes
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.methods.online_selection.choosing import (
    Features,
    OnlineSelection,
    begin_selection,
)
from fomo_dagster.methods.online_selection.declaration import Referring
from fomo_dagster.methods.preservation.hooks import StageContext, StageInputs
from fomo_dagster.methods.preservation.registry import begin
from fomo_dagster.models.backbones import Model, meta_model
from fomo_dagster.models.operations import (
    NumbersReadBack,
    as_fake,
    counted_in_full,
    counter,
    fake_tensors,
)
from fomo_dagster.optimisation.optimisers import LowRank
from fomo_dagster.training.cost_case import CostCase
from fomo_dagster.training.memory import LiveBytes
from fomo_dagster.training.precision import autocast_of
from fomo_dagster.training.setup import Placement, build_learner, prepare_trainable
from fomo_dagster.training.spec import StageSpec

_CPU = torch.device("cpu")
_MANY_STEPS = 2**31  # more than any average waits for
_REPEATED = 2  # batches of an estimate that are computed; all others cost what the second does


@dataclass(frozen=True)
class Cost:
    """What the steps of a stage cost."""

    flops_per_step: int
    flops_at_renewal: int
    """What a step costs beside, at which a low-rank optimiser chooses its dimensions anew."""
    steps_between_renewals: int
    """0: there are none."""
    flops_beside_steps: int
    """Of what a method does before the first step, and after the last."""
    flops_per_replay_feature: int
    """Of the features that a stage leaves of each sample that it brought."""
    peak_memory_bytes: int

    def of_steps(self, steps: int) -> int:
        """The operations of the steps of a stage."""
        renewals = -(-steps // self.steps_between_renewals) if self.steps_between_renewals else 0
        return steps * self.flops_per_step + renewals * self.flops_at_renewal

    def of_stage(self, steps: int, replay_features: int = 0) -> int:
        """The operations of a whole stage. replay_features: of how many samples it leaves them."""
        of_features = replay_features * self.flops_per_replay_feature
        return self.of_steps(steps) + self.flops_beside_steps + of_features


def count(case: CostCase) -> Cost:
    """Count what a step costs. Takes seconds, and no more memory for larger models or batches.

    Raises `InputError` for settings that do not suit the architecture.
    """
    # If a process' first gradients are those of fake tensors, autograd starts threads, and children
    # that are forked later cannot take gradients.
    torch.ones((), requires_grad=True).backward()  # type: ignore[no-untyped-call]
    return _run(case, _CPU, fake_tensors())


def measure(case: CostCase) -> int | None:
    """Bytes that PyTorch holds at the peak of two steps of whole batches on this machine's CUDA
    device; None if there is none, or it has not as many. Raises as `count` does."""
    if not torch.cuda.is_available():
        return None
    device = torch.device("cuda", torch.cuda.current_device())
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _run(case, device, nullcontext())
    except torch.cuda.OutOfMemoryError:
        return None
    return torch.cuda.max_memory_allocated(device) - before


def _run(case: CostCase, device: torch.device, tensors: AbstractContextManager[Any]) -> Cost:
    with counted_in_full():
        return _Counting(case, device, tensors).run()


@dataclass
class _Counting:
    case: CostCase
    device: torch.device
    tensors: AbstractContextManager[Any]
    """Within it tensors hold nothing, or what they are filled with."""
    memory: LiveBytes = field(default_factory=LiveBytes)
    flops: FlopCounterMode = field(default_factory=counter)
    reference: Model | None = None
    unseen: int = 0
    """Operations for the batches of an estimate that were not computed, for they cost alike."""

    def run(self) -> Cost:
        case, method = self.case, self.case.method
        model = meta_model(case.architecture)
        with torch.device("meta"):
            prepare_trainable(model.module, method, 0)
        if case.reference is not None:
            self.reference = meta_model(case.reference)
        selecting, drawn = None, case.sizes
        if case.selection is not None:
            drawn = StepSizes.constant(case.sizes, steps=1).enlarged(case.selection.share).at(0)
            if isinstance(case.selection, Referring):
                selecting = meta_model(case.selection.reference.architecture)
        lower = "bf16" if case.settings.precision == "fp16" else case.settings.precision
        settings = case.settings.model_copy(update={"precision": lower})
        numbers = NumbersReadBack()  # type: ignore[no-untyped-call]
        with self.device, self.tensors, self.memory, self.flops, numbers:
            model = as_fake(model)
            batch = _batch(model, drawn)
            features, per_replay_feature = None, 0
            if method.preserve is not None and method.preserve.leaves_replay_features:
                features = partial(self._replay_features, self._width_of(model, batch, lower))
                per_replay_feature = self._total() // len(batch.images)
            stage_inputs = StageInputs(
                reference=self._reference if case.reference is not None else None,
                carried=self._carried(model) if case.goes_on else {},
                replay_features=features,
                update=partial(self._update, model),
                pretraining=partial(self._update, model),
                pairs=partial(self._update, model, 1),
            )
            spec = StageSpec(
                settings=settings, seed=0, stage=2 if case.goes_on else 1,
                execution=Execution(), method=method,
            )  # fmt: skip
            begun = self._total()
            learner = build_learner(
                model, spec, Placement(device=self.device), _MANY_STEPS,
                partial(begin, method.preserve, stage_inputs),
                self._select(selecting) if case.selection is not None else None,
            )  # fmt: skip
            counts = [self._total()]
            for _ in range(2):  # the optimiser's state is there from the first on
                learner.step(batch, learning_rate=0.0, towers={}, seed=0)
                counts.append(self._total())
            learner.end_of_stage()
            counts.append(self._total())
        first, step, end = (after - before for before, after in pairwise(counts))
        optimiser = settings.optimiser
        return Cost(
            flops_per_step=step,
            flops_at_renewal=first - step,
            steps_between_renewals=optimiser.update_gap if isinstance(optimiser, LowRank) else 0,
            flops_beside_steps=counts[0] - begun + end,
            flops_per_replay_feature=per_replay_feature,
            peak_memory_bytes=self.memory.peak,
        )

    def _total(self) -> int:
        return int(self.flops.get_total_flops()) + self.unseen

    def _select(
        self, reference: Model | None
    ) -> Callable[[StageContext, Features], OnlineSelection]:
        assert self.case.selection is not None
        load = None if reference is None else partial(as_fake, reference)
        return partial(begin_selection, self.case.selection, load)

    def _reference(self) -> Model:
        assert self.reference is not None
        return as_fake(self.reference)

    def _carried(self, model: Model) -> dict[str, Tensor]:
        preserve = self.case.method.preserve
        if preserve is None or not preserve.carries:
            return {}
        shapes = preserve.carried_shapes(model.module)
        return {name: torch.zeros(shape) for name, shape in shapes.items()}

    def _replay_features(self, width: int, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = len(drawn)
        return torch.zeros(count, width), torch.zeros(count, width), torch.zeros(count)

    def _update(self, model: Model, size: int, samples: int) -> Iterator[Batch]:
        if self.case.update_samples is not None:
            samples = min(samples, self.case.update_samples)
            size = min(size, samples) or size
        batches = max(1, samples // size)
        batch = _batch(model, {"update": size})
        for number in range(min(batches, _REPEATED)):
            before = self._total()
            yield batch
            if number + 1 == _REPEATED:
                self.unseen += (batches - _REPEATED) * (self._total() - before)

    @torch.no_grad()
    def _width_of(self, model: Model, batch: Batch, precision: str) -> int:
        """Of the features, which are computed to know it."""
        with autocast_of(precision, self.device)():
            model.module.encode_image(batch.images.float())
            return int(model.module.encode_text(batch.tokens).shape[1])


def _batch(model: Model, sizes: Mapping[str, int]) -> Batch:
    rows = sum(sizes.values())
    length = model.tokenize([""]).shape[1]
    return Batch(
        images=torch.zeros(rows, 3, model.image_size, model.image_size, dtype=torch.uint8),
        tokens=torch.zeros(rows, length, dtype=torch.int64),
        drawn=torch.zeros(rows, 2, dtype=torch.int64),
        texts=[""] * rows,
        counts={pool: sizes.get(pool, 0) for pool in POOLS},
    )

"""What steps cost: held against the published table, against real tensors, and in closed form."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import ClassVar, get_args

import pytest
import torch
from pydantic import TypeAdapter

from fomo_dagster.data.batches import Batch
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.graph.work.budgets import MemoryAdjusted
from fomo_dagster.methods.online_selection.declaration import Jest, Learnability, RandomSelection
from fomo_dagster.methods.preservation.hooks import StageHooks, StageInputs
from fomo_dagster.methods.preservation.registry import PRESERVATIONS, begin
from fomo_dagster.methods.preservation.si import SI
from fomo_dagster.methods.registry import AnyMethod
from fomo_dagster.models.backbones import create
from fomo_dagster.models.operations import counter
from fomo_dagster.training.compute import Cost, _run, count, measure
from fomo_dagster.training.cost_case import CostCase
from fomo_dagster.training.memory import LiveBytes
from fomo_dagster.training.setup import Placement, build_learner, prepare_trainable
from fomo_dagster.training.spec import StageSpec

TOY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "width": 16, "heads": 2, "layers": 1},
}
TEACHER = {"name": "teacher", "architecture": TOY, "pretrained": "any"}

# FoMo-in-Flux's table (arXiv 2408.14471) for ViT-B/16 at a batch of 512 and a budget of 1.8e9:
# GFLOPs a step, memory multiplier, and steps a stage for 20, 50, 100 and 200 stages.
PUBLISHED = {
    "full": (63394.7585, 1.0, (1420, 568, 284, 142)),
    "locked_text": (57254.6183, 0.8064, (1949, 780, 390, 195)),
    "locked_image": (27176.6698, 0.2551, (12982, 5193, 2596, 1298)),
    "layer_norms": (43165.5968, 0.6558, (3179, 1272, 636, 318)),
    "biases": (43165.5968, 0.6558, (3179, 1272, 636, 318)),
    "lora r4": (54479.2515, 0.8702, (1898, 759, 380, 190)),
    "lora r64": (54505.0151, 0.873, (1891, 757, 378, 189)),
    "dora r4": (54479.8241, 0.8726, (1893, 757, 379, 189)),
    "dora r64": (54514.1754, 0.8754, (1886, 754, 377, 189)),
    "vera r4": (54479.3393, 0.8702, (1898, 759, 380, 190)),
    "vera r64": (54507.8336, 0.8708, (1896, 758, 379, 190)),
    "ewc": (6276081.094, 1.0132, (14, 6, 3, 1)),
    "si": (63394.7585, 1.0013, (1418, 567, 284, 142)),
}
# The release adapts the input projections of attention and `c_proj` with matrices that it adds to
# the weights in every step, so that a step takes the gradients of these weights themselves.
TRAINED_AS_PUBLISHED = {
    "full": "all",
    "lora r4": {"include": ["*.in_proj_weight", "*.c_proj.weight"]},
}


def case(architecture, batch_size, precision="fp32", optimiser=None, goes_on=True, **method):
    chosen = TypeAdapter(AnyMethod).validate_python(method)
    third = batch_size // 3
    reference = None if chosen.preserve is None else chosen.preserve.reference
    return CostCase(
        architecture=architecture,
        method=chosen,
        settings=TrainingSettings(
            batch_size=batch_size, precision=precision, optimiser=optimiser or {"name": "adamw"}
        ),
        sizes={"update": batch_size - 2 * third, "buffer": third, "pretraining": third},
        goes_on=goes_on,
        reference=reference and TOY,
    )


@pytest.mark.slow
@pytest.mark.journey
def test_operations_and_memory_of_a_step_are_the_published_ones():
    """In one test, as each is counted for seconds and all are divided by the full one's memory."""

    def cost(name, optimiser=None):
        train = TRAINED_AS_PUBLISHED.get(name, name)
        return count(case("ViT-B-16", 512, "bf16", optimiser, train=train))

    counted = {
        name: cost(name)
        for name in ("full", "locked_text", "locked_image", "layer_norms", "biases")
    }
    # The released LoRA keeps no state of the weights whose gradients it takes, nor does SGD.
    counted["lora r4"] = cost("lora r4", {"name": "sgd", "momentum": 0.0, "learning_rate": 0.1})
    # Above the published ones, which have one product for the logits of both directions, not two.
    gigaflops = {name: one.flops_per_step / 1e9 for name, one in counted.items()}
    assert gigaflops == pytest.approx({name: PUBLISHED[name][0] for name in counted}, rel=1e-4)
    full = counted["full"].peak_memory_bytes
    multipliers = {name: one.peak_memory_bytes / full for name, one in counted.items()}
    assert multipliers == pytest.approx({name: PUBLISHED[name][1] for name in counted}, abs=0.03)


@pytest.mark.parametrize("name", PUBLISHED)
def test_steps_a_stage_follow_from_the_published_figures(name):
    gigaflops, multiplier, steps = PUBLISHED[name]
    cost = MemoryAdjusted(round(gigaflops * 1e9), 0, 0, multiplier)
    assert tuple(cost.steps(1.8e9, stages) for stages in (20, 50, 100, 200)) == steps


METHODS = {
    "l2 to θ₀": {"preserve": {"name": "l2", "to": "initial"}},
    **{
        name: {"preserve": {"name": name, **({"teacher": TEACHER} if name == "transfer" else {})}}
        for one in PRESERVATIONS
        for name in get_args(one.model_fields["name"].annotation)
    },
    **{
        name: {
            "name": "lora",
            "rank": 4,
            "adapters": "merge_each_stage",
            "preserve": {"name": name},
        }
        for name in ("inflora", "olora")
    },
    "average": {"average": {"name": "exponential"}},
    **{name: {"name": name, "rank": 4} for name in ("lora", "dora", "loha", "lokr", "vera", "hra")},
    "oft": {"name": "oft", "block_size": 8},
    "ia3": {"name": "ia3"},
    "galore": {"optimiser": {"name": "galore_adamw", "rank": 4}},
    "fira": {"optimiser": {"name": "fira", "rank": 4}},
    "muon": {"optimiser": {"name": "muon"}},
    "soap": {"optimiser": {"name": "soap"}},
    "lion": {"optimiser": {"name": "lion", "learning_rate": 0.1}},
    "sgd": {"optimiser": {"name": "sgd", "learning_rate": 0.1}},
}
# Beside preservations that anchor weights or look at another model.
DEARER = {"fira", "soap", "average"}


@pytest.fixture(scope="module")
def plain():
    return count(case(TOY, 9))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_counted_with_all_that_it_holds(plain, name):
    counted = case(TOY, 9, **METHODS[name])
    cost, preserve = count(counted), counted.method.preserve
    holds = preserve is not None and (preserve.weights_themselves or preserve.reference is not None)
    leaves_features = preserve is not None and preserve.leaves_replay_features
    assert cost.flops_per_step > 0
    assert (cost.peak_memory_bytes > plain.peak_memory_bytes) is (name in DEARER or holds)
    measures = hasattr(preserve, "samples") or name == "olora"  # AᵀA of what it leaves
    assert (cost.flops_beside_steps > 0) is measures
    assert (cost.flops_per_replay_feature > 0) is leaves_features
    assert (cost.steps_between_renewals, cost.flops_at_renewal > 0) == (
        (200, True) if name in ("galore", "fira") else (0, False)
    )


@pytest.mark.slow
def test_fake_tensors_count_what_real_ones_take():
    method = TypeAdapter(AnyMethod).validate_python({})
    settings = TrainingSettings(batch_size=9)
    model = create(TOY, seed=0)
    prepare_trainable(model.module, method, 0)
    memory = LiveBytes()
    memory.note([*model.module.parameters(), *model.module.buffers()])
    with memory, counter() as flops:
        batch = Batch(
            torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8),
            torch.randint(1, 49407, (9, 12)),
            torch.zeros(9, 2, dtype=torch.int64),
            [""] * 9,
            {"update": 9},
        )
        learner = build_learner(
            model, StageSpec(settings=settings, seed=0, stage=1, execution=Execution()),
            Placement(device=torch.device("cpu")), 2, partial(begin, None, StageInputs()),
        )  # fmt: skip
        for _ in range(2):
            learner.step(batch, 0.0, {}, 0)
    counted = count(case(TOY, 9))
    assert flops.get_total_flops() == 2 * counted.flops_per_step
    assert memory.peak == pytest.approx(counted.peak_memory_bytes, rel=0.01)


@pytest.mark.slow
def test_the_same_steps_run_on_tensors_that_are_there():
    """As a device's memory is measured: with what a method holds, and a selection."""
    measured = replace(
        case(TOY, 9, preserve={"name": "ewc", "samples": 8, "batch_size": 4}),
        selection=RandomSelection(name="random", share=0.5),
    )
    real, counted = _run(measured, torch.device("cpu"), nullcontext()), count(measured)
    assert real.flops_per_step == counted.flops_per_step
    assert real.peak_memory_bytes == pytest.approx(counted.peak_memory_bytes, rel=0.02)


def test_nothing_is_measured_without_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert measure(case(TOY, 9)) is None


@pytest.mark.slow
def test_an_estimate_costs_what_all_its_batches_do():
    ewc = {"name": "ewc", "batch_size": 8}
    few, many = (count(case(TOY, 9, preserve=ewc | {"samples": n})) for n in (16, 80))
    assert many.flops_beside_steps == 5 * few.flops_beside_steps
    assert many.peak_memory_bytes == few.peak_memory_bytes


@pytest.mark.slow
def test_scoring_of_a_selection_is_counted(plain):
    """Of 18 samples 9 are kept: each takes a forward pass of the learner and of the reference."""
    selections = (
        RandomSelection(name="random", share=0.5),
        Learnability(name="learnability", share=0.5, reference=TEACHER),
        Jest(name="jest", share=0.5, reference=TEACHER, chunks=3),
    )
    chance, scored, jointly = (
        count(replace(case(TOY, 9), selection=selection)) for selection in selections
    )
    assert chance.flops_per_step == plain.flops_per_step
    assert chance.peak_memory_bytes > plain.peak_memory_bytes
    forward = 2 * 18 * features_flops()  # of two models; the rest is the logits of 18 pairs each
    logits = 2 * (2 * 18 * 18 * 16)
    assert scored.flops_per_step - plain.flops_per_step == forward + logits
    assert jointly.flops_per_step == scored.flops_per_step


def features_flops():
    model = create(TOY, seed=0)
    with torch.no_grad(), counter() as flops:
        model.module.encode_image(torch.zeros(1, 3, 16, 16))
        model.module.encode_text(torch.zeros(1, 12, dtype=torch.int64))
    return flops.get_total_flops()


@pytest.mark.slow
def test_the_stage_at_which_nothing_is_carried_costs_less_memory():
    si = {"preserve": {"name": "si"}}
    first, later = (count(case(TOY, 9, goes_on=goes_on, **si)) for goes_on in (False, True))
    assert first.peak_memory_bytes < later.peak_memory_bytes


def test_what_a_stage_goes_on_with_has_all_tensors_of_each_weight():
    given = []

    class TwoOfEach(SI):
        carried_for_each_weight: ClassVar[tuple[str, ...]] = ("fisher.", "score.")

        def begin(self, stage_context, stage_inputs):
            given.append((stage_context.trained, stage_inputs.carried))
            return StageHooks(stage_context)

    plain = case(TOY, 9)
    method = plain.method.model_copy(update={"preserve": TwoOfEach(name="si")})
    count(replace(plain, method=method))
    ((trained, carried),) = given
    expected = {f"{kind}.{n}": p.shape for kind in ("fisher", "score") for n, p in trained.items()}
    assert {name: tensor.shape for name, tensor in carried.items()} == expected


def test_a_stage_costs_its_steps_what_is_renewed_within_it_and_its_end():
    cost = Cost(10, 7, 200, 100, 3, 0)
    assert cost.of_stage(200) == 200 * 10 + 7 + 100
    assert cost.of_stage(201, replay_features=5) == 201 * 10 + 2 * 7 + 100 + 5 * 3


def test_live_bytes_peak_where_most_is_held_and_views_hold_nothing():
    with LiveBytes() as memory:
        a = torch.zeros(1000)  # 4000 bytes
        b = a + 1  # 8000
        del a  # 4000
        views = [b[:10], b.view(10, 100)]
        c = b * 2  # 8000
        del b, views, c
        torch.zeros(100)
    assert memory.peak == 8000


@pytest.mark.slow
@pytest.mark.journey
def test_the_largest_models_are_counted_without_their_weights():
    """Two blocks of ViT-bigG-14 stand for all: activations of a batch alone would not fit."""
    shape = {
        "embed_dim": 1280,
        "vision_cfg": {
            "image_size": 224, "layers": 2, "width": 1664, "head_width": 104, "mlp_ratio": 4.9231,
            "patch_size": 14,
        },
        "text_cfg": {"context_length": 77, "width": 1280, "heads": 20, "layers": 2},
    }  # fmt: skip
    cost = count(case(shape, 4096, "bf16"))
    assert cost.peak_memory_bytes > 100 * 2**30

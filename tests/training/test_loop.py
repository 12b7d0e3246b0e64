from __future__ import annotations

import multiprocessing.process
import os
import re
import runpy
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from fomo_dagster.errors import TrainingError
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.training import Budget, RateScaling, TowerWarmup, TrainingSettings
from fomo_dagster.methods.trained_parameters.declaration import Parameters, Train
from fomo_dagster.methods.trained_parameters.selecting import select_trained
from fomo_dagster.models import backbones
from fomo_dagster.models.backbones import Model
from fomo_dagster.optimisation.optimisers import AdamW, GaLore
from fomo_dagster.optimisation.schedules import Constant
from fomo_dagster.progress import Progress, no_progress
from fomo_dagster.store.remotes import Remote
from fomo_dagster.store.resume_copies import ResumeCopies
from fomo_dagster.training import loop
from fomo_dagster.training.spec import StageSpec, TrainingRun

STEPS = 6
BATCH = 8
FLOATS = (
    "loss", "preservation_loss", "learning_rate", "gradient_norm", "logit_scale",
    "samples_per_second",
)  # fmt: skip
INTEGERS = ("step", "update_samples", "buffer_samples", "pretraining_samples")
CONFIGURATION: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {
        "image_size": 16,
        "patch_size": 4,
        "layers": 1,
        "width": 16,
        "head_width": 8,
        "patch_dropout": 0.5,  # so that the towers draw at random
    },
    "text_cfg": {"context_length": 6, "vocab_size": 512, "layers": 1, "width": 16, "heads": 2},
}


def create(configuration: dict[str, Any]) -> Model:
    """A model of fewer tokens than CLIP's tokeniser has: nothing here is tokenised, and embeddings
    of 49,408 tokens would be nearly all that is trained."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(backbones, "tokens_of", lambda _: 0)
        return backbones.create(configuration, seed=0)


@dataclass(frozen=True)
class Batch:
    images: Tensor
    tokens: Tensor
    counts: dict[str, int]


class Batches:
    """Random batches, each a function of its step; `before` is called ahead of each."""

    def __init__(self, steps: int = STEPS, before: Callable[[int], None] | None = None) -> None:
        self.steps = steps
        self.started_at: int | None = None
        self._before = before

    def iterate(self, start: int) -> Iterator[Batch]:
        self.started_at = start
        for step in range(start, self.steps):
            if self._before is not None:
                self._before(step)
            random = torch.Generator().manual_seed(step)
            images = torch.randn(BATCH, 3, 16, 16, generator=random)
            tokens = torch.randint(1, 511, (BATCH, 6), generator=random)
            yield Batch(images, tokens, {"update": 5, "buffer": 2, "pretraining": 1})


def settings(**changes: Any) -> TrainingSettings:
    given = {"batch_size": BATCH, "budget": Budget(steps=STEPS)}
    return TrainingSettings(**(given | {"optimiser": AdamW(learning_rate=1e-3)} | changes))


def run(
    folder: Path,
    batches: Batches | None = None,
    *,
    training: TrainingSettings | None = None,
    train: Train = "all",
    seed: int = 0,
    stage: int = 1,
    execution: Execution | None = None,
    identity: str = "recipe",
    progress: Progress = no_progress,
    configuration: dict[str, Any] = CONFIGURATION,
    copies: ResumeCopies | None = None,
) -> tuple[dict[str, Tensor], pl.DataFrame]:
    model = create(configuration)
    select_trained(model.module, train)
    frame, *_ = loop.train(
        model,
        batches or Batches(),
        StageSpec(
            settings=training or settings(),
            seed=seed,
            stage=stage,
            execution=execution or Execution(device="cpu"),
        ),
        TrainingRun(resume_folder=folder, identity=identity, progress=progress, copies=copies),
    )
    return model.module.state_dict(), frame


def failing_at(stop: int) -> Callable[[int], None]:
    def fail(step: int) -> None:
        if step == stop:
            raise OSError("the disk is gone")

    return fail


def terminated_at(stop: int) -> Callable[[int], None]:
    def terminate(step: int) -> None:
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    return terminate


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def without_times(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("samples_per_second")


def test_the_weights_are_those_of_a_bare_torch_loop(tmp_path: Path) -> None:
    """Loss, AdamW on all parameters, clipping, warm-up and clamp; without dropout, on purpose."""
    plain = CONFIGURATION | {"vision_cfg": CONFIGURATION["vision_cfg"] | {"patch_dropout": 0.0}}
    training = settings(
        # a larger epsilon, lest Adam blow up the rounding of gradients that are zero
        optimiser=AdamW(learning_rate=1e-3, epsilon=1e-4),
        schedule=Constant(name="constant", warmup=0.5),
        max_logit_scale=2.65,
    )
    trained, frame = run(tmp_path, training=training, configuration=plain)

    module = create(plain).module.train()
    parameters = list(module.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, eps=1e-4, weight_decay=0.2, foreach=False)
    for step, batch in enumerate(Batches().iterate(0)):
        optimiser.zero_grad()
        images = module.encode_image(batch.images)
        texts = module.encode_text(batch.tokens)
        images, texts = (
            images / images.norm(dim=1, keepdim=True),
            texts / texts.norm(dim=1)[:, None],
        )
        logits = module.logit_scale.exp() * images @ texts.T
        diagonal = logits.diagonal()
        loss = (
            (logits.logsumexp(dim=1) - diagonal).mean()
            + (logits.logsumexp(dim=0) - diagonal).mean()
        ) / 2
        loss.backward()
        norm = torch.sqrt(sum((p.grad**2).sum() for p in parameters))
        for parameter in parameters:
            parameter.grad *= min(1.0, 1 / (norm + 1e-6))
        scale = module.logit_scale.item()
        optimiser.param_groups[0]["lr"] = 1e-3 * min(1, (step + 1) / 3)
        optimiser.step()
        module.logit_scale.data.clamp_(0, 2.65)
        row = frame.row(step, named=True)
        assert row["step"] == step
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert row["gradient_norm"] == pytest.approx(norm.item(), rel=1e-5)
        assert row["logit_scale"] == pytest.approx(scale, rel=1e-6)
        assert row["learning_rate"] == pytest.approx(1e-3 * min(1, (step + 1) / 3), rel=1e-12)
    for name, expected in module.state_dict().items():
        torch.testing.assert_close(trained[name], expected, rtol=1e-4, atol=1e-6)
    assert frame["logit_scale"].to_list()[:2] == pytest.approx([2.6592600, 2.65])  # clamped at once


def test_the_table_has_a_row_a_step_with_the_samples_of_each_pool(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    _, frame = run(
        tmp_path, progress=lambda what, done, total, detail="": told.append((what, done, total))
    )
    assert dict(frame.schema) == dict.fromkeys(FLOATS, pl.Float64) | dict.fromkeys(
        INTEGERS, pl.Int64
    )
    assert frame["step"].to_list() == list(range(STEPS))
    assert [frame[name].to_list() for name in INTEGERS[1:]] == [
        [5] * STEPS,
        [2] * STEPS,
        [1] * STEPS,
    ]
    assert (frame["samples_per_second"] > 0).all()
    assert told == [("training", done, STEPS) for done in range(1, STEPS + 1)]


def test_seed_and_stage_decide_what_is_random_and_nothing_outside_does(tmp_path: Path) -> None:
    torch.manual_seed(5)
    first, _ = run(tmp_path / "a")
    before = torch.get_rng_state()
    torch.rand(3)
    second, _ = run(tmp_path / "b")
    other_seed, _ = run(tmp_path / "c", seed=1)
    other_stage, _ = run(tmp_path / "d", stage=2)
    assert equal(first, second)
    assert not equal(first, other_seed)
    assert not equal(first, other_stage)
    torch.manual_seed(5)
    assert torch.equal(before, torch.get_rng_state())  # the first run has moved nothing
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {
            "optimiser": GaLore(name="galore_adamw", learning_rate=1e-3, rank=4, update_gap=2),
            "precision": "fp16",
        },
        {
            "optimiser": AdamW(learning_rate=1e-3, layer_decay=0.7, weight_decay_on="matrices"),
            "scale_learning_rate": RateScaling(reference_batch_size=4),
            "tower_warmup": TowerWarmup(length=2, ramp=0.5),
        },
    ],
    ids=["fp32", "bf16", "fp16", "galore in fp16", "groups"],
)
def test_a_run_resumed_at_any_step_ends_with_the_same_weights_and_table(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    training = settings(**changes)
    whole, table = run(tmp_path / "whole", training=training)
    for stop in range(1, STEPS):
        folder = tmp_path / str(stop)
        with pytest.raises(OSError, match="the disk is gone"):
            run(folder, Batches(before=failing_at(stop)), training=training)
        batches = Batches()
        resumed, resumed_table = run(folder, batches, training=training)
        assert batches.started_at == stop
        assert equal(resumed, whole)
        assert without_times(resumed_table).equals(without_times(table))


@pytest.mark.parametrize(("tower", "other"), [("text", "image"), ("image", "text")])
def test_while_a_tower_warms_up_the_other_stands_still(
    tmp_path: Path, tower: str, other: str
) -> None:
    before = create(CONFIGURATION).module.state_dict()
    warmup = TowerWarmup.model_validate({"tower": tower, "length": STEPS - 1})
    seen: list[dict[str, Tensor]] = []

    for steps in (STEPS, STEPS - 1):  # to the end, and to that of the warm-up
        folder = tmp_path / str(steps)
        training = settings(tower_warmup=warmup)
        if steps < STEPS:
            with pytest.raises(OSError, match="the disk is gone"):
                run(folder, Batches(before=failing_at(steps)), training=training)
            state = torch.load(folder / "resume.pt", weights_only=True)["state"]
            seen.append(state["learner"]["weights"])
        else:
            seen.append(run(folder, training=training)[0])
    trained, warmed_up = seen
    for name, tensor in before.items():
        is_of_other = (name.startswith("visual.")) is (other == "image")
        assert torch.equal(tensor, warmed_up[name]) is is_of_other, name
        assert not torch.equal(tensor, trained[name]), name


def test_after_a_towers_warm_up_the_others_rate_rises_to_the_schedules() -> None:
    warmup = TowerWarmup(tower="image", length=0.2, ramp=4)
    found = [warmup.factors(step, 10).get("text") for step in range(10)]
    assert found == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert "image" not in warmup.factors(0, 10)


def of_other_weights(state: dict[str, Any]) -> None:
    state["learner"]["weights"].popitem()


def of_another_length(state: dict[str, Any]) -> None:
    state["position"] = 10**6


@pytest.mark.parametrize("spoil", [of_other_weights, of_another_length])
def test_a_resume_point_that_does_not_fit_is_set_aside(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        run(tmp_path, Batches(before=failing_at(2)))
    content = torch.load(tmp_path / "resume.pt", weights_only=True)
    spoil(content["state"])
    torch.save(content, tmp_path / "resume.pt")
    with pytest.raises(
        TrainingError, match=r"does not belong to this training .* run again to start"
    ):
        run(tmp_path)
    assert (tmp_path / "refused.pt").exists()
    batches = Batches()
    run(tmp_path, batches)
    assert batches.started_at == 0


CHILD = """
import time
import torch

def mark(step):
    with marks.open("a") as file:
        file.write(f"{step}\\n")
    time.sleep(seconds)

execution = Execution(device="cpu", resume_seconds=1e-9)
torch.set_num_threads(threads)
weights, frame = run(folder, Batches(before=mark), execution=execution)
torch.save(weights, folder / "final.pt")
"""


def begin(folder: Path, seconds_a_step: float) -> multiprocessing.process.BaseProcess:
    """Train in a process of its own, which saves a resume point after each step."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fomo_dagster.training.loop"])
    folder.mkdir(exist_ok=True)
    script = folder / "child.py"
    script.write_text(f"from runpy import run_path\nglobals().update(run_path(tests))\n{CHILD}")
    given = {"tests": __file__, "folder": folder, "marks": folder / "marks"}
    given |= {"seconds": seconds_a_step, "threads": torch.get_num_threads()}
    process = context.Process(target=runpy.run_path, args=(str(script), given))
    process.start()
    return process


def marks_of(folder: Path) -> list[int]:
    marks = folder / "marks"
    return [int(line) for line in marks.read_text().split()] if marks.exists() else []


@pytest.mark.kill
def test_a_run_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    """SIGKILL at several steps of one training, each time in a new process, then to the end."""
    whole, _ = run(tmp_path / "whole")
    folder = tmp_path / "killed"
    for step in (2, 4):
        process = begin(folder, seconds_a_step=0.05)
        while step not in marks_of(folder):
            assert process.is_alive()
            time.sleep(0.002)
        process.kill()
        process.join()
    process = begin(folder, seconds_a_step=0)
    process.join()
    assert process.exitcode == 0
    marks = marks_of(folder)
    assert marks.count(0) == 1  # nobody began anew
    assert marks[-1] == STEPS - 1
    assert equal(torch.load(folder / "final.pt", weights_only=True), whole)


def test_sigterm_leaves_a_resume_point_of_the_last_step(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    folder = tmp_path / "stopped"

    previous = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match=r"SIGTERM .* 4 of 6 steps.*resume\.pt is kept"):
        run(folder, Batches(before=terminated_at(3)))
    assert signal.getsignal(signal.SIGTERM) is previous
    batches = Batches()
    resumed, _ = run(folder, batches)
    assert batches.started_at == 4
    assert equal(resumed, whole)


def test_another_machine_goes_on_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    def copies() -> ResumeCopies:
        return Remote(f"file://{tmp_path / 'remote'}").resume_copies("recipe")

    whole, frame = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "one", Batches(before=terminated_at(3)), copies=copies())
    batches = Batches()
    resumed, resumed_frame = run(tmp_path / "two", batches, copies=copies())
    assert batches.started_at == 4
    assert equal(resumed, whole)
    assert resumed_frame["loss"].equals(frame["loss"])


def test_a_resume_point_of_another_training_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        run(tmp_path, Batches(before=failing_at(3)), identity="another")
    batches = Batches()
    fresh, _ = run(tmp_path / "fresh")
    weights, _ = run(tmp_path, batches, identity="recipe")
    assert batches.started_at == 0
    assert equal(weights, fresh)
    assert "is of another training and not used" in caplog.text


class PoisonedBatches(Batches):
    def __init__(self, at: int, before: Callable[[int], None] | None = None) -> None:
        super().__init__(before=before)
        self._at = at

    def iterate(self, start: int) -> Iterator[Batch]:
        for step, batch in enumerate(super().iterate(start), start):
            yield Batch(
                batch.images * (float("nan") if step == self._at else 1), batch.tokens, batch.counts
            )


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path: Path) -> None:
    execution = Execution(device="cpu", resume_seconds=1e-9)
    with pytest.raises(TrainingError) as error:
        run(tmp_path, PoisonedBatches(at=3), stage=2, execution=execution)
    message = str(error.value)
    assert "stage 2, step 3 of 6: the loss is nan" in message
    assert "5 update, 2 buffer, 1 pretraining" in message
    assert f"{tmp_path / 'resume.pt'} is kept" in message
    batches = Batches()
    resumed, _ = run(tmp_path, batches, stage=2)
    assert batches.started_at == 3
    assert equal(resumed, run(tmp_path / "whole", stage=2)[0])


def test_figures_read_late_change_nothing_and_spoil_no_resume_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, eager_frame = run(tmp_path / "eager")
    made = loop._Training.__init__

    def lazy(self: Any, **fields: Any) -> None:
        made(self, **(fields | {"steps_between_reads": 4}))

    monkeypatch.setattr(loop._Training, "__init__", lazy)
    weights, frame = run(tmp_path / "lazy")
    assert equal(weights, eager)
    assert without_times(frame).equals(without_times(eager_frame))
    with pytest.raises(TrainingError, match=r"step 1 of 6: the loss is nan.*none was written yet"):
        run(tmp_path / "late", PoisonedBatches(at=1))

    with pytest.raises(TrainingError, match=r"step 1 of 6: the loss is nan.*none was written yet"):
        run(tmp_path / "stopped", PoisonedBatches(at=1, before=terminated_at(2)))


@pytest.mark.parametrize(
    ("train", "pattern"),
    [
        ("locked_image", r"(?!visual\.).*"),
        ("locked_text", r"visual\..*"),
        ("layer_norms", r"(.*\.)?ln_.*"),
        ("biases", r"(.*\.)?(in_proj_)?bias"),
        ("projections", r"visual\.proj|text_projection"),
        (
            Parameters(include=("visual.*.mlp.*", "logit_scale"), exclude=("*.c_fc.*",)),
            r"visual\..*\.mlp\.c_proj\..*|logit_scale",
        ),
    ],
)
def test_what_is_selected_moves_and_everything_else_stays_bit_for_bit(
    tmp_path: Path, train: Train, pattern: str
) -> None:
    before = create(CONFIGURATION).module.state_dict()
    after, _ = run(tmp_path, train=train)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if re.fullmatch(pattern, name)}


def test_micro_batches_train_to_the_same_weights(tmp_path: Path) -> None:
    plain = CONFIGURATION | {"vision_cfg": CONFIGURATION["vision_cfg"] | {"patch_dropout": 0.0}}
    training = settings(optimiser=AdamW(learning_rate=1e-3, epsilon=1e-4))
    whole, table = run(tmp_path / "whole", training=training, configuration=plain)
    pieces, pieces_table = run(
        tmp_path / "pieces",
        training=training,
        configuration=plain,
        execution=Execution(device="cpu", micro_batch_size=3),
    )
    for name, expected in whole.items():
        torch.testing.assert_close(pieces[name], expected, rtol=1e-4, atol=1e-6)
    for name in ("loss", "gradient_norm"):
        assert pieces_table[name].to_list() == pytest.approx(table[name].to_list(), rel=1e-4)


def test_bf16_keeps_single_precision_weights(tmp_path: Path) -> None:
    whole, table = run(tmp_path / "a")
    mixed, mixed_table = run(tmp_path / "b", training=settings(precision="bf16"))
    assert {tensor.dtype for tensor in mixed.values()} == {torch.float32}
    assert not equal(whole, mixed)
    assert mixed_table["loss"].to_list() == pytest.approx(table["loss"].to_list(), rel=0.05)
    assert any((t != t.bfloat16().float()).any() for t in mixed.values())


def test_a_step_that_overflows_in_fp16_is_skipped_and_training_goes_on(tmp_path: Path) -> None:
    trained, table = run(tmp_path, Batches(12), training=settings(precision="fp16"))
    assert table["gradient_norm"].is_infinite().any()
    assert table["gradient_norm"][-1] < float("inf")
    assert all(bool(tensor.isfinite().all()) for tensor in trained.values())


def test_batches_that_end_early_are_an_error(tmp_path: Path) -> None:
    class Short(Batches):
        def iterate(self, start: int) -> Iterator[Batch]:
            yield from list(super().iterate(start))[:2]

    with pytest.raises(ValueError, match="the batches end at step 2, but there are 6"):
        run(tmp_path, Short())

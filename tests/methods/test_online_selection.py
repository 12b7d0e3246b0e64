"""Which rows a selection keeps: scores by brute force, and what they are good for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from fomo_dagster.data.batches import Batch
from fomo_dagster.data.mixture import kept_of
from fomo_dagster.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from fomo_dagster.methods.online_selection.choosing import begin_selection
from fomo_dagster.methods.online_selection.declaration import AnyOnlineSelection
from fomo_dagster.training.gradcache import GradientPass

COUNTS = {"update": 10, "buffer": 5, "pretraining": 5}
BACKBONE = {"name": "small", "architecture": "ViT-B-32", "pretrained": "openai"}


def declared(name: str, share: float = 0.4) -> Any:
    settings: dict[str, Any] = {"name": name, "share": share}
    if name != "random":
        settings["reference"] = BACKBONE
    if name == "jest":
        settings["chunks"] = 3
    return TypeAdapter(AnyOnlineSelection).validate_python(settings)


def numbers(texts: list[str], reverse: bool = False) -> Tensor:
    """A tokeniser of texts that are numbers; a reference has them from right to left."""
    return torch.tensor([[int(w) for w in text.split()][:: -1 if reverse else 1] for text in texts])


def reference_of(toy: Any, seed: int = 5) -> Any:
    model = toy.theta()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
        model.module.logit_scale.fill_(1.7)
    return replace(model, tokenize=partial(numbers, reverse=True))


def batch_of(counts: Mapping[str, int] = COUNTS) -> Batch:
    size = sum(counts.values())
    random = torch.Generator().manual_seed(13)
    tokens = torch.randint(1, 11999, (size, 6), generator=random)
    rows = torch.cat([torch.arange(count) for count in counts.values()])
    return Batch(
        torch.randn(size, 3, 16, 16, generator=random, dtype=torch.float64),
        tokens,
        torch.stack([rows, rows % 3], dim=1),
        [" ".join(map(str, row)) for row in tokens.tolist()],
        dict(counts),
    )


def pass_over(model: Any, micro_batch_size: int | None = None) -> GradientPass:
    return GradientPass(
        module=model.module, device=torch.device("cpu"), normalise=lambda pixels: pixels,
        autocast=nullcontext, micro_batch_size=micro_batch_size,
    )  # fmt: skip


def referring(
    toy: Any, name: str = "learnability", micro_batch_size: int | None = None
) -> tuple[Any, Any, Any]:
    """In float64: the selection, the learner and the reference."""
    learner, reference = toy.theta(), reference_of(toy)
    learner.module.double()
    reference.module.double()
    made = begin_selection(
        declared(name), lambda: reference, toy.stage_context(learner, micro_batch_size),
        pass_over(learner, micro_batch_size).encoded,
    )  # fmt: skip
    return made, learner, reference


@torch.no_grad()
def logits_of(model: Any, images: Tensor, tokens: Tensor) -> list[list[float]]:
    """One after another."""
    f, g = model.module.encode_image(images), model.module.encode_text(tokens)
    f, g = f / f.norm(dim=1, keepdim=True), g / g.norm(dim=1, keepdim=True)
    scale = math.exp(float(model.module.logit_scale))
    return [[scale * float(sum(of_image * of_text)) for of_text in g] for of_image in f]


def losses_of(model: Any, images: Tensor, tokens: Tensor) -> list[float]:
    """Of each pair, from the definition."""
    logits = logits_of(model, images, tokens)
    n = len(logits)
    found = []
    for i in range(n):
        of_texts = sum(math.exp(logits[i][j]) for j in range(n))
        of_images = sum(math.exp(logits[j][i]) for j in range(n))
        both = (
            math.log(math.exp(logits[i][i]) / of_texts),
            math.log(math.exp(logits[i][i]) / of_images),
        )
        found.append(-sum(both) / 2)
    return found


@pytest.mark.parametrize("micro_batch_size", [None, 3])
def test_the_most_learnable_rows_of_each_pool_are_kept(
    toy: Any, micro_batch_size: int | None
) -> None:
    selection, learner, reference = referring(toy, micro_batch_size=micro_batch_size)
    batch = batch_of()
    mirrored = numbers(batch.texts, reverse=True)
    hard = losses_of(learner, batch.images, batch.tokens)
    known = losses_of(reference, batch.images, mirrored)
    scores = [a - b for a, b in zip(hard, known, strict=True)]
    assert torch.allclose(
        selection._scores(batch), torch.tensor(scores, dtype=torch.float64), atol=1e-9
    )
    rows, start = [], 0
    for count in COUNTS.values():
        ranked = sorted(range(start, start + count), key=lambda row: -scores[row])
        rows += sorted(ranked[: kept_of(count, 0.4)])
        start += count
    chosen = selection.choose(batch, seed=0)
    assert chosen.counts == {"update": 4, "buffer": 2, "pretraining": 2}
    assert torch.equal(chosen.images, batch.images[rows])
    assert torch.equal(chosen.tokens, batch.tokens[rows])
    assert torch.equal(chosen.drawn, batch.drawn[rows])
    assert chosen.texts == [batch.texts[row] for row in rows]
    assert rows != sorted(range(20), key=lambda row: -hard[row])[:8], "the reference counts"


def conditional_losses(logits: list[list[float]], chosen: list[int]) -> list[float]:
    """Of each pair among those that were chosen, from the definition."""
    found = []
    for i, own in enumerate(logits):
        against = 0.0
        if chosen:
            of_texts = sum(math.exp(own[j]) for j in chosen)
            of_images = sum(math.exp(logits[j][i]) for j in chosen)
            against = (math.log(of_texts) + math.log(of_images)) / 2
        found.append(against - own[i])
    return found


def test_a_batch_is_chosen_chunk_by_chunk_among_what_was_chosen_before(
    toy: Any, monkeypatch: Any
) -> None:
    """Without chance: the highest of each chunk; by hand, from the definition."""
    monkeypatch.setattr(
        "fomo_dagster.methods.online_selection.choosing._gumbel",
        lambda seed, turn, count: torch.zeros(count, dtype=torch.float64),
    )
    selection, learner, reference = referring(toy, "jest")
    batch = batch_of()
    hard = logits_of(learner, batch.images, batch.tokens)
    known = logits_of(reference, batch.images, numbers(batch.texts, reverse=True))
    chosen: list[int] = []
    for sizes in ((2, 1, 1), (1, 1, 1), (1, 0, 0)):  # 4, 2 and 2 rows in three chunks
        losses = (conditional_losses(logits, chosen) for logits in (hard, known))
        scores = [of_learner - of_known for of_learner, of_known in zip(*losses, strict=True)]
        before, start = set(chosen), 0
        for size, count in zip(sizes, COUNTS.values(), strict=True):
            left = [row for row in range(start, start + count) if row not in before]
            chosen += sorted(left, key=lambda row: -scores[row])[:size]
            start += count
    found = selection.choose(batch, seed=0)
    assert found.counts == {"update": 4, "buffer": 2, "pretraining": 2}
    assert torch.equal(found.images, batch.images[sorted(chosen)])
    of_update = {row for row in chosen if row < COUNTS["update"]}
    alone = sorted(range(COUNTS["update"]), key=lambda row: known[row][row] - hard[row][row])
    assert of_update != set(alone[-4:]), "what was chosen before counts"


@pytest.mark.slow
def test_rows_of_a_chunk_are_drawn_from_the_softmax_of_what_they_are_worth(
    toy: Any, monkeypatch: Any
) -> None:
    selection = begin_selection(
        declared("jest", 0.25), lambda: reference_of(toy), toy.stage_context(toy.theta()), Any
    )
    worth = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5], dtype=torch.float64)
    nothing = torch.zeros(5, 5, dtype=torch.float64)
    monkeypatch.setattr(selection, "_logits", lambda _: (nothing - worth.diag(), nothing))
    batch = batch_of({"update": 4, "buffer": 1})
    draws = [selection._rows(batch, {"update": 1, "buffer": 0}, seed) for seed in range(2000)]
    shares = torch.bincount(torch.cat(draws), minlength=5) / len(draws)
    expected = [*worth[:4].softmax(0).tolist(), 0.0]
    assert shares.tolist() == pytest.approx(expected, abs=0.03)
    assert torch.equal(draws[7], selection._rows(batch, {"update": 1, "buffer": 0}, 7))


def test_scoring_leaves_the_model_as_it_is(toy: Any) -> None:
    selection, learner, _ = referring(toy)
    learner.module.visual.eval()
    modes = [part.training for part in learner.module.modules()]
    before = {name: tensor.clone() for name, tensor in learner.module.state_dict().items()}
    selection.choose(batch_of(), seed=0)
    assert [part.training for part in learner.module.modules()] == modes
    assert all(parameter.grad is None for parameter in learner.module.parameters())
    for name, tensor in learner.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_learner_is_scored_as_it_is_now(toy: Any) -> None:
    selection, learner, _ = referring(toy)
    before = selection._scores(batch_of())
    with torch.no_grad():
        learner.module.logit_scale.add_(1.0)
    assert not torch.allclose(selection._scores(batch_of()), before)


def test_random_rows_follow_from_the_seed_of_the_step_alone(toy: Any) -> None:
    selection = begin_selection(declared("random"), None, toy.stage_context(toy.theta()), Any)
    batch = batch_of()
    torch.manual_seed(0)
    kept = [selection.choose(batch, seed) for seed in range(400)]
    torch.manual_seed(1)
    assert torch.equal(selection.choose(batch, 7).images, kept[7].images)
    assert {len(one.texts) for one in kept} == {8}
    often = Counter(row for one in kept for row in one.drawn[:4, 0].tolist())
    assert set(often) == set(range(10))
    for count in often.values():
        assert count == pytest.approx(160, abs=45)


@dataclass(frozen=True)
class Noisy:
    """Batches of eight pairs under a little noise, and of as many whose texts are never the same;
    which rows those are changes from batch to batch."""

    task: Any
    steps: int
    fail_at: int | None = None

    def iterate(self, start: int) -> Any:
        for step in range(start, self.steps):
            if step == self.fail_at:
                raise OSError("the disk is gone")
            random = torch.Generator().manual_seed(step)
            clean = self.task.batch(step, {})
            images = torch.cat([clean.images, torch.randn(8, 3, 16, 16, generator=random)])
            wrong = torch.randint(1, 11999, (8, 6), generator=random)
            order = torch.randperm(16, generator=random)
            is_wrong = (order >= 8).long()
            tokens = torch.cat([clean.tokens, wrong])[order]
            texts = [" ".join(map(str, row)) for row in tokens.tolist()]
            drawn = torch.stack([is_wrong, torch.zeros_like(is_wrong)], dim=1)
            yield Batch(images[order], tokens, drawn, texts, {"update": 16})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learnability", "jest", "random"])
def test_learnability_leaves_out_pairs_that_do_not_belong_together(
    toy: Any, task: Any, monkeypatch: Any, name: str
) -> None:
    """And a training that was killed and resumed ends with the same weights."""
    trained, _ = replace(toy, steps=15).stage(toy.theta(), task(1), identity="reference")
    reference = replace(trained, tokenize=numbers)
    noisy: list[int] = []

    def select(stage_context: Any, features: Any) -> Any:
        made = begin_selection(declared(name, 0.5), lambda: reference, stage_context, features)
        choose = made.choose

        def noted(batch: Any, seed: int) -> Any:
            chosen = choose(batch, seed)
            noisy.append(int(chosen.drawn[:, 0].sum()))
            return chosen

        monkeypatch.setattr(made, "choose", noted)
        return made

    def train(identity: str, fail_at: int | None = None) -> Any:
        batches = Noisy(task(1), 12, fail_at)
        model, _ = toy.stage(
            toy.theta(), task(1), select=select, identity=identity, batches=batches
        )
        return model.module.state_dict()

    whole = train("whole")
    share = sum(noisy) / (8 * len(noisy))
    assert len(noisy) == 12
    if name != "random":
        assert share < 0.1
    else:
        assert share == pytest.approx(0.5, abs=0.15)
    with pytest.raises(OSError, match="disk is gone"):
        train("broken", fail_at=7)
    resumed = train("broken")
    assert all(torch.equal(tensor, resumed[key]) for key, tensor in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learnability", "jest", "random"])
def test_processes_keep_together_what_one_keeps(toy: Any, together: Any, name: str) -> None:
    def work(group: ProcessGroup) -> Any:
        learner, reference = toy.theta(), reference_of(toy)
        learner.module.double()
        reference.module.double()
        selection = begin_selection(
            declared(name), lambda: reference,
            replace(toy.stage_context(learner), group=group), pass_over(learner).encoded,
        )  # fmt: skip
        batch = batch_of()
        of_process = slice(group.rank, None, group.world_size)
        own = Batch(*(part[of_process] for part in batch[:4]), counts=batch.counts)  # type: ignore[arg-type]
        chosen = selection.choose(own, seed=3)
        return (*chosen[:3], chosen.texts, chosen.counts)

    whole = work(SINGLE_PROCESS)
    assert len(whole[3]) == 8
    for count in (2, 3):
        for rank, part in enumerate(together(count, work)):
            for of_all, of_process in zip(whole[:3], part[:3], strict=True):
                assert torch.equal(of_process, of_all[rank::count])
            assert part[3] == whole[3][rank::count]
            assert part[4] == whole[4]

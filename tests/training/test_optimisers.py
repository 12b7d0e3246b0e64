"""Optimisers against plain float64 computations of their papers' formulas, and their resumption."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import nn

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.experiment.validating import validated
from fomo_dagster.optimisation.optimisers import AnyOptimiser, Optimiser
from fomo_dagster.optimisation.schedule_free import ScheduleFreeSteps
from fomo_dagster.store.digests import digest_of

Array = NDArray[np.float64]
SHAPES = {"tall": (7, 4), "wide": (3, 9), "small": (2, 9), "vector": (5,), "scale": ()}
RATES = [0.1, 0.05, 0.2, 0.01, 0.1, 0.03, 0.07]
LOW_RANK = {"rank": 2, "update_gap": 3}
FAMILIES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "galore_adamw": LOW_RANK,
    "fira": LOW_RANK,
    "sgd": {"learning_rate": 0.1},
    "lion": {"learning_rate": 0.1},
    "nadam": {},
    "adopt": {},
    "ademamix": {"learning_rate": 0.1, "slow_warmup_steps": 4},
    "adafactor": {"learning_rate": 0.1},
    "muon": {},
    "schedule_free_adamw": {},
    "soap": {"update_gap": 2},
}


def declared(name: str, **changes: Any) -> Optimiser:
    given = {"name": name, "weight_decay": 0.1} | FAMILIES[name] | changes
    optimiser: Optimiser = TypeAdapter(AnyOptimiser).validate_python(given)
    return optimiser


def gradients(step: int) -> dict[str, Array]:
    random = np.random.default_rng(step)
    return {name: random.normal(size=shape) for name, shape in SHAPES.items()}


def parameters() -> dict[str, nn.Parameter]:
    return {n: nn.Parameter(torch.from_numpy(g).float()) for n, g in gradients(1000).items()}


def one_group(moved: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": list(moved.values())}]


def stepped(optimiser: torch.optim.Optimizer, moved: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        for name, gradient in gradients(step).items():
            moved[name].grad = torch.from_numpy(np.asarray(gradient)).float()
        for group in optimiser.param_groups:
            group["lr"] = RATES[step]
        optimiser.step()


class Adam:
    """Of a tensor; ε is added to the root of the moment as it is, before its correction."""

    def __init__(self) -> None:
        self.first: Any = 0.0
        self.second: Any = 0.0
        self.steps = 0

    def direction(self, gradient: Array) -> Array:
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        direction: Array = self.first / (np.sqrt(self.second) + 1e-8)
        return direction

    def correction(self) -> float:
        return float(np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps))


def low_rank(matrix: Array, name: str, family: str, found: list[Array]) -> Array:
    """The first steps of a tall matrix; of a wide one, those of its transpose.

    found: the (rank, columns) of each step, of which only signs are taken: those of singular
    vectors are arbitrary, and moments of the dimensions before meet the new ones.
    """
    adam, basis, limit = Adam(), np.zeros(0), None
    for step, signs in enumerate(found):
        gradient = gradients(step)[name]
        gradient = gradient if gradient.shape[0] >= gradient.shape[1] else gradient.T
        if step in (0, 3, 6):  # the first, and `update_gap` steps after each
            basis = np.linalg.svd(gradient)[2][:2].T  # (columns, rank)
            basis *= np.sign((basis.T * signs).sum(axis=1))
        within = gradient @ basis  # (rows, rank)
        direction = adam.direction(within)
        back = direction @ basis.T
        if family == "galore_adamw":
            back = 2.0 * back
        else:
            lengths = np.linalg.norm(direction, axis=1) / np.linalg.norm(within, axis=1)
            outside = (gradient - within @ basis.T) * lengths[:, None]
            norm = np.linalg.norm(outside)
            if limit is not None and norm > 1.01 * limit:
                outside *= 1.01 * limit / norm
            limit = np.linalg.norm(outside)
            back = back + outside
        matrix = matrix - RATES[step] * adam.correction() * back
        matrix = matrix * (1 - RATES[step] * 0.1)
    return matrix


def plain_adam(tensor: Array, name: str, steps: int) -> Array:
    adam = Adam()
    for step in range(steps):
        direction = adam.direction(gradients(step)[name])
        tensor = tensor - RATES[step] * adam.correction() * direction
        tensor = tensor * (1 - RATES[step] * 0.1)
    return tensor


@pytest.mark.parametrize("family", ["galore_adamw", "fira"])
def test_matrices_move_as_the_paper_says_and_the_rest_as_with_adamw(family: str) -> None:
    moved = parameters()
    before = {name: p.detach().double().numpy().copy() for name, p in moved.items()}
    optimiser = declared(family).create(one_group(moved))
    bases: list[list[Array]] = [[], []]
    for step in range(len(RATES)):
        stepped(optimiser, moved, range(step, step + 1))
        for place in (0, 1):
            held = optimiser.state_dict()["state"][place]["projector"]["ortho_matrix"]
            bases[place].append(held.double().numpy())
    expected = {name: plain_adam(before[name], name, len(RATES)) for name in SHAPES}
    expected["tall"] = low_rank(before["tall"], "tall", family, bases[0])
    transposed = [basis.T for basis in bases[1]]
    expected["wide"] = low_rank(before["wide"].T, "wide", family, transposed).T
    for name, parameter in moved.items():
        np.testing.assert_allclose(
            parameter.detach().numpy(), expected[name], rtol=1e-4, atol=2e-5, err_msg=name
        )
    held = {name: optimiser.state[p]["exp_avg"].shape for name, p in moved.items()}
    assert held == {"tall": (7, 2), "wide": (2, 9)} | {n: SHAPES[n] for n in list(SHAPES)[2:]}


def test_momentum_gathers_and_decay_does_not_enter_it() -> None:
    moved = parameters()
    expected = {name: p.detach().double().numpy().copy() for name, p in moved.items()}
    stepped(declared("sgd", momentum=0.8).create(one_group(moved)), moved, range(4))
    velocity = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for step in range(4):
        for name, gradient in gradients(step).items():
            velocity[name] = 0.8 * velocity[name] + gradient
            decayed = (1 - RATES[step] * 0.1) * expected[name]
            expected[name] = decayed - RATES[step] * velocity[name]
    for name, parameter in moved.items():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=1e-5, atol=1e-6)


def test_lion_takes_the_sign_of_a_mean_that_is_not_the_one_it_keeps() -> None:
    moved = parameters()
    expected = {name: p.detach().double().numpy().copy() for name, p in moved.items()}
    stepped(declared("lion", betas=(0.5, 0.7)).create(one_group(moved)), moved, range(4))
    mean = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for step in range(4):
        for name, gradient in gradients(step).items():
            sign = np.sign(0.5 * mean[name] + 0.5 * gradient)
            mean[name] = 0.7 * mean[name] + 0.3 * gradient
            decayed = (1 - RATES[step] * 0.1) * expected[name]
            expected[name] = decayed - RATES[step] * sign
    for name, parameter in moved.items():
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=1e-5, atol=1e-6)


def nadam(tensor: Array, gradients: list[Array]) -> Array:
    """Dozat 2016, algorithm 2, with its schedule of the momentum."""
    first, second, product = np.zeros_like(tensor), np.zeros_like(tensor), 1.0
    for t, (gradient, rate) in enumerate(zip(gradients, RATES, strict=True), 1):
        now, after = (0.9 * (1 - 0.5 * 0.96 ** (0.004 * k)) for k in (t, t + 1))
        product *= now
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        ahead = after * first / (1 - product * after) + (1 - now) * gradient / (1 - product)
        direction = ahead / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        tensor = (1 - rate * 0.1) * tensor - rate * direction
    return tensor


def adopt(tensor: Array, gradients: list[Array]) -> Array:
    """arXiv 2411.02853, algorithm 2, clipped at t^(1/4); weight decay acts at every step."""
    mean, second = np.zeros_like(tensor), gradients[0] ** 2
    for t, (gradient, rate) in enumerate(zip(gradients, RATES, strict=True)):
        tensor = (1 - rate * 0.1) * tensor
        if t == 0:
            continue
        normed = gradient / np.maximum(np.sqrt(second), 1e-6)
        mean = 0.9 * mean + 0.1 * np.clip(normed, -(t**0.25), t**0.25)
        tensor = tensor - rate * mean
        second = 0.9999 * second + 0.0001 * gradient**2
    return tensor


def ademamix(tensor: Array, gradients: list[Array]) -> Array:
    """arXiv 2409.03137, algorithm 1, and its schedulers of α and β₃ over 4 steps."""
    fast, slow, second = (np.zeros_like(tensor) for _ in range(3))
    for t, (gradient, rate) in enumerate(zip(gradients, RATES, strict=True), 1):
        share, start, end = t / 4, np.log(0.9), np.log(0.9999)
        alpha = min(5 * share, 5.0)
        beta = min(np.exp(start * end / ((1 - share) * end + share * start)), 0.9999)
        fast = 0.9 * fast + 0.1 * gradient
        slow = beta * slow + (1 - beta) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        root = np.sqrt(second / (1 - 0.999**t)) + 1e-8
        direction = (fast / (1 - 0.9**t) + alpha * slow) / root
        tensor = tensor - rate * (direction + 0.1 * tensor)
    return tensor


def adafactor(tensor: Array, gradients: list[Array]) -> Array:
    """arXiv 1804.04235, algorithms 4 and 5, β₂ being 1 - t^(-0.8), d 1, and ε 1e-30 and 1e-3."""
    rows = columns = second = np.zeros(())
    for t, (gradient, rate) in enumerate(zip(gradients, RATES, strict=True), 1):
        kept, square = 1 - t**-0.8, gradient**2 + 1e-30
        if tensor.ndim == 2:
            rows = kept * rows + (1 - kept) * square.sum(axis=1)
            columns = kept * columns + (1 - kept) * square.sum(axis=0)
            second = np.outer(rows, columns) / rows.sum()
        else:
            second = kept * second + (1 - kept) * square
        direction = gradient / np.sqrt(second)
        direction = direction / max(1.0, np.sqrt(np.mean(direction**2)))
        step = max(1e-3, np.sqrt(np.mean(tensor**2))) * min(rate, t**-0.5)
        tensor = (1 - rate * 0.1) * tensor - step * direction
    return tensor


def schedule_free_adamw(tensor: Array, gradients: list[Array]) -> Array:
    """arXiv 2405.15682, algorithm 1, with x and z as they are there; what is returned is y."""
    z, x, second, squares = tensor, tensor, np.zeros_like(tensor), 0.0
    for t, (gradient, given) in enumerate(zip(gradients, RATES, strict=True), 1):
        y = 0.1 * z + 0.9 * x
        second = 0.999 * second + 0.001 * gradient**2
        rate = given * np.sqrt(1 - 0.999**t)
        z = z - rate * gradient / (np.sqrt(second) + 1e-8) - rate * 0.1 * y
        squares += rate**2
        x = (1 - rate**2 / squares) * x + rate**2 / squares * z
    return 0.1 * z + 0.9 * x


@pytest.mark.parametrize("formula", [nadam, adopt, ademamix, adafactor, schedule_free_adamw])
def test_weights_move_as_the_paper_says(formula: Callable[[Array, list[Array]], Array]) -> None:
    moved = parameters()
    before = {name: p.detach().double().numpy().copy() for name, p in moved.items()}
    stepped(declared(formula.__name__).create(one_group(moved)), moved, range(len(RATES)))
    for name, parameter in moved.items():
        expected = formula(
            before[name], [np.asarray(gradients(step)[name]) for step in range(len(RATES))]
        )
        np.testing.assert_allclose(
            parameter.detach().numpy(), expected, rtol=1e-5, atol=2e-6, err_msg=name
        )


def orthogonalised(matrix: Array) -> Array:
    """Five steps of Newton-Schulz in Jordan's quintic, whose fixed points are near 1."""
    turned = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = turned / max(np.linalg.norm(turned), 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize(
    ("match", "of"),
    [
        ("match_rms_adamw", lambda rows, columns: 0.2 * np.sqrt(max(rows, columns))),
        ("original", lambda rows, columns: np.sqrt(max(1, rows / columns))),
        ("spectral_unclamped", lambda rows, columns: np.sqrt(rows / columns)),
    ],
)
def test_muon_steps_by_orthogonalised_means_and_adamw_takes_the_rest(
    match: str, of: Callable[[int, int], float]
) -> None:
    """To a hundredth of the whole way, since PyTorch iterates in bf16."""
    moved = parameters()
    before = {name: p.detach().double().numpy().copy() for name, p in moved.items()}
    optimiser = declared("muon", match=match, hidden_factor=1.5).create(one_group(moved))
    for step in range(len(RATES)):
        for name, gradient in gradients(step).items():
            moved[name].grad = torch.from_numpy(np.asarray(gradient)).float()
        for group in optimiser.param_groups:
            group["lr"] = RATES[step] * group["factor"] if group["hidden"] else RATES[step]
        optimiser.step()
    for name, parameter in moved.items():
        found = parameter.detach().double().numpy()
        if found.ndim != 2:
            adam, expected = Adam(), before[name]
            for step, rate in enumerate(RATES):
                direction = adam.direction(gradients(step)[name])
                expected = (1 - rate * 0.1) * expected - rate * adam.correction() * direction
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5, err_msg=name)
            continue
        every = [gradients(step)[name] for step in range(len(RATES))]
        # the factor is of the rate, which also decays the weights
        matrix, mean = before[name], np.zeros(found.shape)
        for gradient, rate in zip(every, RATES, strict=True):
            mean = 0.95 * mean + 0.05 * gradient
            step_ = orthogonalised(0.95 * mean + 0.05 * gradient)
            matrix = (1 - 1.5 * rate * 0.1) * matrix - 1.5 * rate * of(*found.shape) * step_
        way = np.linalg.norm(matrix - before[name])
        assert np.linalg.norm(found - matrix) < 0.01 * way, name


def soap(matrix: Array, gradients: list[Array], gap: int) -> Array:
    """arXiv 2409.11321, algorithm 3, for a square matrix, whose first gradient has full rank."""

    def eigenvectors(of: Array) -> Array:
        return np.linalg.eigh(of)[1][:, ::-1]

    first, *others = gradients
    left, right = 0.05 * first @ first.T, 0.05 * first.T @ first
    of_left, of_right = eigenvectors(left), eigenvectors(right)
    mean, second = np.zeros_like(matrix), np.zeros_like(matrix)
    for t, (gradient, rate) in enumerate(zip(others, RATES[1:], strict=True), 1):
        mean = 0.95 * mean + 0.05 * gradient
        second = 0.95 * second + 0.05 * (of_left.T @ gradient @ of_right) ** 2
        direction = (of_left.T @ mean @ of_right) / (np.sqrt(second) + 1e-8)
        correction = np.sqrt(1 - 0.95**t) / (1 - 0.95**t)
        matrix = matrix - rate * correction * of_left @ direction @ of_right.T
        matrix = matrix * (1 - rate * 0.1)
        left = 0.95 * left + 0.05 * gradient @ gradient.T
        right = 0.95 * right + 0.05 * gradient.T @ gradient
        if t % gap == 0:
            for side, mean_of in ((0, left), (1, right)):
                basis = (of_left, of_right)[side]
                order = np.argsort(-np.einsum("ij,ij->j", basis, mean_of @ basis))
                renewed = np.linalg.qr((mean_of @ basis)[:, order])[0]
                second = second.take(order, axis=side)
                of_left, of_right = (renewed, of_right) if side == 0 else (of_left, renewed)
    return matrix


def test_soap_is_adam_in_eigenvectors_that_one_qr_iteration_renews() -> None:
    every = [np.random.default_rng(100 + step).normal(size=(4, 4)) for step in range(len(RATES))]
    start = np.random.default_rng(7).normal(size=(4, 4))
    moved = nn.Parameter(torch.from_numpy(start).float())
    optimiser = declared("soap", update_gap=2).create([{"params": [moved]}])
    for gradient, rate in zip(every, RATES, strict=True):
        moved.grad = torch.from_numpy(gradient).float()
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
    expected = soap(start, every, gap=2)
    np.testing.assert_allclose(moved.detach().numpy(), expected, rtol=1e-3, atol=1e-4)
    assert not np.allclose(expected, soap(start, every, gap=100), atol=1e-2)


def test_schedule_free_ends_with_the_weighted_mean_of_its_steps() -> None:
    moved = parameters()
    optimiser = declared("schedule_free_adamw").create(one_group(moved))
    assert isinstance(optimiser, ScheduleFreeSteps)
    steps: dict[str, list[Array]] = {name: [] for name in SHAPES}
    for step in range(len(RATES)):
        stepped(optimiser, moved, range(step, step + 1))
        for name, parameter in moved.items():
            steps[name].append(optimiser.state[parameter]["z"].double().numpy().copy())
    optimiser.put_average_in_place()
    weights = [rate**2 * (1 - 0.999**t) for t, rate in enumerate(RATES, 1)]
    for name, parameter in moved.items():
        expected = np.average(steps[name], axis=0, weights=weights)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_schedule_free_keeps_all_that_it_holds_of_a_scale_in_bounds() -> None:
    scale = nn.Parameter(torch.tensor(4.0))
    optimiser = declared("schedule_free_adamw").create([{"params": [scale]}])
    assert isinstance(optimiser, ScheduleFreeSteps)
    for _ in range(5):
        scale.grad = torch.tensor(-1.0)
        optimiser.param_groups[0]["lr"] = 0.5
        optimiser.step()
        optimiser.clamp(scale, 0, 4.5)
        assert max(scale.item(), optimiser.state[scale]["z"].item()) <= 4.5
    optimiser.put_average_in_place()
    assert 4.4 < scale.item() < 4.51


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_from_its_saved_state_it_goes_on_bit_for_bit(family: str, stop: int, tmp_path: Any) -> None:
    """Before and after dimensions are chosen anew; what is saved is tensors and plain values."""
    whole = parameters()
    uninterrupted = declared(family).create(one_group(whole))
    stepped(uninterrupted, whole, range(len(RATES)))
    first = parameters()
    optimiser = declared(family).create(one_group(first))
    stepped(optimiser, first, range(stop))
    torch.save({"state": optimiser.state_dict(), "weights": first}, tmp_path / "saved")
    loaded = torch.load(tmp_path / "saved", weights_only=True)
    again = {name: nn.Parameter(loaded["weights"][name].detach()) for name in SHAPES}
    resumed = declared(family).create(one_group(again))
    resumed.load_state_dict(loaded["state"])
    stepped(optimiser, first, range(stop, len(RATES)))  # saving has changed nothing
    stepped(resumed, again, range(stop, len(RATES)))
    for name, expected in whole.items():
        assert torch.equal(first[name], expected)
        assert torch.equal(again[name], expected)
    ended, expected_end = resumed.state_dict()["state"], uninterrupted.state_dict()["state"]
    if FAMILIES[family] == LOW_RANK:
        for place in (0, 1):
            found, expected_one = ended[place]["projector"], expected_end[place]["projector"]
            assert torch.equal(found.pop("ortho_matrix"), expected_one.pop("ortho_matrix"))
            assert found == expected_one
            assert found["last_svd_step"] == 6
            assert type(found["last_svd_step"]) is int


@pytest.mark.parametrize(
    ("shapes", "rank", "message"),
    [
        ([(7, 4), (3, 9)], 4, "rank is 4, and no matrix with both sides above 4 is trained"),
        ([(7, 4), (3, 9)], 50, "rank is 50, and no matrix with both sides above 4 is trained"),
        ([(7,), (2, 2, 2)], 1, "rank is 1, and no matrix is trained"),
    ],
)
def test_a_rank_that_is_low_to_nothing_is_an_error(
    shapes: list[tuple[int, ...]], rank: int, message: str
) -> None:
    for family in ("galore_adamw", "fira"):
        with pytest.raises(InputError, match=message):
            declared(family, rank=rank).create(
                [{"params": [nn.Parameter(torch.zeros(shape)) for shape in shapes]}]
            )
    matrices = [nn.Parameter(torch.zeros(9, 5))]  # and nothing else
    declared("fira", rank=4).create([{"params": matrices}]).step()


def test_adamw_is_declared_as_before_there_were_others() -> None:
    plain = {
        "name": "adamw", "learning_rate": 1e-5, "weight_decay": 0.2, "betas": [0.9, 0.999],
        "epsilon": 1e-8, "clip_norm": 1.0,
    }  # fmt: skip
    dumped = TrainingSettings().model_dump(mode="json")["optimiser"]
    assert digest_of(dumped) == digest_of(plain)
    assert TrainingSettings.model_validate({"optimiser": {"betas": [0.5, 0.6]}}).optimiser.name == (
        "adamw"
    )


@pytest.mark.parametrize(
    ("optimiser", "message"),
    [
        ({"name": "adamww"}, "optimiser.name is 'adamww'; did you mean 'adamw'"),
        ({"name": "sgd"}, "optimiser.learning_rate is missing"),
        ({"name": "lion", "learning_rate": 1, "momentum": 1}, "unknown key 'optimiser.momentum'"),
        ({"name": "adopts"}, "optimiser.name is 'adopts'; did you mean 'adopt'"),
        ({"name": "ademamix", "learning_rate": 1, "alfa": 1}, "did you mean 'alpha'"),
        (
            {"name": "ademamix", "learning_rate": 1, "slow_warmup_steps": 0},
            "slow_warmup_steps is 0",
        ),
        ({"name": "muon", "match": "rms"}, "match is 'rms'; valid: 'match_rms_adamw'"),
        ({"name": "schedule_free_adamw"}, "schedule.name is cosine: take schedule: {name: const"),
        ({"name": "soap", "update_gap": 0}, "update_gap is 0"),
        ({"rank": 8}, "unknown key 'optimiser.rank'"),
        ({"name": "galore_adamw", "rank": 0}, "optimiser.rank is 0"),
    ],
)
def test_what_an_optimiser_does_not_have_is_said(optimiser: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validated(
            TypeAdapter(TrainingSettings), {"optimiser": optimiser}, "toy.yaml", TrainingSettings
        )

"""Herding and k-centre against the papers' formulas, term by term, and where samples are alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fomo_dagster.data.representatives import ORDERS, herding, k_centre

Features = npt.NDArray[np.float32]


def features(count: int, seed: int, width: int = 5) -> Features:
    values = np.random.default_rng(seed).normal(size=(count, width)) + 0.3
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def herded(points: Features, most: int) -> list[int]:
    """Algorithm 4 as printed, over what is left: argmin ‖μ - 1/k [φ(x) + Σ φ(p_j)]‖."""
    wide = points.astype(np.longdouble)
    mean, chosen = wide.mean(axis=0), list[int]()
    for k in range(1, min(most, len(points)) + 1):
        taken = sum((wide[j] for j in chosen), np.zeros_like(mean))
        left = [place for place in range(len(points)) if place not in chosen]
        chosen.append(min(left, key=lambda x: np.linalg.norm(mean - (wide[x] + taken) / k)))
    return chosen


def far_apart(points: Features, most: int) -> list[int]:
    """argmax over u of min over the chosen j of Δ(u, j), from the nearest to the mean on."""
    wide = points.astype(np.longdouble)
    chosen = [int(np.argmin(np.linalg.norm(wide - wide.mean(axis=0), axis=1)))]
    while len(chosen) < min(most, len(points)):
        left = [place for place in range(len(points)) if place not in chosen]
        chosen.append(max(left, key=lambda u: min(np.linalg.norm(wide[u] - wide[chosen], axis=1))))
    return chosen[:most]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("most", [1, 7, 30, 99])
def test_the_orders_are_those_of_the_papers(seed: int, most: int) -> None:
    points = features(30, seed)
    assert herding(points, most) == herded(points, most)
    assert k_centre(points, most) == far_apart(points, most)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_fewer_are_the_first_of_more(order: object) -> None:
    assert callable(order)
    points = features(40, seed=3)
    assert order(points, 11) == order(points, 40)[:11]
    assert sorted(order(points, 40)) == list(range(40))


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("width", [5, 64, 67])
def test_of_equal_images_the_first_is_taken_whatever_the_last_bits_say(
    order: object, width: int
) -> None:
    assert callable(order)
    points = features(9, seed=1, width=width)
    copies = np.concatenate([points] * 3)
    chosen = order(copies, 27)
    for image in range(9):
        assert [place for place in chosen if place % 9 == image] == [image, image + 9, image + 18]
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))
    assert order(copies.astype(np.float64) @ turn, 27) == chosen


def test_k_centre_takes_no_copy_before_all_else() -> None:
    copies = np.concatenate([features(9, seed=1)] * 3)
    assert sorted(k_centre(copies, 9)) == list(range(9))

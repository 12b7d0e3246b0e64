"""What adapters add is the same on every machine, so that a pack of them leaves rounding alone."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fomo_dagster.store import byte_planes
from fomo_dagster.store.byte_planes import restored, write_differences
from fomo_dagster.store.low_rank import LowRank, LowRankPart, _Split
from fomo_dagster.store.manifests import DamagedError

PARTS = [LowRankPart("w", 0, "a", "b", 0.7), LowRankPart("w", 24, "c", "d", 0.7)]
"""The first and the last third of w."""


def drawn(shape, seed, size=1.0):
    return np.float32(size) * np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.fixture
def adapters(tmp_path):
    tensors = {"a": drawn((5, 40), 0, 0.1), "b": drawn((12, 5), 1, 0.1)}
    tensors |= {"c": drawn((5, 40), 2, 0.1), "d": drawn((12, 5), 3, 0.1)}
    save_file(tensors, tmp_path / "adapters")
    return tensors


def merged(base, tensors, scale=0.7):
    """As PEFT adds them, in float32."""
    w = base["w"].copy()
    w[:12] += (tensors["b"] @ tensors["a"]) * np.float32(scale)
    w[24:] += (tensors["d"] @ tensors["c"]) * np.float32(scale)
    return {**base, "w": w}


@pytest.fixture
def base():
    return {"w": drawn((36, 40), 4), "other": drawn((36, 40), 5), "v": drawn(7, 6)}


def test_the_product_is_exact_to_forty_bits_of_its_largest(tmp_path, adapters):
    low_rank = LowRank(tmp_path / "adapters", PARTS)
    zeros = np.zeros(36 * 40, np.float32)
    found = low_rank.added("w", 40, 0, zeros).reshape(36, 40)
    scale = Fraction(0.7)
    for row, column in [(0, 0), (5, 39), (11, 20)]:
        exact = sum(
            Fraction(float(x)) * Fraction(float(y)) * scale
            for x, y in zip(adapters["b"][row], adapters["a"][:, column], strict=True)
        )
        assert found[row, column] == np.float32(float(exact))
    assert not found[12:24].any()
    assert found[24:].any()


@given(st.integers(0, 1439), st.integers(1, 300), st.randoms(use_true_random=False))
def test_any_part_and_any_order_of_the_sums_give_the_same_bits(first, count, random):
    numbers = drawn(1440, 9)[first : first + count]
    order = list(range(5))
    random.shuffle(order)
    found = []
    for ranks in (range(5), order):
        low_rank = LowRank.__new__(LowRank)
        tensors = {"a": drawn((5, 40), 0)[list(ranks)], "b": drawn((36, 5), 1)[:, list(ranks)]}
        low_rank.__dict__["_changes"] = _changes_of(tensors)
        whole = low_rank.added("w", 40, 0, drawn(1440, 9))
        part = low_rank.added("w", 40, first, numbers)
        assert part.tobytes() == whole[first : first + count].tobytes()
        found.append(whole.tobytes())
    assert found[0] == found[1]


def _changes_of(tensors):
    from fomo_dagster.store.low_rank import _Change

    a, b = (_Split.of(tensors[name].astype(np.float64)) for name in "ab")
    return {"w": [_Change(0, a, b, 0.3)]}


def written(folder, own, base, parts=PARTS):
    for name, tensors in (("own", own), ("base", base)):
        save_file(tensors, folder / name)
    low_rank = None if parts is None else LowRank(folder / "adapters", parts)
    write_differences(folder / "own", folder / "base", folder / "differences", low_rank)
    return (folder / "differences").stat().st_size


def back(folder):
    return b"".join(restored(folder / "differences", folder / "base", folder))


@pytest.mark.parametrize("block", [64, 444, 2**22])
def test_merged_weights_come_back_and_take_little(tmp_path, adapters, base, block, monkeypatch):
    monkeypatch.setattr(byte_planes, "BLOCK_BYTES", block)
    own = merged(base, adapters)
    with_adapters = written(tmp_path, own, base)
    assert back(tmp_path) == (tmp_path / "own").read_bytes()
    without = written(tmp_path, own, base, None)
    assert back(tmp_path) == (tmp_path / "own").read_bytes()
    if block == 2**22:
        assert with_adapters < 0.3 * without


@pytest.mark.parametrize(
    "spoil",
    [
        lambda base, tensors: base["w"].__setitem__((3, 3), np.nan),
        lambda base, tensors: base["w"].__setitem__((3, 3), -np.inf),
        lambda base, tensors: base["w"].__setitem__((3, 3), 3e38),
        lambda base, tensors: tensors["a"].__setitem__((0, 0), np.inf),
        lambda base, tensors: tensors["b"].fill(0),
        lambda base, tensors: tensors["b"].fill(1e-42),
        lambda base, tensors: tensors.__setitem__("b", np.zeros((40, 5), np.float32)),
        lambda base, tensors: tensors.__setitem__("a", np.zeros((5, 41), np.float32)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
def test_odd_numbers_and_other_shapes_come_back_too(tmp_path, adapters, base, spoil):
    own = merged(base, adapters)
    spoil(base, adapters)
    save_file(adapters, tmp_path / "adapters")
    written(tmp_path, own, base)
    assert back(tmp_path) == (tmp_path / "own").read_bytes()


def test_adapters_that_are_not_there_are_said(tmp_path, adapters, base):
    own = merged(base, adapters)
    with pytest.raises(DamagedError, match="adapters does not hold its adapters"):
        written(tmp_path, own, base, [LowRankPart("w", 0, "a", "z", 1.0)])
    written(tmp_path, own, base)
    (tmp_path / "adapters").unlink()
    with pytest.raises(DamagedError, match="adapters does not hold its adapters"):
        back(tmp_path)

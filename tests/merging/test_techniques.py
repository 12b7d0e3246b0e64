"""Every technique against plain float64 computations over whole, flattened models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file

from fomo_dagster.errors import InputError
from fomo_dagster.merging import checkpoints
from fomo_dagster.merging.matrices import MatrixTechnique
from fomo_dagster.merging.sparsifying import uniform
from fomo_dagster.merging.task_vectors import TaskVectorTechnique
from fomo_dagster.merging.techniques import TECHNIQUES, AnyTechnique, merge
from fomo_dagster.merging.weighting import as_joint

FIRST = [0.1713618208513401, 0.5232077042269259]
Array = NDArray[np.float64]
Model = dict[str, Array]
SHAPES = {
    "visual.transformer.resblocks.0.mlp.weight": (6, 5),
    "visual.transformer.resblocks.1.mlp.weight": (3, 2, 7),
    "visual.transformer.resblocks.2.mlp.weight": (11,),
    "transformer.resblocks.0.mlp.weight": (4, 4),
    "transformer.resblocks.1.mlp.weight": (4, 4),
    "token_embedding.weight": (37, 3),
    "visual.empty": (0, 3),
    "logit_scale": (),
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Tensors of these tests would fit into one piece."""
    monkeypatch.setattr(checkpoints, "NUMBERS_AT_ONCE", 48)
    monkeypatch.setattr(checkpoints, "NUMBERS_OF_ONE", 4)


def model(seed: int, near: Model | None = None, far: float = 1.0) -> Model:
    random = np.random.default_rng(seed)
    drawn = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    near = near or {name: np.zeros(shape) for name, shape in SHAPES.items()}
    return {
        name: (near[name] + far * values).astype(np.float32).astype(np.float64)
        for name, values in drawn.items()
    }


def merged(folder: Path, parameters: dict, models: list[Model], base: Model | None) -> Model:
    paths = []
    for i, weights in enumerate([*models, *([base] if base else [])]):
        paths.append(folder / f"{i}.safetensors")
        tensors = {k: torch.tensor(v, dtype=torch.float32) for k, v in weights.items()}
        save_file(tensors | {"counter": torch.tensor([3, 4])}, paths[-1])
    before = [path.read_bytes() for path in paths]
    technique = TypeAdapter(AnyTechnique).validate_python(parameters)
    merge(technique, paths[: len(models)], folder / "out", paths[-1] if base else None)
    assert [path.read_bytes() for path in paths] == before
    out = {name: tensor.numpy() for name, tensor in load_file(folder / "out").items()}
    assert out.pop("counter").tolist() == [3, 4]
    return out


def same(found: Model, expected: Model) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].shape == SHAPES[name]
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-6, atol=1e-6, err_msg=name)


def flat(weights: Model) -> Array:
    return np.concatenate([weights[name].reshape(-1) for name in SHAPES])


def unflat(numbers: Array) -> Model:
    result, start = {}, 0
    for name, shape in SHAPES.items():
        end = start + math.prod(shape)
        result[name] = numbers[start:end].reshape(shape)
        start = end
    return result


def tau(models: list[Model], base: Model) -> Array:
    return np.stack([flat(weights) - flat(base) for weights in models])


def elected(vectors: Array, weights: Array, combine: str = "mean") -> Array:
    """One parameter after the other; the vectors are those times their weights."""
    result = np.zeros(vectors.shape[1])
    for j, column in enumerate(vectors.T):
        sign = np.sign(column.sum())
        agreeing = [(x, abs(w)) for x, w in zip(column, weights, strict=True) if x * sign > 0]
        if combine == "sum":
            result[j] = sum(x for x, _ in agreeing)
        elif agreeing and combine == "mean":
            result[j] = sum(x for x, _ in agreeing) / sum(w for _, w in agreeing)
        elif agreeing:
            largest, weight = max(agreeing, key=lambda pair: abs(pair[0]))
            result[j] = largest / weight
    return result


def trimmed(vector: Array, density: float) -> Array:
    kept = round(density * vector.size)
    magnitudes = np.abs(vector).astype(np.float32)
    if kept == 0:
        return np.zeros_like(vector)
    return np.where(magnitudes >= np.partition(magnitudes, -kept)[-kept], vector, 0)


def untailed(vector: Array, smallest: float, largest: float) -> Array:
    low, high = round(smallest * vector.size), round(largest * vector.size)
    magnitudes = np.sort(np.abs(vector).astype(np.float32))[low : vector.size - high]
    if magnitudes.size == 0:
        return np.zeros_like(vector)
    own = np.abs(vector).astype(np.float32)
    return np.where((own >= magnitudes[0]) & (own <= magnitudes[-1]), vector, 0)


def by_tensor(vector: Array, function: Callable[[Array], Array]) -> Array:
    return flat({n: function(t.reshape(-1)).reshape(t.shape) for n, t in unflat(vector).items()})


def by_tower(vector: Array, function: Callable[[Array], Array]) -> Array:
    image = flat({n: np.full(s, n.startswith("visual."), float) for n, s in SHAPES.items()}) > 0
    result = np.empty_like(vector)
    for part in (image, ~image):
        result[part] = function(vector[part])
    return result


def dropped(vectors: Array, p: float, seed: int) -> Array:
    """With the sequences of lots as they are documented, not cut into pieces."""
    draws = [
        flat({n: uniform(f"{seed}/{k}/{n}", 0, math.prod(s)).reshape(s) for n, s in SHAPES.items()})
        for k in range(len(vectors))
    ]
    return np.where(np.stack(draws) >= p, vectors / (1 - p), 0)


def magpruned(vectors: Array, p: float, spread: float, seed: int) -> Array:
    """Number by number, of the rows of each tensor."""
    result = np.zeros_like(vectors)
    for k, vector in enumerate(vectors):
        kept = {}
        for name, tensor in unflat(vector).items():
            draws = uniform(f"{seed}/{k}/{name}", 0, tensor.size)
            rows = [t.reshape(-1) for t in tensor] if tensor.ndim > 1 else [tensor.reshape(-1)]
            found = []
            for row in rows:
                for x in row:
                    less = sum(abs(y) < abs(x) for y in row)
                    equal = sum(abs(y) == abs(x) for y in row)
                    rank = less + (equal - 1) / 2
                    place = rank / (len(row) - 1) if len(row) > 1 else 0.5
                    chance = p + spread / 2 - spread * place
                    found.append(0 if draws[len(found)] < chance else x / (1 - chance))
            kept[name] = np.array(found, np.float64).reshape(tensor.shape)
        result[k] = flat(kept)
    return result


def selected_and_erased(vectors: Array, signs: Array, own: Array, density: float) -> Array:
    """One tensor, then one parameter after the other."""
    count = vectors.shape[1]
    if count == 0:
        return np.zeros(0)
    vectors = signs[:, None] * vectors
    means = [np.average(c, weights=own) for c in vectors.T]
    variances = [
        np.average((c - m) ** 2, weights=own) for c, m in zip(vectors.T, means, strict=True)
    ]
    variances = np.array(variances) * (len(vectors) > 1)
    kept = min(count, max(1, round(density * count)))
    chosen = variances >= np.sort(variances)[-kept] * (1 - 1e-7)
    weights = own * np.array([sum(v[chosen] ** 2) for v in vectors])
    result = np.zeros(count)
    for j in np.flatnonzero(chosen):
        sign = np.sign((own * vectors[:, j]).sum())
        agreeing = [k for k in range(len(vectors)) if vectors[k, j] * sign > 0]
        if agreeing:
            total = sum(weights[k] for k in agreeing)
            result[j] = sum(weights[k] * vectors[k, j] for k in agreeing) / total
    return result


def sce(vectors: Array, weights: Array, density: float) -> Array:
    parts = [unflat(vector) for vector in vectors / weights[:, None]]
    given = np.sign(weights), np.abs(weights), density
    return flat({
        name: selected_and_erased(np.stack([p[name].reshape(-1) for p in parts]), *given)
        for name in SHAPES
    })  # fmt: skip


def magmax(vectors: Array, weights: Array) -> Array:
    pairs = [list(zip(column, np.abs(weights), strict=True)) for column in vectors.T]
    largest = (max(reversed(column), key=lambda pair: abs(pair[0])) for column in pairs)
    return np.array([number / weight for number, weight in largest])


def consensus(vectors: Array, threshold: float, agreement: int) -> Array:
    total = vectors.sum(axis=0)
    users = sum(
        np.abs(v) >= threshold * np.abs(total - v) for v in vectors
    )  # fmt: skip
    return total * (users >= agreement)


def chosen(vectors: Array, weights: Array, seed: int) -> Array:
    draws = {n: uniform(f"{seed}/{n}", 0, math.prod(s)).reshape(s) for n, s in SHAPES.items()}
    result = np.zeros(vectors.shape[1])
    for j, lot in enumerate(flat(draws)):
        left = lot * sum(np.abs(weights))
        for vector, weight in zip(vectors, np.abs(weights), strict=True):
            if left < weight:
                result[j] = vector[j] / weight
                break
            left -= weight
    return result


# Each takes the task vectors times their weights, and the weights.
OF_VECTORS: dict[str, tuple[dict, Callable[[Array, Array], Array]]] = {
    "task arithmetic": ({"technique": "task_arithmetic"}, lambda v, w: v.sum(axis=0)),
    "ties": (
        {"technique": "ties"},
        lambda v, w: elected(np.stack([trimmed(x, 0.2) for x in v]), w),
    ),
    "ties, summed, dense": (
        {"technique": "ties", "density": 1.0, "combine": "sum"},
        lambda v, w: elected(v, w, "sum"),
    ),
    "ties, largest, by tower": (
        {"technique": "ties", "density": 0.5, "combine": "max", "over": "tower"},
        lambda v, w: elected(
            np.stack([by_tower(x, lambda part: trimmed(part, 0.5)) for x in v]), w, "max"
        ),
    ),
    "ties by tensor": (
        {"technique": "ties", "density": 0.3, "over": "tensor"},
        lambda v, w: elected(
            np.stack([by_tensor(x, lambda part: trimmed(part, 0.3)) for x in v]), w
        ),
    ),
    "dare": ({"technique": "dare", "seed": 3}, lambda v, w: dropped(v, 0.9, 3).sum(axis=0)),
    "dare, ties": (
        {"technique": "dare_ties", "drop": 0.4},
        lambda v, w: elected(dropped(v, 0.4, 0), w),
    ),
    "della": (
        {"technique": "della", "drop": 0.5, "spread": 0.6, "seed": 2},
        lambda v, w: magpruned(v, 0.5, 0.6, 2).sum(axis=0),
    ),
    "della, ties": (
        {"technique": "della_ties"},
        lambda v, w: elected(magpruned(v, 0.7, 0.2, 0), w),
    ),
    "breadcrumbs": (
        {"technique": "breadcrumbs", "smallest": 0.5, "largest": 0.1},
        lambda v, w: sum(by_tensor(x, lambda part: untailed(part, 0.5, 0.1)) for x in v),
    ),
    "breadcrumbs over the model, ties": (
        {"technique": "breadcrumbs_ties", "smallest": 0.3, "largest": 0.05, "over": "model"},
        lambda v, w: elected(np.stack([untailed(x, 0.3, 0.05) for x in v]), w),
    ),
    "magmax": ({"technique": "magmax"}, magmax),
    "consensus": ({"technique": "consensus"}, lambda v, w: consensus(v, 0.4, min(2, len(v)))),
    "consensus of three": (
        {"technique": "consensus", "threshold": 0.8, "agreement": 3},
        lambda v, w: consensus(v, 0.8, min(3, len(v))),
    ),
    "sce": ({"technique": "sce"}, lambda v, w: sce(v, w, 0.1)),
    "sce of all": ({"technique": "sce", "density": 1.0}, lambda v, w: sce(v, w, 1.0)),
    "sce of many": ({"technique": "sce", "density": 0.7}, lambda v, w: sce(v, w, 0.7)),
    "random": ({"technique": "random", "seed": 5}, lambda v, w: chosen(v, w, 5)),
}  # fmt: skip


def test_every_technique_over_task_vectors_has_its_formula_here():
    named = {parameters["technique"] for parameters, _ in OF_VECTORS.values()}
    assert named == {
        name
        for name, technique in TECHNIQUES.items()
        if issubclass(technique, TaskVectorTechnique)
        and not issubclass(technique, MatrixTechnique)  # which have theirs in test_matrices.py
    }


@pytest.mark.parametrize("case", OF_VECTORS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_task_vectors_are_merged_as_the_formula_says(tmp_path, case, count):
    parameters, function = OF_VECTORS[case]
    base = model(0)
    models = [model(i + 1, near=base, far=0.1 * (i + 1)) for i in range(count)]
    expected = flat(base) + function(tau(models, base), np.ones(count))
    same(merged(tmp_path, parameters, models, base), unflat(expected))


@pytest.mark.parametrize("case", OF_VECTORS)
def test_models_that_are_the_base_give_the_base(tmp_path, case):
    base = model(0)
    found = merged(tmp_path, OF_VECTORS[case][0], [base, base, base], base)
    for name, expected in base.items():
        assert np.array_equal(found[name], expected)


@pytest.mark.parametrize("case", OF_VECTORS)
def test_coefficients_scales_and_depth_are_applied(tmp_path, case):
    """Coefficients weigh what is kept of each task vector, before they are merged."""
    parameters, function = OF_VECTORS[case]
    weights = (0.5, -2.0)
    base = model(0)
    models = [model(i, near=base, far=0.1) for i in (1, 2)]
    scales = {"image": 0.3, "logit_scale": 2.0, "token_*": 0.0}
    parameters = parameters | {
        "coefficients": weights, "scale": 0.7, "group_scales": scales,
        "lines": {"alpha": 0.2, "beta": 0.6, "curve": "quadratic"},
    }  # fmt: skip
    image, text, deep = 0.3, 0.7, {}
    factors = {
        "visual.transformer.resblocks.0.mlp.weight": image * 0.2,
        "visual.transformer.resblocks.1.mlp.weight": image * (0.2 + 0.6 * 0.25),
        "visual.transformer.resblocks.2.mlp.weight": image * 0.8,
        "transformer.resblocks.0.mlp.weight": text * 0.2,
        "transformer.resblocks.1.mlp.weight": text * 0.8,
        "token_embedding.weight": 0.0,
        "visual.empty": image * 0.2,
        "logit_scale": 2.0 * 0.2,
    } | deep
    vectors = np.array(weights)[:, None] * tau(models, base)
    joint = unflat(function(vectors, np.array(weights)))
    expected = {name: base[name] + factors[name] * joint[name] for name in SHAPES}
    same(merged(tmp_path, parameters, models, base), expected)


MEANS = [
    {"technique": "ties", "density": 0.2},
    {"technique": "ties", "density": 0.6, "combine": "max", "over": "tensor"},
    {"technique": "breadcrumbs_ties", "smallest": 0.3, "largest": 0.05},
    {"technique": "magmax"},
    {"technique": "sce", "density": 0.5},
    {"technique": "random"},
    {"technique": "weighted_mean"},
]


def beyond_all(found: Model, models: list[Model], base: Model) -> float:
    """The share of the numbers that lie outside of what θ₀ and the models span."""
    span = np.stack([flat(weights) for weights in (*models, base)])
    merged_numbers, slack = flat(found), 1e-6 * np.abs(span).max()
    outside = (merged_numbers > span.max(0) + slack) | (merged_numbers < span.min(0) - slack)
    return float(outside.mean())


@pytest.mark.parametrize("parameters", MEANS, ids=lambda p: "_".join(map(str, p.values())))
@pytest.mark.parametrize("weighting", ["quadratic", "exponential", "tenth"])
def test_weights_never_take_a_mean_beyond_its_inputs(tmp_path, parameters, weighting):
    base = model(0)
    models = [model(i + 1, near=base, far=0.1) for i in range(5)]
    technique = TypeAdapter(AnyTechnique).validate_python(parameters)
    weighted = as_joint(technique, len(models), weighting).model_dump(mode="json")
    assert beyond_all(merged(tmp_path, weighted, models, base), models, base) == 0


def test_a_weighted_sum_may_go_beyond_its_inputs_and_grows_with_its_weights(tmp_path):
    base = model(0)
    models = [model(i + 1, near=base, far=0.1) for i in range(5)]
    parameters = {"technique": "task_arithmetic", "coefficients": (1, 1, 1, 1, 2)}
    assert beyond_all(merged(tmp_path, parameters, models, base), models, base) > 0.2


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=5), st.floats(0.1, 30), st.data())
def test_only_the_proportions_of_weights_count_in_means(weights, factor, data):
    vectors = data.draw(
        st.lists(
            st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3),
            min_size=len(weights), max_size=len(weights),
        ).map(np.array)
    )  # fmt: skip
    for name in ("ties", "dare_ties", "della_ties", "breadcrumbs_ties", "magmax"):
        join = TECHNIQUES[name]().join
        found = join(vectors.copy(), np.array(weights))
        bound = np.abs(vectors).max(axis=0) * (1 + 1e-12)
        assert (np.abs(found) <= bound).all()
        ones = join(vectors.copy(), np.full(len(weights), factor))
        np.testing.assert_allclose(ones, join(vectors.copy(), np.ones(len(weights))), atol=1e-12)


def test_a_model_of_weight_zero_takes_no_part(tmp_path):
    base = model(0)
    models = [model(i + 1, near=base, far=0.1) for i in range(3)]
    for name in ("ties", "breadcrumbs_ties", "magmax", "random"):
        with_zero = {"technique": name, "coefficients": (0.5, 0.0, 0.5)}
        if name == "random":  # nothing of the middle one is drawn
            found = tau([merged(tmp_path, with_zero, models, base)], base)[0]
            taus = tau([models[0], models[2]], base)
            assert (np.abs(found - taus).min(axis=0) < 1e-6).all()
            continue
        without = {"technique": name, "coefficients": (1.0, 1.0)}
        same(
            merged(tmp_path, with_zero, models, base),
            merged(tmp_path, without, [models[0], models[2]], base),
        )


def test_coefficients_of_each_model_weigh_what_ties_keeps_of_it(tmp_path):
    base = model(0)
    models = [model(i, near=base, far=0.1) for i in (1, 2)]
    kept = np.stack([trimmed(x, 0.5) for x in tau(models, base)])
    weights = np.array([3.0, -1.0])
    expected = flat(base) + elected(weights[:, None] * kept, weights)
    parameters = {"technique": "ties", "density": 0.5, "coefficients": (3.0, -1.0)}
    same(merged(tmp_path, parameters, models, base), unflat(expected))


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_slerp_goes_along_the_arc_and_its_weight_is_that_of_the_second(tmp_path, weight):
    first, second = model(1), model(2)
    first["token_embedding.weight"] *= 0  # no angle
    second["transformer.resblocks.0.mlp.weight"] = (
        2 * first["transformer.resblocks.0.mlp.weight"]  # parallel
    )
    found = merged(tmp_path, {"technique": "slerp", "weight": weight}, [first, second], None)
    expected = {}
    for name in SHAPES:
        a, b = first[name].reshape(-1), second[name].reshape(-1)
        linear = (1 - weight) * first[name] + weight * second[name]
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        cosine = a @ b / norms if norms else 1.0
        if abs(cosine) > 0.9995:
            expected[name] = linear
            continue
        angle = np.arccos(cosine)
        expected[name] = (
            np.sin((1 - weight) * angle) * first[name] + np.sin(weight * angle) * second[name]
        ) / np.sin(angle)
    same(found, expected)


def test_slerp_of_orthogonal_units_stays_on_the_sphere(tmp_path):
    save_file({"w": torch.tensor([1.0, 0.0])}, tmp_path / "a")
    save_file({"w": torch.tensor([0.0, 1.0])}, tmp_path / "b")
    technique = TypeAdapter(AnyTechnique).validate_python({"technique": "slerp", "weight": 1 / 3})
    merge(technique, [tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    found = load_file(tmp_path / "out")["w"].numpy()
    np.testing.assert_allclose(found, [math.cos(math.pi / 6), math.sin(math.pi / 6)], rtol=1e-6)


def test_slerp_of_groups_has_the_groups_weights(tmp_path):
    first, second = model(1), model(2)
    parameters = {"technique": "slerp", "weight": 0.0, "group_weights": {"image": 1.0}}
    found = merged(tmp_path, parameters, [first, second], None)
    for name in SHAPES:
        expected = second if name.startswith("visual.") else first
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def nuslerp(first: Array, second: Array, weight: float) -> Array:
    norms = max(np.linalg.norm(first), 1e-7) * max(np.linalg.norm(second), 1e-7)
    angle = np.arccos(np.clip(first @ second / norms, -1, 1))
    if abs(np.sin(angle)) < 1e-8:
        return (1 - weight) * first + weight * second
    return (np.sin((1 - weight) * angle) * first + np.sin(weight * angle) * second) / np.sin(angle)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("per", ["tensor", "row"])
def test_nuslerp_is_on_the_arc_between_tensors_or_between_their_rows(tmp_path, weight, per):
    first, second = model(1), model(2)
    first["token_embedding.weight"][3] *= 0
    second["token_embedding.weight"][5] = 2 * first["token_embedding.weight"][5]  # parallel
    second["transformer.resblocks.0.mlp.weight"] = -first["transformer.resblocks.0.mlp.weight"]
    parameters = {"technique": "nuslerp", "weight": weight, "per": per}
    found = merged(tmp_path, parameters, [first, second], None)
    expected = {}
    for name, shape in SHAPES.items():
        rows = shape[0] if per == "row" and len(shape) > 1 and shape[0] else 1
        pairs = zip(first[name].reshape(rows, -1), second[name].reshape(rows, -1), strict=True)
        parts = [nuslerp(a, b, weight) for a, b in pairs if a.size]
        expected[name] = np.concatenate([np.zeros(0), *parts]).reshape(shape)
    same(found, expected)


def in_steps(vectors: list[Array], weights: list[float]) -> Array:
    """mergekit's way: to the tangents at the mean direction, and back by the exponential map."""
    norms = [np.linalg.norm(v) for v in vectors]
    units = [v / norm for v, norm in zip(vectors, norms, strict=True)]
    mean = sum(w * u for w, u in zip(weights, units, strict=True))
    mean = mean / np.linalg.norm(mean)
    step = sum(w * (u - (u @ mean) * mean) for w, u in zip(weights, units, strict=True))
    far = np.linalg.norm(step) + 1e-8
    return (np.cos(far) * mean + np.sin(far) / far * step) * np.dot(norms, weights)


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.5], [0.7, 0.2, 0.1], [-0.5, 1.0, 0.5]])
def test_multislerp_is_what_its_steps_on_the_sphere_lead_to(tmp_path, weights):
    models = [model(i + 1, near=model(0), far=0.7) for i in range(len(weights))]
    found = merged(tmp_path, {"technique": "multislerp", "coefficients": weights}, models, None)
    expected = {}
    for name, shape in SHAPES.items():
        if math.prod(shape):
            vectors = [weights_of[name].reshape(-1) for weights_of in models]
            expected[name] = in_steps(vectors, weights).reshape(shape)
        else:
            expected[name] = np.zeros(shape)
    same(found, expected)


def test_directions_that_cancel_out_have_the_linear_mean_by_multislerp(tmp_path):
    first = model(1)
    second = {name: -2 * values for name, values in first.items()}
    found = merged(tmp_path, {"technique": "multislerp"}, [first, second], None)
    same(found, {name: -values / 2 for name, values in first.items()})


@pytest.mark.parametrize("distance", [0.5, 1e-7])
def test_nearswap_swaps_what_is_near_and_moves_nothing_further(tmp_path, distance):
    first = model(1)
    second = model(2, near=first, far=0.5)
    second["token_embedding.weight"][:9] = first["token_embedding.weight"][:9]
    found = merged(tmp_path, {"technique": "nearswap", "distance": distance}, [first, second], None)
    expected = {}
    for name in SHAPES:
        share = np.clip(distance / np.maximum(np.abs(first[name] - second[name]), 1e-6), 0, 1)
        expected[name] = share * second[name] + (1 - share) * first[name]
        assert (np.abs(found[name] - first[name]) <= distance + 1e-6).all()
    same(found, expected)
    swapped = np.mean(np.abs(flat(found) - flat(second)) < 1e-6)
    assert swapped > 0.5 if distance == 0.5 else swapped < 0.2


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_karcher_mean_is_where_the_squared_angles_have_no_slope(tmp_path, count):
    models = [model(i + 1, near=model(0), far=0.7) for i in range(count)]
    found = merged(tmp_path, {"technique": "karcher"}, models, None)
    for name in SHAPES:
        if found[name].size < 2:
            continue
        vectors = [weights[name].reshape(-1) for weights in models]
        norms = [np.linalg.norm(v) for v in vectors]
        mean = found[name].reshape(-1).astype(np.float64)
        np.testing.assert_allclose(np.linalg.norm(mean), np.mean(norms), rtol=1e-5)
        mean = mean / np.linalg.norm(mean)
        slope = np.zeros_like(mean)
        for vector, norm in zip(vectors, norms, strict=True):
            unit = vector / norm
            angle = np.arccos(np.clip(unit @ mean, -1, 1))
            across = unit - (unit @ mean) * mean
            if angle > 1e-4:
                slope += angle * across / np.linalg.norm(across)
        np.testing.assert_allclose(slope, 0, atol=1e-5)


def test_the_karcher_mean_of_two_is_the_middle_of_slerp_for_equal_norms(tmp_path):
    first, second = model(1), model(2)
    for name in SHAPES:
        if first[name].size > 1:
            ratio = np.linalg.norm(first[name]) / np.linalg.norm(second[name])
            second[name] = (ratio * second[name]).astype(np.float32).astype(np.float64)
    found = merged(tmp_path, {"technique": "karcher"}, [first, second], None)
    same(found, merged(tmp_path, {"technique": "slerp"}, [first, second], None))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_model_stock_is_the_papers_ratio_of_pairwise_cosines(tmp_path, count):
    base = model(0)
    common = model(99, far=0.1)
    models = [
        {n: base[n] + common[n] + model(i + 1, far=0.1)[n] for n in SHAPES} for i in range(count)
    ]
    models = [{n: w[n].astype(np.float32).astype(np.float64) for n in SHAPES} for w in models]
    expected = {}
    for name in SHAPES:
        vectors = [(weights[name] - base[name]).reshape(-1) for weights in models]
        if vectors[0].size == 0:
            expected[name] = base[name]
            continue
        cosines = [
            vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[j])
            for i in range(count)
            for j in range(i)
        ]
        cosine = max(0.0, float(np.mean(cosines)))
        share = count * cosine / ((count - 1) * cosine + 1)
        mean = np.mean([weights[name] for weights in models], axis=0)
        expected[name] = share * mean + (1 - share) * base[name]
    same(merged(tmp_path, {"technique": "model_stock"}, models, base), expected)


def test_model_stock_leaves_out_models_that_changed_nothing(tmp_path):
    base, changed = model(0), model(1)
    opposite = {name: 2 * base[name] - changed[name] for name in SHAPES}
    stock = {"technique": "model_stock"}
    same(merged(tmp_path, stock, [base, base], base), base)
    same(merged(tmp_path, stock, [base, changed], base), changed)
    same(merged(tmp_path, stock, [changed], base), changed)
    same(merged(tmp_path, stock, [changed, changed, base], base), changed)
    same(merged(tmp_path, stock, [changed, opposite], base), base)


@pytest.mark.parametrize("technique", ["weighted_mean", "karcher", "slerp", "interpolation"])
def test_equal_models_give_themselves(tmp_path, technique):
    weights = model(1)
    found = merged(tmp_path, {"technique": technique}, [weights, weights], None)
    same(found, weights)
    if technique != "karcher":
        assert all(np.array_equal(found[name], weights[name]) for name in SHAPES)


def test_a_mean_by_group_has_the_groups_coefficients(tmp_path):
    models = [model(i) for i in range(3)]
    parameters = {
        "technique": "weighted_mean",
        "group_coefficients": {"image": [0, 0, 1], "*resblocks.1*": [2, -1, 0]},
    }
    found = merged(tmp_path, parameters, models, None)
    for name in SHAPES:
        a, b, c = (weights[name] for weights in models)
        expected = c if name.startswith("visual.") else (a + b + c) / 3
        if "resblocks.1" in name:
            expected = 2 * a - b
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)


def test_all_that_equal_the_last_magnitude_kept_are_kept(tmp_path):
    base = {"w": torch.zeros(6)}
    vector = torch.tensor([1.0, -1.0, 1.0, 3.0, 0.0, 0.5])
    save_file(base, tmp_path / "base")
    save_file({"w": vector}, tmp_path / "a")
    for parameters, expected in (
        ({"technique": "ties", "density": 2 / 6}, [1, -1, 1, 3, 0, 0]),
        ({"technique": "ties", "density": 1 / 6}, [0, 0, 0, 3, 0, 0]),
        ({"technique": "ties", "density": 0.01}, [0] * 6),  # round(0.06) of them
        (
            {"technique": "breadcrumbs", "smallest": 3 / 6, "largest": 2 / 6},
            [1, -1, 1, 0, 0, 0],
        ),
    ):
        technique = TypeAdapter(AnyTechnique).validate_python(parameters)
        merge(technique, [tmp_path / "a"], tmp_path / "out", tmp_path / "base")
        assert load_file(tmp_path / "out")["w"].tolist() == expected, parameters


def test_what_cancels_out_has_no_sign_and_equal_magnitudes_go_to_the_newest(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "base")
    save_file({"w": torch.tensor([1.0, 2.0, -1.0])}, tmp_path / "old")
    save_file({"w": torch.tensor([-1.0, -1.0, -1.0])}, tmp_path / "new")
    for parameters, expected in (
        ({"technique": "ties", "density": 1.0}, [0, 2, -1]),
        ({"technique": "magmax"}, [-1, 2, -1]),
    ):
        technique = TypeAdapter(AnyTechnique).validate_python(parameters)
        models = [tmp_path / "old", tmp_path / "new"]
        merge(technique, models, tmp_path / "out", tmp_path / "base")
        assert load_file(tmp_path / "out")["w"].tolist() == expected


def test_lots_do_not_depend_on_pieces_and_are_uniform(tmp_path, monkeypatch):
    whole = uniform("seed", 0, 4096)
    assert np.array_equal(np.concatenate([uniform("seed", 0, 8), uniform("seed", 8, 4088)]), whole)
    assert abs(whole.mean() - 0.5) < 0.02
    assert (whole.min() >= 0, whole.max() < 1) == (True, True)
    assert not np.array_equal(uniform("other", 0, 4096), whole)
    # The same on every machine: the first numbers of this seed, written down.
    np.testing.assert_allclose(whole[:2], FIRST, rtol=0, atol=0)
    base, models = model(0), [model(1), model(2)]
    pieces = merged(tmp_path, {"technique": "dare"}, models, base)
    monkeypatch.setattr(checkpoints, "NUMBERS_AT_ONCE", 10**6)
    as_joint = merged(tmp_path, {"technique": "dare"}, models, base)
    assert all(np.array_equal(pieces[name], as_joint[name]) for name in SHAPES)


def test_equal_magnitudes_in_a_row_have_equal_chances_and_the_largest_the_best(tmp_path):
    """Of a row of 0.1, then 2000 ones, then 9: chances of 0.9, 0.5 and 0.1."""
    vector = torch.cat([torch.full((1,), 0.1), torch.ones(1999), torch.full((1,), 9.0)])
    many = vector.repeat(300, 1)
    save_file({"w": torch.zeros_like(many)}, tmp_path / "base")
    save_file({"w": many * torch.where(torch.arange(300) % 2 > 0, 1, -1)[:, None]}, tmp_path / "a")
    technique = TypeAdapter(AnyTechnique).validate_python(
        {"technique": "della", "drop": 0.5, "spread": 0.8}
    )
    merge(technique, [tmp_path / "a"], tmp_path / "out", tmp_path / "base")
    found = load_file(tmp_path / "out")["w"].abs()
    assert set(found[:, 0].tolist()) == {0.0, float(np.float32(np.float32(0.1) / (1 - 0.9)))}
    assert set(found[:, 1:-1].unique().tolist()) == {0.0, 2.0}
    assert set(found[:, -1].tolist()) == {0.0, 10.0}
    stay = (found > 0).double().mean(dim=0)
    assert stay[0] == pytest.approx(0.1, abs=0.06)
    assert stay[1:-1].mean() == pytest.approx(0.5, abs=0.003)
    assert stay[-1] == pytest.approx(0.9, abs=0.06)
    assert found[:, 1:-1].mean() == pytest.approx(1, abs=0.006)  # what is dropped is made up for


def test_rows_longer_than_a_piece_are_ranked_whole(tmp_path, monkeypatch):
    base, models = model(0), [model(1), model(2), model(3)]
    found = {}
    for numbers in (4, 48, 10**6):
        monkeypatch.setattr(checkpoints, "NUMBERS_AT_ONCE", numbers)
        found[numbers] = merged(tmp_path, {"technique": "della_ties"}, models, base)
    for name in SHAPES:
        assert np.array_equal(found[4][name], found[10**6][name])
        assert np.array_equal(found[48][name], found[10**6][name])


@pytest.mark.parametrize(("drop", "spread"), [(0.95, 0.1), (0.04, 0.1), (0.0, 0.5)])
def test_chances_stay_below_one_and_not_below_zero(drop, spread):
    with pytest.raises(ValidationError, match="must be probabilities from 0 to below 1"):
        TypeAdapter(AnyTechnique).validate_python(
            {"technique": "della", "drop": drop, "spread": spread}
        )


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_sce_of_equal_models_is_that_model(tmp_path, count):
    base, changed = model(0), model(1)
    for density in (0.1, 1.0):
        parameters = {"technique": "sce", "density": density}
        same(merged(tmp_path, parameters, [changed] * count, base), changed)


def test_sce_weighs_by_squares_and_erases_the_minority(tmp_path):
    """Of 5 parameters 3 vary most; squares there are 41 and 24, and the second sign is the first's
    alone."""
    save_file({"w": torch.zeros(5)}, tmp_path / "base")
    save_file({"w": torch.tensor([1.0, 4.0, 0.5, 5.0, 1.0])}, tmp_path / "a")
    save_file({"w": torch.tensor([1.0, -2.0, 4.0, 2.0, 1.5])}, tmp_path / "b")
    technique = TypeAdapter(AnyTechnique).validate_python({"technique": "sce", "density": 0.6})
    merge(technique, [tmp_path / "a", tmp_path / "b"], tmp_path / "out", tmp_path / "base")
    a, b = 16 + 0.25 + 25, 4 + 16 + 4
    expected = [0, 4, (a * 0.5 + b * 4) / (a + b), (a * 5 + b * 2) / (a + b), 0]
    np.testing.assert_allclose(load_file(tmp_path / "out")["w"].numpy(), expected, rtol=1e-6)


def test_a_name_is_that_of_one_technique():
    for name, technique in TECHNIQUES.items():
        assert technique.model_fields["technique"].default == name
    assert TypeAdapter(AnyTechnique).validate_python({"weight": 0.1}).technique == "interpolation"


@pytest.mark.parametrize(
    ("parameters", "models", "message"),
    [
        ({"technique": "ties"}, 2, "ties merges differences from θ₀, and there is none"),
        ({"technique": "slerp"}, 3, "slerp cannot merge 3 models: it merges two"),
        ({"technique": "nuslerp"}, 1, "nuslerp cannot merge one model: it merges two models; mult"),
        ({"technique": "nearswap"}, 1, "nearswap cannot merge one model: it moves an older model"),
        (
            {"technique": "multislerp", "coefficients": [0.5, 0.5]}, 3,
            r"multislerp cannot merge 3 models: it has 2 coefficients \[0.5, 0.5\]: give one",
        ),
        ({"technique": "opcm"}, 2, "opcm merges differences from θ₀, and there is none"),
        ({"technique": "interpolation"}, 1, "interpolation cannot merge one model"),
        ({"technique": "weighted_mean"}, 0, "nothing to merge"),
        (
            {"technique": "slerp", "group_weights": {"imag": 0.3}}, 2,
            "no parameter .* belongs to 'imag'.*did you mean 'image'",
        ),
        (
            {"technique": "slerp", "group_weights": {"visual*": 0.3, "*resblocks*": 0.2}}, 2,
            "matches 'visual\\*' and '\\*resblocks\\*', which have different values",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_said(tmp_path, parameters, models, message):
    with pytest.raises(InputError, match=message):
        merged(tmp_path, parameters, [model(i) for i in range(models)], None)


def test_depth_needs_blocks(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "a")
    technique = TypeAdapter(AnyTechnique).validate_python({"technique": "ties", "lines": {}})
    with pytest.raises(InputError, match="no parameters of numbered blocks"):
        merge(technique, [tmp_path / "a"], tmp_path / "out", tmp_path / "a")


def test_a_base_that_does_not_go_with_the_models_is_named(tmp_path):
    save_file({"w": torch.zeros(3)}, tmp_path / "a")
    save_file({"v": torch.zeros(3)}, tmp_path / "base")
    technique = TypeAdapter(AnyTechnique).validate_python({"technique": "magmax"})
    with pytest.raises(Exception, match=r"base does not go with .*a: it lacks w"):
        merge(technique, [tmp_path / "a"], tmp_path / "out", tmp_path / "base")

"""Techniques over matrices against plain computations with NumPy, and what they take for one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.merging import checkpoints
from fomo_dagster.merging.matrices import Matrix, MatrixTechnique, matrices_of
from fomo_dagster.merging.techniques import TECHNIQUES, AnyTechnique, merge

Array = NDArray[np.float64]
Model = dict[str, Array]
ATTENTION = "visual.transformer.resblocks.0.attn.in_proj_weight"
WIDE = "visual.transformer.resblocks.0.mlp.c_proj.weight"
TALL = "transformer.resblocks.0.mlp.c_fc.weight"
PATCHES = "visual.conv1.weight"
BIAS = "transformer.resblocks.0.mlp.c_fc.bias"
TABLE = "token_embedding.weight"
SHAPES = {
    ATTENTION: (18, 6),
    WIDE: (7, 19),
    TALL: (17, 6),
    PATCHES: (8, 3, 2, 2),
    "text_projection": (6, 5),
    BIAS: (17,),
    TABLE: (12, 6),
    "positional_embedding": (9, 6),
    "visual.class_embedding": (8,),
    "logit_scale": (),
}
MATRICES = (ATTENTION, WIDE, TALL, PATCHES, "text_projection")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "NUMBERS_AT_ONCE", 48)
    monkeypatch.setattr(checkpoints, "NUMBERS_OF_ONE", 4)


def some_models(count: int, far: float = 0.1, like: float = 0.5) -> tuple[Model, list[Model]]:
    """θ₀, and models whose changes have something in common."""
    random = np.random.default_rng(count)

    def drawn() -> Model:
        return {name: random.normal(size=shape) for name, shape in SHAPES.items()}

    def rounded(weights: Model) -> Model:
        return {name: np.float32(values).astype(np.float64) for name, values in weights.items()}

    base, common = rounded(drawn()), drawn()
    models = []
    for _ in range(count):
        own = drawn()
        models.append(rounded({n: base[n] + far * (like * common[n] + own[n]) for n in SHAPES}))
    return base, models


def written(folder: Path, name: str, weights: Model) -> Path:
    save_file({k: torch.tensor(v, dtype=torch.float32) for k, v in weights.items()}, folder / name)
    return folder / name


def merged(
    folder: Path, parameters: dict, models: list[Model], base: Model, before: Path | None = None
) -> Model:
    """before: a file as the first model."""
    paths = [written(folder, f"model{k}", weights) for k, weights in enumerate(models)]
    technique = TypeAdapter(AnyTechnique).validate_python(parameters)
    paths = [*([before] if before else []), *paths]
    merge(technique, paths, folder / "out", written(folder, "base", base))
    return {k: v.double().numpy() for k, v in load_file(folder / "out").items()}


def same(found: Model, expected: Model) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, rtol=2e-6, atol=1e-6, err_msg=name)


def by_matrix(
    models: list[Model], base: Model, function: Callable[[list[Array]], Array], apart: bool
) -> Model:
    """What the function makes of the changes of each matrix; None for what is no matrix."""
    found = {}
    for name in MATRICES:
        taus = [(weights[name] - base[name]).reshape(len(base[name]), -1) for weights in models]
        parts = 3 if apart and name == ATTENTION else 1
        split = [np.split(tau, parts) for tau in taus]
        found[name] = np.concatenate([function(list(part)) for part in zip(*split, strict=True)])
    return found


def svd(matrix: Array) -> tuple[Array, Array, Array]:
    return np.linalg.svd(matrix, full_matrices=False)


def polar(matrix: Array) -> Array:
    """By Newton's iteration on the inverse square root of the smaller Gram matrix: no SVD."""
    if matrix.shape[0] < matrix.shape[1]:
        return polar(matrix.T).T
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return matrix @ (vectors / np.sqrt(values)) @ vectors.T


def tsv(taus: list[Array]) -> Array:
    each = min(taus[0].shape) // len(taus)
    parts = [svd(tau) for tau in taus]
    left = np.concatenate([u[:, :each] for u, _, _ in parts], axis=1)
    right = np.concatenate([v[:each] for _, _, v in parts])
    strengths = np.concatenate([s[:each] for _, s, _ in parts])
    return polar(left) @ np.diag(strengths) @ polar(right)


def iso_c(taus: list[Array]) -> Array:
    left, values, right = svd(sum(taus))
    return values.mean() * left @ right


def iso_cts(taus: list[Array], common: float = 0.8) -> Array:
    rank, count = min(taus[0].shape), len(taus)
    own = round((rank - int(rank * common)) / count)
    shared = rank - own * count
    left, values, right = svd(sum(taus))
    project = np.eye(len(left)) - left[:, :shared] @ left[:, :shared].T
    parts = [tuple(svd(project @ tau)) for tau in taus]
    lefts = np.concatenate([left[:, :shared], *(u[:, :own] for u, _, _ in parts)], axis=1)
    rights = np.concatenate([right[:shared], *(v[:own] for _, _, v in parts)])
    strengths = np.concatenate([values[:shared], *(s[:own] for _, s, _ in parts)])
    return strengths.mean() * polar(lefts) @ polar(rights)


def ties(vectors: list[Array], density: float) -> Array:
    kept = []
    for vector in vectors:
        count = round(density * vector.size)
        least = np.sort(np.abs(vector).reshape(-1))[-count] if count else np.inf
        kept.append(np.where(np.abs(vector) >= least * (1 - 1e-7), vector, 0))
    sign = np.sign(sum(kept))
    agreeing = [np.where(vector * sign > 0, vector, 0) for vector in kept]
    return sum(agreeing) / np.maximum(sum((vector != 0) for vector in agreeing), 1)


def knots(taus: list[Array], density: float = 0.2) -> Array:
    left, values, right = svd(np.concatenate(taus, axis=1))
    kept = values > 1e-12
    parts = np.split(np.diag(values[kept]) @ right[kept], len(taus), axis=1)
    return left[:, kept] @ ties(parts, density)


def wudi(taus: list[Array], steps: int = 300, rate: float = 1e-5) -> Array:
    """With PyTorch's Adam and its own gradient, of the loss as it stands in the paper."""
    vectors = torch.stack([torch.tensor(tau) for tau in taus])
    weights = torch.nn.Parameter(vectors.sum(0))
    optimiser = torch.optim.Adam([weights], lr=rate)
    for _ in range(steps):
        disturbed = (weights - vectors) @ vectors.transpose(1, 2)
        loss = (disturbed.square().sum((1, 2)) / vectors.square().sum((1, 2))).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return weights.detach().numpy()


def mean(taus: list[Array]) -> Array:
    return sum(taus) / len(taus)


CASES: dict[str, tuple[dict, Callable, Callable, bool]] = {
    "tsv_merge": ({"technique": "tsv_merge"}, tsv, mean, False),
    "iso_c": ({"technique": "iso_c"}, iso_c, mean, False),
    "iso_cts": ({"technique": "iso_cts"}, iso_cts, mean, False),
    "iso_cts of little in common": (
        {"technique": "iso_cts", "common": 0.3}, lambda t: iso_cts(t, 0.3), mean, False,
    ),
    "knots": ({"technique": "knots"}, knots, lambda t: ties(t, 0.2), True),
    "knots, dense": (
        {"technique": "knots", "density": 1.0}, lambda t: knots(t, 1.0), lambda t: ties(t, 1.0),
        True,
    ),
    "wudi": ({"technique": "wudi"}, wudi, mean, False),
    "wudi, faster": (
        {"technique": "wudi", "steps": 20, "learning_rate": 0.01}, lambda t: wudi(t, 20, 0.01),
        mean, False,
    ),
}  # fmt: skip


def test_every_technique_over_matrices_has_its_formula_here():
    over = {n for n, technique in TECHNIQUES.items() if issubclass(technique, MatrixTechnique)}
    assert over == {parameters["technique"] for parameters, *_ in CASES.values()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_matrices_are_merged_as_the_papers_say(tmp_path, case, count):
    parameters, function, others, apart = CASES[case]
    base, models = some_models(count)
    changes = by_matrix(models, base, function, apart)
    for name in SHAPES.keys() - changes.keys():
        changes[name] = others([weights[name] - base[name] for weights in models])
    expected = {n: base[n] + 0.7 * changes[n].reshape(base[n].shape) for n in SHAPES}
    same(merged(tmp_path, parameters | {"scale": 0.7}, models, base), expected)


@pytest.mark.parametrize("case", ["tsv_merge", "iso_c", "iso_cts", "knots", "wudi"])
def test_coefficients_multiply_changes_before_they_are_merged(tmp_path, case):
    base, models = some_models(3)
    weights = (1.5, -0.5, 2.0)
    moved = [
        {n: np.float32(base[n] + c * (m[n] - base[n])).astype(np.float64) for n in SHAPES}
        for c, m in zip(weights, models, strict=True)
    ]
    parameters = CASES[case][0]
    found = merged(tmp_path, parameters | {"coefficients": weights}, models, base)
    expected = merged(tmp_path, parameters, moved, base)
    for name in MATRICES if case != "knots" else ():
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=2e-6)
    if case == "knots":  # a mean, by the weights of those that agree
        halves = merged(tmp_path, parameters | {"coefficients": (0.75, -0.25, 1.0)}, models, base)
        same(found, halves)
        assert np.abs(found[WIDE] - merged(tmp_path, parameters, models, base)[WIDE]).max() > 0.01


# OPCM, as the paper has it: with whole bases, and every product written out.


def projected(tau: Array, known: Array, alpha: float) -> Array:
    left, values, right = np.linalg.svd(known)
    shares = np.cumsum(values) / values.sum()
    shared = sum(share <= alpha + 1e-12 for share in shares) if alpha < 1 else len(values)
    result = np.zeros_like(tau)
    for p in range(left.shape[1]):
        for q in range(len(right)):
            if p != q and (p >= shared or q >= shared):
                inner = left[:, p] @ tau @ right[q]
                result += inner * np.outer(left[:, p], right[q])
    return result


def opcm(models: list[Model], base: Model, alpha: float) -> list[Model]:
    """After each model, with λ and the mean of the lengths carried along."""

    def length(change: Model) -> float:
        return math.sqrt(sum((values**2).sum() for values in change.values()))

    taus = [{n: weights[n] - base[n] for n in SHAPES} for weights in models]
    lengths, merges, divisor = [length(taus[0])], [taus[0]], 1.0
    for tau in taus[1:]:
        last, total = merges[-1], {}
        for name in SHAPES:
            if name not in MATRICES:
                total[name] = divisor * last[name] + tau[name]
                continue
            rows, parts = len(tau[name]), 3 if name == ATTENTION else 1
            pairs = zip(
                np.split(tau[name].reshape(rows, -1), parts),
                np.split(last[name].reshape(rows, -1), parts),
                strict=True,
            )
            new = np.concatenate([projected(t, k, alpha) for t, k in pairs])
            total[name] = divisor * last[name] + new.reshape(tau[name].shape)
        lengths.append(length(tau))
        divisor = length(total) / np.mean(lengths)
        merges.append({n: total[n] / divisor for n in SHAPES})
    return [{n: base[n] + change[n] for n in SHAPES} for change in merges]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8, 1.0])
def test_opcm_is_that_of_the_paper_at_every_stage_and_at_once(tmp_path, alpha):
    base, models = some_models(4, like=1.0)
    parameters = {"technique": "opcm", "alpha": alpha}
    expected = opcm(models, base, alpha)
    before = None
    for model, after in zip(models, expected, strict=True):
        same(merged(tmp_path, parameters, [model], base, before), after)
        before = (tmp_path / "out").rename(tmp_path / "before")
    one_by_one = {n: v.double().numpy() for n, v in load_file(before).items()}
    same(merged(tmp_path, parameters, models, base), one_by_one)


def test_opcm_needs_the_last_merge_alone_and_notes_what_it_cannot_tell(tmp_path):
    base, models = some_models(3)
    merged(tmp_path, {"technique": "opcm"}, models[:2], base)
    before = (tmp_path / "out").rename(tmp_path / "before")
    with safe_open(before, "pt") as file:
        state = json.loads(file.metadata()["opcm"])
    assert (state["models"], state.keys()) == (2, {"models", "norm", "divisor"})
    noted = merged(tmp_path, {"technique": "opcm"}, models[2:], base, before)
    save_file(load_file(before), tmp_path / "forgotten")
    forgotten = merged(tmp_path, {"technique": "opcm"}, models[2:], base, tmp_path / "forgotten")
    assert max(np.abs(noted[n] - forgotten[n]).max() for n in SHAPES) > 0.01
    save_file(load_file(before), before, {"opcm": '{"models": 0}'})
    with pytest.raises(DataError, match=r"before has a note of opcm that cannot be read, '\{\"mod"):
        merged(tmp_path, {"technique": "opcm"}, models[2:], base, before)


def test_opcm_of_one_model_is_that_model_and_of_none_that_changed_theta_0(tmp_path):
    base, models = some_models(1)
    found = merged(tmp_path, {"technique": "opcm"}, models, base)
    assert all(np.array_equal(found[name], models[0][name]) for name in SHAPES)
    found = merged(tmp_path, {"technique": "opcm"}, [base, base], base)
    assert all(np.array_equal(found[name], base[name]) for name in SHAPES)


def test_opcm_takes_nothing_from_a_layer_that_no_model_changed_before(tmp_path):
    base, (first, second) = some_models(2)
    first[TALL] = base[TALL]
    found = merged(tmp_path, {"technique": "opcm"}, [first, second], base)
    one, other = found[TALL] - base[TALL], second[TALL] - base[TALL]
    np.testing.assert_allclose(one / np.linalg.norm(one), other / np.linalg.norm(other), atol=1e-5)


def test_opcm_keeps_no_length_through_a_repair():
    with pytest.raises(ValidationError, match="which repair would change: leave out repair"):
        TypeAdapter(AnyTechnique).validate_python({"technique": "opcm", "repair": {}})


@pytest.mark.parametrize("technique", ["tsv_merge", "iso_c", "iso_cts", "knots", "wudi"])
def test_layers_that_a_model_left_alone_are_merged_of_the_others(tmp_path, technique):
    base, models = some_models(2)
    models[1][TALL] = base[TALL]
    found = merged(tmp_path, {"technique": technique}, models, base)
    assert np.isfinite(found[TALL]).all()
    # The directions are those of the first model's change alone.
    _, _, right = svd(models[0][TALL] - base[TALL])
    within = (found[TALL] - base[TALL]) @ right.T @ right
    np.testing.assert_allclose(within, found[TALL] - base[TALL], atol=1e-5)
    models[0][TALL] = base[TALL]
    found = merged(tmp_path, {"technique": technique}, models, base)
    assert np.array_equal(found[TALL], base[TALL])


def test_equal_models_are_one_of_a_half_of_its_directions_by_tsv(tmp_path):
    base, models = some_models(1)
    found = merged(tmp_path, {"technique": "tsv_merge"}, models * 2, base)
    left, values, right = svd(models[0][TALL] - base[TALL])
    expected = base[TALL] + left[:, :3] @ np.diag(values[:3]) @ right[:3]
    np.testing.assert_allclose(found[TALL], expected, atol=2e-6)


@pytest.mark.parametrize("count", [6, 9])
def test_more_models_than_directions_have_one_each(tmp_path, count):
    base, models = some_models(count)
    for technique in ("tsv_merge", "iso_cts"):
        found = merged(tmp_path, {"technique": technique}, models, base)
        assert all(np.isfinite(values).all() for values in found.values())
        assert np.abs(found[TALL] - base[TALL]).max() > 1e-3


def test_low_rank_changes_stay_of_their_rank_by_iso_c(tmp_path):
    """Where nothing was rounded: powers of two."""
    base = {TALL: np.zeros((4, 4)), BIAS: np.zeros(4)}
    changed = {TALL: np.outer([1, 2, 0, 4], [1, 0, 2, 0]).astype(np.float64), BIAS: np.ones(4)}
    found = merged(tmp_path, {"technique": "iso_c"}, [changed], base)
    np.testing.assert_allclose(found[TALL], changed[TALL] / 4, atol=1e-6)


@pytest.mark.parametrize("technique", ["opcm", "tsv_merge", "knots"])
def test_weights_without_matrices_are_refused(tmp_path, technique):
    base = {BIAS: np.zeros(4), TABLE: np.zeros((4, 3))}
    with pytest.raises(InputError, match=f"{technique} merges the matrices of linear layers, and "):
        merged(tmp_path, {"technique": technique}, [base, base], base)


def test_models_of_different_shapes_are_refused(tmp_path):
    base, models = some_models(2)
    models[1][TALL] = models[1][TALL].T.copy()
    with pytest.raises(DataError, match=r"model1 does not go with .*has another shape"):
        merged(tmp_path, {"technique": "opcm"}, models, base)


THREE = [(0, 4, 4), (16, 4, 4), (32, 4, 4)]


@pytest.mark.parametrize(
    ("name", "shape", "matrices"),
    [
        ("visual.conv1.weight", (8, 3, 2, 2), [(0, 8, 12)]),
        ("visual.transformer.resblocks.0.attn.in_proj_weight", (12, 4), THREE),
        ("visual.trunk.blocks.0.attn.qkv.weight", (12, 4), THREE),
        ("visual.trunk.patch_embed.proj.weight", (8, 3, 2, 2), [(0, 8, 12)]),
        ("vision_model.embeddings.patch_embedding.weight", (8, 3, 2, 2), [(0, 8, 12)]),
        ("visual.proj", (6, 4), [(0, 6, 4)]),
        ("text_projection", (6, 4), [(0, 6, 4)]),
        ("text.transformer.encoder.layer.0.attention.self.query.weight", (4, 4), [(0, 4, 4)]),
        ("visual.trunk.blocks.0.norm.weight", (4,), []),
        ("text.transformer.embeddings.word_embeddings.weight", (9, 4), []),
        ("token_embedding.weight", (9, 4), []),
        ("positional_embedding", (9, 4), []),
        ("visual.trunk.pos_embed", (1, 9, 4), []),
        ("visual.attn_pool.query", (9, 4), []),
        ("visual.layer.weight", (1, 9), []),
        ("visual.layer.weight", (9, 1), []),
        ("visual.layer.weight", (0, 3), []),
    ],
)  # fmt: skip
def test_matrices_are_told_from_tables_by_name_and_shape(tmp_path, name, shape, matrices):
    save_file({name: torch.zeros(shape), "a.weight": torch.zeros(2, 2)}, tmp_path / "file")
    with checkpoints.Checkpoints([tmp_path / "file"]) as files:
        found = matrices_of(files, "technique", attention_apart=True)
        whole = matrices_of(files, "technique", attention_apart=False)
    assert found.get(name, []) == [Matrix(*one) for one in matrices]
    assert len(whole.get(name, [])) == min(1, len(matrices))

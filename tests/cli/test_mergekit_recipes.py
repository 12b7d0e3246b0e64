"""mergekit's YAML: what becomes of each method, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.cli.mergekit_recipes import read_recipe
from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.merging.techniques import AnyTechnique

SHAPE = (40, 30)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """θ₀ and three models, which recipes name relative to the current folder."""
    monkeypatch.chdir(tmp_path)
    random = torch.Generator().manual_seed(0)
    base = torch.randn(SHAPE, generator=random)
    save_file({"visual.proj": base}, tmp_path / "base.safetensors")
    for name in "abc":
        changed = base + 0.1 * torch.randn(SHAPE, generator=random)
        save_file({"visual.proj": changed}, tmp_path / f"{name}.safetensors")
    return tmp_path


def written(folder: Path, values: dict) -> Path:
    """Models by letters, with their parameters, as mergekit has them."""
    models = values.get("models")
    if isinstance(models, dict):
        listed = [{"model": f"{name}.safetensors"} for name in models]
        for entry, given in zip(listed, models.values(), strict=True):
            entry |= {"parameters": given} if given else {}
        values = values | {"models": listed}
    if values.get("base_model") in ("base", "a"):
        values = values | {"base_model": f"{values['base_model']}.safetensors"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


TWO = {"a": {"weight": 1}, "b": {"weight": 3}}
PLAIN = {"a": {}, "b": {}}
OVER_BASE = {"base_model": "base", "models": TWO}

# mergekit's method | base_model | its models' weights | other parameters | the technique, and its
# parameters
METHODS = """
linear           |      | [1, 3]  |                                  | weighted_mean, coefficients: [0.25, 0.75]
linear           |      | [2, -1] | normalize: false                 | weighted_mean, coefficients: [2, -1]
slerp            | a    |         | t: 0.3                           | slerp, weight: 0.3
nearswap         | a    |         | t: 0.01                          | nearswap, distance: 0.01
nuslerp          |      | [1, 3]  |                                  | nuslerp, weight: 0.75
nuslerp          |      | [1, -1] | nuslerp_flatten: false           | nuslerp, weight: 0.5, per: row
multislerp       |      | [1, 3]  |                                  | multislerp, coefficients: [0.25, 0.75]
karcher          |      |         |                                  | karcher, steps: 10
karcher          |      |         | max_iter: 7                      | karcher, steps: 7
model_stock      | base |         |                                  | model_stock
sce              | base |         | select_topk: 0.4                 | sce, density: 0.4
task_arithmetic  | base | [1, 3]  | lambda: 0.5                      | task_arithmetic, scale: 0.5, coefficients: [1, 3]
task_arithmetic  | base | [1, 3]  | normalize: true                  | task_arithmetic, coefficients: [0.25, 0.75]
ties             | base | [1, 3]  | density: 0.3                     | ties, density: 0.3, over: tensor, coefficients: [1, 3]
ties             | base | [1, 3]  | normalize: false, int8_mask: true | ties, density: 1.0, over: tensor, combine: sum, coefficients: [1, 3]
dare_linear      | base | [1, 3]  | density: 0.25                    | dare, drop: 0.75, coefficients: [1, 3]
dare_ties        | base | [1, 3]  | density: 0.25                    | dare_ties, drop: 0.75, combine: sum, coefficients: [1, 3]
dare_ties        | base | [1, 3]  | normalize: true                  | dare_ties, drop: 0, coefficients: [1, 3]
della            | base | [1, 3]  | density: 0.25, epsilon: 0.125    | della_ties, drop: 0.75, spread: 0.25, coefficients: [1, 3]
della_linear     | base | [1, 3]  |                                  | della, drop: 0, spread: 0, coefficients: [1, 3]
breadcrumbs      | base | [1, 3]  | density: 0.5, gamma: 0.25        | breadcrumbs, smallest: 0.25, largest: 0.25, coefficients: [1, 3]
breadcrumbs_ties | base | [1, 3]  | density: 1.0                     | breadcrumbs_ties, smallest: 0, largest: 0, combine: sum, coefficients: [1, 3]
"""  # noqa: E501
CASES = [[cell.strip() for cell in line.split("|")] for line in METHODS.strip().splitlines()]


@pytest.mark.parametrize(
    ("method", "base", "weights", "parameters", "expected"), CASES, ids=lambda text: text
)
def test_each_method_is_a_technique_with_its_parameters(
    folder, method, base, weights, parameters, expected
):
    given = yaml.safe_load(weights) or [None, None]
    models = {name: {"weight": w} if w else {} for name, w in zip("ab", given, strict=True)}
    recipe = {"merge_method": method, "models": models}
    recipe |= {"base_model": base} if base else {}
    recipe |= {"parameters": yaml.safe_load(f"{{{parameters}}}")} if parameters else {}
    found = read_recipe(written(folder, recipe))
    technique = yaml.safe_load(f"{{technique: {expected}}}")
    declared = TypeAdapter(AnyTechnique).validate_python(technique)
    assert found.technique == declared
    assert [path.name for path in found.models] == ["a.safetensors", "b.safetensors"]
    assert found.base == (Path("base.safetensors") if base == "base" else None)


def test_the_models_parameters_go_before_those_of_all_and_the_base_comes_first(folder):
    models = {"b": {"density": 0.5, "weight": 2}, "a": {"weight": 1, "density": 0.5}}
    recipe = {"merge_method": "ties", "base_model": "base", "parameters": {"density": 0.1}}
    found = read_recipe(written(folder, recipe | {"models": models, "dtype": "float32"}))
    assert (found.technique.density, found.technique.coefficients) == (0.5, (2, 1))
    recipe = {"merge_method": "slerp", "base_model": "a", "parameters": {"t": 0.2}}
    found = read_recipe(written(folder, recipe | {"models": {"b": {}, "a": {}}}))
    assert [path.name for path in found.models] == ["a.safetensors", "b.safetensors"]


def run(*arguments):
    result = CliRunner().invoke(app, ["merge", *map(str, arguments)])
    if isinstance(result.exception, FomoError):
        raise result.exception
    return result


def test_a_recipe_of_ties_is_merged_as_mergekit_does(folder):
    """Its arithmetic: trimmed by tensor, signs by weights, divided by those that agree."""
    models = {n: {"weight": w, "density": 0.25} for n, w in zip("abc", (1, 2, 0.5), strict=True)}
    recipe = {
        "merge_method": "ties", "base_model": "base", "models": {"base": {}, **models},
        "parameters": {"lambda": 0.8},
    }  # fmt: skip
    result = run("out.safetensors", "--recipe", written(folder, recipe))
    assert result.exit_code == 0, result.output

    def tensor(name):
        return load_file(folder / f"{name}.safetensors")["visual.proj"].double().numpy()

    base, kept = tensor("base"), []
    for name, given in models.items():
        delta = tensor(name) - base
        least = np.sort(np.abs(delta).reshape(-1))[-int(0.25 * delta.size)]
        kept.append(given["weight"] * np.where(np.abs(delta) >= least, delta, 0))
    majority = np.where(sum(kept) >= 0, 1, -1)
    agrees = [np.sign(weighted) == majority for weighted in kept]
    divisor = sum(m["weight"] * a for m, a in zip(models.values(), agrees, strict=True))
    mixed = sum(w * a for w, a in zip(kept, agrees, strict=True))
    expected = base + 0.8 * mixed / np.where(divisor == 0, 1, divisor)
    np.testing.assert_allclose(tensor("out"), expected, rtol=1e-6, atol=1e-6)


SLERP = {"merge_method": "slerp", "base_model": "a", "models": PLAIN}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"merge_method": "ties", "slices": []}, "slices has no counterpart: layers of several"),
        (SLERP | {"tokenizer_source": "base"}, "tokenizer_source has no counterpart: CLIP's tok"),
        (SLERP | {"dtype": "bfloat16"}, "dtype is 'bfloat16', but merges are .* give float32"),
        (SLERP | {"merge_method": "tie"}, "no merge_method 'tie' here: did you mean 'ties'"),
        (SLERP | {"merge_method": "passthrough"}, "no merge_method 'passthrough' here"),
        (SLERP | {"modls": 1}, "unknown key 'modls' .*did you mean 'models'"),
        (SLERP, "slerp: the parameter t is missing: give a number"),
        (SLERP | {"parameters": {"t": [0, 1]}}, r"t is \[0, 1\], and one number is expected: grad"),
        (
            SLERP | {"parameters": {"t": [{"filter": "mlp", "value": 0.3}, {"value": 0.5}]}},
            "and one number is expected: gradients over layers and filters by name",
        ),
        (SLERP | {"parameters": {"t": 2}}, "slerp: weight is 2: it must be at most 1"),
        (SLERP | {"parameters": {"t": 0.1, "w": 3}}, r"parameter 'w' \(value 3\); valid: 't'"),
        (
            {"merge_method": "slerp", "models": PLAIN, "parameters": {"t": 0.1}},
            "slerp needs a base_model, which is the older model here: name it",
        ),
        (
            {"merge_method": "linear", "models": {"a": {"weight": 1}, "b": {}}},
            "the parameter weight of b.safetensors is missing",
        ),
        (
            {"merge_method": "linear", "models": {"a": {"weight": 1}, "b": {"weight": -1}}},
            r"the weights \[1, -1\] add up to 0",
        ),
        (
            {"merge_method": "multislerp", "base_model": "base", "models": TWO},
            "multislerp has none here, only models",
        ),
        (
            {"merge_method": "nuslerp", "models": TWO, "parameters": {"nuslerp_row_wise": True}},
            "nuslerp_row_wise is True, which has no counterpart",
        ),
        (
            {"merge_method": "ties", "base_model": "base", "models": {
                "a": {"weight": 1, "density": 0.5}, "b": {"weight": 1, "density": 0.6},
            }},
            r"density is \[0.5, 0.6\] of the models, and here it is one number for all",
        ),
        (
            {"merge_method": "ties", "base_model": "base", "models": TWO,
             "parameters": {"rescale": True}},
            "rescale is True, which has no counterpart: leave it out, which is false",
        ),
        (
            {"merge_method": "ties", "base_model": "base", "models": {
                "a": {"weight": 1}, "b": {"weight": -1},
            }},
            r"weight is \[1, -1\], and a mean divides by magnitudes",
        ),
        (
            {"merge_method": "task_arithmetic", **OVER_BASE, "parameters": {"density": 0.5}},
            "task_arithmetic drops nothing: leave out density",
        ),
        ({"merge_method": "sce", "base_model": "base", "models": {"base": {}}}, "base_model alone"),
        ({"merge_method": "karcher", "models": {"a": {}, "d": {}}}, "'d.safetensors' is no file"),
    ],
    ids=str,
)  # fmt: skip
def test_what_has_no_counterpart_is_refused(folder, recipe, message):
    with pytest.raises(InputError, match=message):
        read_recipe(written(folder, recipe))


def test_a_folder_is_no_file_of_weights(folder):
    (folder / "a.safetensors").unlink()
    (folder / "a.safetensors").mkdir()
    with pytest.raises(InputError, match=r"'a.safetensors' is a folder: name a \.safetensors or"):
        read_recipe(written(folder, {"merge_method": "karcher", "models": PLAIN}))


def test_a_recipe_and_files_do_not_go_together_and_neither_is_an_error(folder):
    recipe = written(folder, {"merge_method": "karcher", "models": PLAIN})
    with pytest.raises(InputError, match="says what to merge, and so do files, --technique: give"):
        run("out.pt", "a.safetensors", "--technique", "ties", "--recipe", recipe)
    with pytest.raises(InputError, match="there are no files to merge: give files and --technique"):
        run("out.pt", "--technique", "ties")
    with pytest.raises(InputError, match="there is no --technique: give files and"):
        run("out.pt", "a.safetensors")

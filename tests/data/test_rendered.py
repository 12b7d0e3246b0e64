"""dSprites and Shapes3D, rendered: the benchmark's sizes, and pictures that show what is said."""

from __future__ import annotations

import colorsys
from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import yaml

from fomo_dagster.data.benchmark.registry import find
from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.sources.generated import GeneratedSource
from fomo_dagster.data.suite.factors import FactorGenerator
from fomo_dagster.data.suite.registry import create_generator
from fomo_dagster.data.suite.shapes3d import COLOURS, SHAPES
from fomo_dagster.data.suite.solids import Rays, intersect
from fomo_dagster.errors import DataError, InputError

pytestmark = pytest.mark.slow

FILE = Path(__file__).parents[2] / "datasets" / "rendered.yaml"
DECLARED = {
    name: Dataset.model_validate(declaration)
    for name, declaration in yaml.safe_load(FILE.read_text()).items()
}


def generator(name: str, seed: int = 0, **parameters: int) -> FactorGenerator:
    return cast(FactorGenerator, create_generator(name, parameters, seed))


@pytest.mark.parametrize("name", DECLARED)
def test_a_declared_set_has_the_benchmarks_size_classes_and_prompt(name: str) -> None:
    dataset, meant = DECLARED[name], find(name.removesuffix("_rendered"))
    assert isinstance(dataset.source, GeneratedSource)
    made = generator(dataset.source.generator)
    samples = {split: made.samples(split) for split in ("train", "test")}
    assert {split: len(found) for split, found in samples.items()} == {
        "train": meant.train, "test": meant.test
    }  # fmt: skip
    for found in samples.values():
        counts = Counter(sample.concept for sample in found)
        assert len(counts) == meant.classes
        assert max(counts.values()) - min(counts.values()) <= 2
    assert dataset.prompt == meant.prompt
    cells = [{sample.key.split("/")[1] for sample in found} for found in samples.values()]
    assert not cells[0] & cells[1]
    for sample in samples["test"][:200]:
        assert sample.captions[0] == meant.prompt.format(sample.concept)
        assert all(sample.concept in caption for caption in sample.captions)


def test_the_seed_chooses_the_cells_and_paints_none() -> None:
    first, again, other = (generator("dsprites", seed, samples=500) for seed in (0, 0, 1))
    assert first.samples("train") == again.samples("train") != other.samples("train")
    cell = (2, 3, 7, 30, 1)
    assert first.paint(cell).tobytes() == other.paint(cell).tobytes()


def test_a_sprite_stands_where_its_class_says() -> None:
    made = generator("dsprites", samples=300, test_samples=0)
    middles = {"left": (0, 1), "right": (0, -1), "upper": (1, 1), "top": (1, 1),
               "lower": (1, -1), "bottom": (1, -1)}  # fmt: skip
    for sample in made.samples("train"):
        picture = np.asarray(made.render("train", sample.key))
        assert picture.shape == (64, 64, 3)
        assert set(np.unique(picture)) == {0, 255}
        rows, columns = np.nonzero(picture[..., 0])
        assert 0 < rows.min() <= rows.max() < 63  # nothing is cut off
        assert 0 < columns.min() <= columns.max() < 63
        middle = (columns.mean() - 31.5, rows.mean() - 31.5)
        for word, (axis, side) in middles.items():
            if word in sample.concept.split():
                assert side * middle[axis] < 0, sample
        if sample.concept.endswith("in the middle"):
            assert max(map(abs, middle)) < 9, sample


def test_sprites_grow_with_their_scale() -> None:
    made = generator("dsprites")
    for shape in range(3):
        areas = [np.count_nonzero(made.paint((shape, s, 5, 16, 16))) for s in range(6)]
        assert areas == sorted(set(areas))
        assert areas[-1] / areas[0] == pytest.approx(4, rel=0.15)  # twice as wide and as high


def test_floor_wall_and_solid_have_the_colours_of_their_class() -> None:
    made = generator("shapes3d", samples=60, test_samples=0)
    for sample in made.samples("train"):
        picture = np.asarray(made.render("train", sample.key)) / 255
        assert picture.shape == (64, 64, 3)
        # below the solid, in a corner beside it, and in its middle
        names = []
        for row, column in ((62, 32), (3, 3), (36, 32)):
            hue, _, _ = colorsys.rgb_to_hsv(*picture[row, column])
            names.append(COLOURS[round(hue * 10) % 10])
        floor, wall, thing = names
        words = sample.concept.split()
        assert words[1] in SHAPES
        assert sample.concept == f"{thing} {words[1]} on a {floor} floor with a {wall} wall"


def test_solids_are_where_their_equations_say() -> None:
    """Against marching along each ray in small steps until a point lies inside."""
    rng = np.random.default_rng(0)
    eye = np.array([0.8, 1.4, 2.5])
    targets = rng.uniform([-0.6, -0.1, -0.6], [0.6, 1.4, 0.6], (120, 3))
    directions = targets - eye
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rays = Rays(np.broadcast_to(eye, directions.shape), directions)
    steps = np.arange(0, 5, 0.002)
    points = eye + steps[:, None, None] * directions  # (steps, rays, 3)
    x, y, z = np.moveaxis(points, -1, 0)
    flat = np.hypot(x, z)
    size = 0.6

    def within(radius: float, low: float, high: float) -> np.ndarray:
        return (
            np.sqrt(flat**2 + np.clip(y - high, 0, None) ** 2 + np.clip(low - y, 0, None) ** 2)
            <= radius
        )

    inside = {
        "sphere": within(0.6, 0.6, 0.6),
        "cube": (np.abs(x) <= 0.51) & (np.abs(z) <= 0.51) & (y >= 0) & (y <= 1.02),
        "cylinder": (flat <= 0.48) & (y >= 0) & (y <= 1.08),
        "pill": within(0.33, 0.33, 1.26 - 0.33),
    }
    assert set(inside) == set(SHAPES)
    for shape, is_inside in inside.items():
        hits = intersect(shape, size, rays)
        met = is_inside.any(axis=0)
        marched = np.where(met, steps[is_inside.argmax(axis=0)], np.inf)
        both = met & np.isfinite(hits.distance)
        assert 20 < met.sum() < 120
        assert (met != np.isfinite(hits.distance)).sum() <= 3  # rays that touch an edge
        assert np.abs(marched[both] - hits.distance[both]).max() < 0.0021
        assert np.linalg.norm(hits.normal[both], axis=1) == pytest.approx(1)
        assert ((hits.normal * directions).sum(axis=1)[both] < 0).all()  # they face the eye


def test_what_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(InputError, match=r"480,000 pictures, .* ask for 525,000"):
        generator("shapes3d", samples=500_000)
    made = generator("dsprites", samples=5, test_samples=5)
    key = made.samples("test")[0].key
    for split, wrong in (("train", key), ("train", "train/1"), ("test", "test/x"), ("test", "")):
        with pytest.raises(DataError, match=f"no {split} sample"):
            made.render(split, wrong)
    with pytest.raises(InputError, match="no split 'tset'"):
        made.samples("tset")

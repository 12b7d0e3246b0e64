"""Corruptions: what each does to pictures whose outcome is known, and where its noise comes from.

With the same random numbers, the package imagecorruptions gives the same images; docs/log.md says
how this was seen.
"""

from typing import get_args

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label
from skimage.data import astronaut

from fomo_dagster.errors import InputError
from fomo_dagster.evaluation.corruptions import (
    KINDS,
    corrupted,
    opened,
    photographs_of,
    random_of,
)
from fomo_dagster.evaluation.spatter import distances, edges, equalised
from fomo_dagster.experiment.evaluation import COMMON_CORRUPTIONS, Corruption, Corruptions

PHOTOGRAPH = Image.fromarray(astronaut()).resize((64, 64))
FROST = [Image.fromarray(astronaut()).resize((90, 80)).rotate(turn) for turn in (0, 90)]
GREY = Image.new("RGB", (64, 64), (128, 128, 128))
KEEP_FLAT = {
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "elastic_transform",
    "pixelate", "jpeg_compression", "gaussian_blur",
}  # fmt: skip


def levels(image, kind, severity=1, key="a"):
    random = random_of(0, kind, severity, key)
    return np.asarray(corrupted(image, kind, severity, random, FROST), float)


def test_every_kind_that_can_be_declared_is_there():
    assert tuple(KINDS) == get_args(Corruption)
    assert Corruptions().kinds == COMMON_CORRUPTIONS
    others = {"speckle_noise", "gaussian_blur", "saturate", "frost", "spatter"}
    assert set(COMMON_CORRUPTIONS) == set(KINDS) - others


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_changed_by_its_own_seed_alone(kind):
    once, again = (levels(PHOTOGRAPH, kind, 3) for _ in range(2))
    assert once.shape == (64, 64, 3)
    assert np.array_equal(once, again)
    original = np.asarray(PHOTOGRAPH, float)
    assert np.abs(once - original).mean() > 1
    is_random = not np.array_equal(once, levels(PHOTOGRAPH, kind, 3, key="b"))
    assert is_random == (
        "noise" in kind
        or kind in {"glass_blur", "motion_blur", "snow", "fog", "elastic_transform", "frost"}
        or kind == "spatter"
    )
    if kind != "saturate":  # whose first severities take colour away
        distances = [np.abs(levels(PHOTOGRAPH, kind, s) - original).mean() for s in (1, 5)]
        assert distances[0] < distances[1]


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_size_keep_it(kind):
    small = PHOTOGRAPH.resize((16, 20))
    assert corrupted(small, kind, 5, random_of(0, kind, 5, "a"), FROST).size == (16, 20)
    wide = PHOTOGRAPH.resize((300, 90))
    assert corrupted(wide, kind, 5, random_of(0, kind, 5, "a"), FROST).size == (300, 90)


@pytest.mark.parametrize("kind", sorted(KEEP_FLAT))
def test_what_mixes_pixels_changes_nothing_where_all_are_alike(kind):
    assert np.abs(levels(GREY, kind, 4) - 128).max() <= 1


def test_noise_has_the_moments_that_were_published():
    grey = 128 / 255
    assert levels(GREY, "gaussian_noise").std() / 255 == pytest.approx(0.08, rel=0.03)
    assert levels(GREY, "speckle_noise").std() / 255 == pytest.approx(0.15 * grey, rel=0.03)
    assert levels(GREY, "shot_noise").std() / 255 == pytest.approx((grey / 60) ** 0.5, rel=0.03)
    hit = levels(GREY, "impulse_noise", 5)
    assert (hit != 128).mean() == pytest.approx(0.27, rel=0.05)
    assert set(np.unique(hit)) == {0, 128, 255}


def test_frost_adds_a_part_of_a_photograph_as_the_released_code_weighs_it():
    flat = [Image.new("RGB", (70, 100), (100, 50, 200))]
    for severity, (kept, added) in enumerate([(1, 0.4), (0.8, 0.6), (0.7, 0.7)], start=1):
        found = corrupted(GREY, "frost", severity, random_of(0, "frost", severity, "a"), flat)
        expected = np.minimum(255, kept * 128 + added * np.array([100, 50, 200]))
        assert np.asarray(found, float)[5, 7] == pytest.approx(expected, abs=1.01)
    rows = np.arange(70 * 100).reshape(100, 70) % 251
    photograph = Image.fromarray(np.stack([rows] * 3, axis=-1).astype(np.uint8))
    black = Image.new("RGB", (64, 64))
    frost = corrupted(black, "frost", 3, random_of(0, "frost", 3, "a"), [photograph])
    part = np.asarray(frost)[..., 0]
    places = [
        (top, left) for top in range(37) for left in range(7)
        if np.abs(0.7 * rows[top : top + 64, left : left + 64] - part).max() < 1.01
    ]  # fmt: skip
    assert len(places) == 1


def test_photographs_of_frost_are_there_and_are_pictures(tmp_path):
    with pytest.raises(InputError, match=r"no photographs of frost in .*frost_pictures"):
        photographs_of(tmp_path / "missing")
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("frost")
    (path,) = photographs_of(tmp_path)
    with pytest.raises(InputError, match=r"a\.png cannot be read as a picture"):
        opened([path])
    for given in ({"kinds": ["frost"]}, {"frost_pictures": "there"}):
        with pytest.raises(ValueError, match="give both, or neither"):
            Corruptions(**given)


def test_spatter_covers_with_mud_or_adds_water():
    found = levels(GREY, "spatter", 4)
    stained = (found != 128).any(axis=-1)
    assert 0.05 < stained.mean() < 0.6
    # At least 0.8 of what covers them is mud.
    assert (np.abs(found[stained] - [63, 42, 20]) <= 0.2 * np.abs([65, 86, 108]) + 1).all()
    added = levels(GREY, "spatter", 1) - 128
    assert added.max() == pytest.approx(127, abs=1)  # 0.6 of its green, cut to white
    assert (added >= -1).all()
    inside = (added[..., 1] > 5) & (added[..., 1] < 120)
    ratio = added[..., 0][inside] / added[..., 1][inside]
    assert np.abs(ratio - 175 / 238).max() < 0.25  # to whole levels


def test_edges_surround_what_is_lighter():
    levels = np.zeros((20, 24), dtype=np.int64)
    assert not edges(levels).any()
    levels[5:14, 6:18] = 200
    found = edges(levels)
    inner, outer = np.zeros_like(found), np.zeros_like(found)
    inner[7:12, 8:16], outer[4:15, 5:19] = True, True
    assert not (found & inner).any()
    assert not (found & ~outer).any()
    pieces, number = label(~found)
    assert (number, pieces[0, 0] != pieces[9, 11]) == (2, True)  # it is closed
    weak = np.where(levels > 0, 8, 0)  # a gradient of 32, at corners of 48
    assert not edges(weak).any()
    beside = np.where(np.arange(24) < 12, levels, 20 * (levels > 0))
    assert edges(beside)[:, 14:].any()  # weak by itself, and hangs together with a strong one
    assert not edges(20 * (levels > 0)).any()


def test_distances_are_lengths_of_the_shortest_way_by_the_steps_of_a_mask():
    places = np.zeros((30, 40), dtype=bool)
    places[3, 5] = places[20, 30] = True

    def way(rows, columns):
        short, long = sorted((abs(rows), abs(columns)))
        if long >= 2 * short:  # knight's steps, and straight on
            return 2.1969 * short + long - 2 * short
        return 2.1969 * (long - short) + 1.4 * (2 * short - long)

    found = distances(places)
    for row, column in ((3, 5), (3, 9), (8, 10), (9, 8), (12, 20), (29, 39)):
        ways = [way(row - r, column - c) for r, c in zip(*np.nonzero(places), strict=True)]
        assert found[row, column] == pytest.approx(min(20, *ways))
    assert (distances(np.zeros((4, 5), dtype=bool)) == 20).all()


def test_equalised_levels_are_shares_of_pixels_that_are_no_lighter():
    levels = np.random.default_rng(0).integers(40, 90, (30, 30))
    found, lowest = equalised(levels), levels.min()
    others = (levels > lowest).sum()
    for level in np.unique(levels):
        share = ((levels > lowest) & (levels <= level)).sum() / others
        assert (found[levels == level] == round(255 * share)).all()
    assert (equalised(np.full((3, 3), 7)) == 7).all()


def test_contrast_and_brightness_are_their_formulas():
    original = np.asarray(PHOTOGRAPH, float)
    means = original.mean(axis=(0, 1))
    assert np.abs(levels(PHOTOGRAPH, "contrast") - (0.4 * (original - means) + means)).max() < 1.01
    dark = Image.new("RGB", (8, 8), (60, 30, 0))
    assert levels(dark, "brightness", 2)[0, 0] == pytest.approx([111, 55.5, 0], abs=1.01)


def test_blurs_spread_a_point_as_far_as_their_radius():
    point = np.zeros((64, 64, 3), np.uint8)
    point[32, 32] = 255
    spread = levels(Image.fromarray(point), "defocus_blur")[..., 0] > 0
    rows, columns = np.nonzero(spread)
    assert set(zip(rows - 32, columns - 32, strict=True)) >= {(0, 3), (3, 0), (-2, 2), (0, 0)}
    assert max(abs(rows - 32)) <= 4
    streak = np.argwhere(levels(Image.fromarray(point), "motion_blur")[..., 0] > 0) - 32
    assert (streak[:, 1] <= 0).all()  # to one side, at most 45 degrees from level
    assert (abs(streak[:, 0]) <= abs(streak[:, 1]) + 1).all()


def test_severities_and_kinds_stand_in_their_order():
    asked = Corruptions(kinds=["fog", "shot_noise"], severities=[5, 1, 5])
    assert asked.kinds == ("shot_noise", "fog")
    assert asked.severities == (1, 5)

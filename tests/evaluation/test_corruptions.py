"""Corruptions: what each does to pictures whose outcome is known, and where its noise comes from.

With the same random numbers, the package imagecorruptions gives the same images; docs/log.md says
how this was seen.
"""

from typing import get_args

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from fomo_dagster.evaluation.corruptions import KINDS, corrupted, random_of
from fomo_dagster.experiment.evaluation import COMMON_CORRUPTIONS, Corruption, Corruptions

PHOTOGRAPH = Image.fromarray(astronaut()).resize((64, 64))
GREY = Image.new("RGB", (64, 64), (128, 128, 128))
KEEP_FLAT = {
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "contrast", "elastic_transform",
    "pixelate", "jpeg_compression", "gaussian_blur",
}  # fmt: skip


def levels(image, kind, severity=1, key="a"):
    return np.asarray(corrupted(image, kind, severity, random_of(0, kind, severity, key)), float)


def test_every_kind_that_can_be_declared_is_there():
    assert tuple(KINDS) == get_args(Corruption)
    assert Corruptions().kinds == COMMON_CORRUPTIONS
    assert not {"speckle_noise", "gaussian_blur", "saturate"} & set(COMMON_CORRUPTIONS)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_changed_by_its_own_seed_alone(kind):
    once, again = (levels(PHOTOGRAPH, kind, 3) for _ in range(2))
    assert once.shape == (64, 64, 3)
    assert np.array_equal(once, again)
    original = np.asarray(PHOTOGRAPH, float)
    assert np.abs(once - original).mean() > 1
    is_random = not np.array_equal(once, levels(PHOTOGRAPH, kind, 3, key="b"))
    assert is_random == (
        "noise" in kind or kind in {"glass_blur", "motion_blur", "snow", "fog", "elastic_transform"}
    )
    if kind != "saturate":  # whose first severities take colour away
        distances = [np.abs(levels(PHOTOGRAPH, kind, s) - original).mean() for s in (1, 5)]
        assert distances[0] < distances[1]


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_size_keep_it(kind):
    small = PHOTOGRAPH.resize((16, 20))
    assert corrupted(small, kind, 5, random_of(0, kind, 5, "a")).size == (16, 20)


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

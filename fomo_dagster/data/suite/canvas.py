"""Painting by supersampling: draw four times as large, then average down; and the named colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SCALE = 4  # canvas pixels per image pixel and side
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (215, 35, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 215, 45),
    "green": (45, 160, 60),
    "cyan": (40, 200, 210),
    "blue": (40, 80, 205),
    "purple": (130, 50, 160),
    "pink": (245, 130, 180),
    "white": (245, 245, 245),
    "grey": (128, 128, 128),
    "black": (20, 20, 20),
    "brown": (120, 75, 40),
}
BRIGHT = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
INKS = ("black", "blue", "purple", "brown", "red", "green")
PAPERS = ("white", "white", "yellow", "pink", "cyan")  # white as often as it is with paper


class Canvas:
    """A square picture in the making; coordinates run from 0 to 1, right and down."""

    def __init__(self, size: int, background: Colour | Image.Image) -> None:
        self.size = size
        self.side = size * SCALE
        if isinstance(background, Image.Image):
            self.image = background.convert("RGB").resize((self.side, self.side))
        else:
            self.image = Image.new("RGB", (self.side, self.side), background)
        self.pen = ImageDraw.Draw(self.image)

    def polygon(self, points: np.ndarray | Sequence[tuple[float, float]], fill: Colour) -> None:
        """`points`: (N, 2)."""
        self.pen.polygon([(float(x) * self.side, float(y) * self.side) for x, y in points], fill)

    def ellipse(
        self,
        x: float,
        y: float,
        radius_x: float,
        radius_y: float,
        fill: Colour,
    ) -> None:
        self.pen.ellipse(
            [
                (x - radius_x) * self.side,
                (y - radius_y) * self.side,
                (x + radius_x) * self.side,
                (y + radius_y) * self.side,
            ],
            fill,
        )

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.pen.rectangle(
            [left * self.side, top * self.side, right * self.side, bottom * self.side], fill
        )

    def line(self, points: Sequence[tuple[float, float]], width: float, fill: Colour) -> None:
        self.pen.line(
            [(x * self.side, y * self.side) for x, y in points],
            fill,
            max(1, round(width * self.side)),
            joint="curve",
        )

    def finish(self, rng: np.random.Generator | None = None, noise: float = 0.0) -> Image.Image:
        """The picture at its own size, with Gaussian noise of `noise` grey levels where given."""
        image = self.image.reduce(SCALE)
        if rng is None or noise == 0:
            return image
        pixels = np.asarray(image, dtype=np.float32)
        return to_image(pixels + rng.normal(0, noise, pixels.shape).astype(np.float32))


def to_image(pixels: np.ndarray) -> Image.Image:
    """`pixels` (H, W, 3), clipped to 0..255 and rounded, as an RGB image."""
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def vary(rng: np.random.Generator, colour: Colour, spread: float = 12) -> Colour:
    """A colour near `colour`: each channel moved by up to `spread`."""
    red, green, blue = (
        int(np.clip(channel + shift, 0, 255))
        for channel, shift in zip(colour, rng.uniform(-spread, spread, 3), strict=True)
    )
    return red, green, blue


def ink_and_paper(rng: np.random.Generator) -> tuple[str, str]:
    """The names of a dark colour and of a light one."""
    return INKS[int(rng.integers(len(INKS)))], PAPERS[int(rng.integers(len(PAPERS)))]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of `second` in `first`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def turned(points: np.ndarray, angle: float, scale: float, x: float, y: float) -> np.ndarray:
    """`points` (N, 2) turned by `angle` radians, scaled, and moved to (x, y)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    moved: np.ndarray = points @ rotation * scale + np.array([x, y])
    return moved

"""Letters and signs in the fonts that matplotlib ships (DejaVu, STIX, Computer Modern).

Some faces are held out: the test split shows each concept in faces that training never showed.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fomo_dagster.data.suite.canvas import COLOURS, SCALE, Canvas, Colour, ink_and_paper, vary
from fomo_dagster.data.suite.drawn import Drawing, DrawnGenerator, DrawnParameters, choose, some

LETTERS = {f"letter {chr(code)}": chr(code).upper() for code in range(ord("a"), ord("z") + 1)}
GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "lambda": "λ",
    "mu": "μ", "xi": "ξ", "pi": "π", "sigma": "σ", "phi": "φ", "psi": "ψ", "omega": "ω",
    "infinity": "∞", "integral": "∫", "square root": "√",
}  # fmt: skip
PICTOGRAMS = {
    "telephone": "☎", "umbrella": "☂", "snowman": "☃", "anchor": "⚓", "scissors": "✂",
    "aeroplane": "✈", "envelope": "✉", "skull": "☠", "sun": "☀", "cloud": "☁",
    "chess knight": "♞", "chess rook": "♜", "musical note": "♪", "flower": "✿", "snowflake": "❄",
    "yin and yang": "☯", "spade": "♠", "club": "♣", "pencil": "✏",
}  # fmt: skip

# Face -> what a caption calls it.
DEJAVU = {
    "DejaVuSans": "sans-serif",
    "DejaVuSans-Bold": "bold sans-serif",
    "DejaVuSans-Oblique": "slanted sans-serif",
    "DejaVuSansMono": "monospaced",
    "DejaVuSansMono-Bold": "bold monospaced",
    "DejaVuSerif": "serif",
    "DejaVuSerif-Bold": "bold serif",
    "DejaVuSerif-Italic": "italic serif",
}
STIX = {
    "STIXGeneral": "book",
    "STIXGeneralBol": "bold book",
}
COMPUTER_MODERN = {
    "cmr10": "typewritten serif",
    "cmb10": "heavy serif",
    "cmss10": "plain",
    "cmtt10": "typewriter",
}


class Alphabet(NamedTuple):
    """Concepts with their characters, and what a caption says of them."""

    characters: dict[str, str]  # by concept
    faces: dict[str, str]
    phrase: str


ALPHABETS = {
    "letters": Alphabet(LETTERS, DEJAVU | STIX | COMPUTER_MODERN, "the {}"),
    "greek": Alphabet(GREEK, DEJAVU | STIX, "the symbol {}"),
    "pictograms": Alphabet(
        PICTOGRAMS,
        {face: style for face, style in DEJAVU.items() if "Serif" not in face},
        "the {} pictogram",
    ),
}
HELD_OUT = ("DejaVuSansMono", "DejaVuSerif-Bold", "STIXGeneral", "cmss10")


class GlyphsParameters(DrawnParameters):
    """What glyphs take besides: whose letters."""

    alphabet: Literal["letters", "greek", "pictograms"] = "letters"


class Glyphs(DrawnGenerator):
    """Concept: the letter or sign; the caption may tell the style of the face and the colours."""

    name = "glyphs"
    Parameters = GlyphsParameters

    def known_concepts(self) -> tuple[str, ...]:
        return tuple(self._alphabet().characters)

    def draw(self, split: str, concept: str, number: int, rng: np.random.Generator) -> Drawing:
        characters, faces, phrase = self._alphabet()
        it = phrase.format(concept)
        shown = tuple(face for face in faces if (face in HELD_OUT) == (split == "test"))
        face = choose(rng, shown)
        ink, paper = ink_and_paper(rng)
        captions = some(
            rng,
            (
                it,
                f"{it} in a {faces[face]} font",
                f"{it} in {ink} on {paper}",
                f"{it} in print",
                f"a picture of {it}",
            ),
        )
        colours = vary(rng, COLOURS[ink]), vary(rng, COLOURS[paper])
        return Drawing(captions, partial(self._paint, characters[concept], face, colours, rng))

    def _alphabet(self) -> Alphabet:
        assert isinstance(self.parameters, GlyphsParameters)
        return ALPHABETS[self.parameters.alphabet]

    def _paint(
        self, character: str, face: str, colours: tuple[Colour, Colour], rng: np.random.Generator
    ) -> Image.Image:
        size = self.parameters.size
        side = size * SCALE
        font = font_of(face, side)
        mask = Image.new("L", (side, side))
        left, top, right, bottom = font.getbbox(character)
        ink = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
        ImageDraw.Draw(ink).text((-left, -top), character, 255, font)
        ink = ink.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BILINEAR, expand=True)
        share = float(rng.uniform(0.68, 0.88)) * side / max(ink.size)
        ink = ink.resize((max(1, round(ink.width * share)), max(1, round(ink.height * share))))
        room = side - ink.width, side - ink.height
        corner = (int(rng.integers(room[0] + 1)), int(rng.integers(room[1] + 1)))
        # Half way to the middle: a glyph is seldom in a corner.
        mask.paste(ink, ((2 * corner[0] + room[0]) // 4, (2 * corner[1] + room[1]) // 4))
        canvas = Canvas(size, colours[1])
        canvas.image.paste(colours[0], (0, 0), mask)
        return canvas.finish(rng, noise=5)


@cache
def font_of(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    """A face that matplotlib ships, at a height in pixels."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    # Basic layout: the same glyph positions whether or not Raqm is installed.
    return ImageFont.truetype(folder / f"{face}.ttf", pixels, layout_engine=ImageFont.Layout.BASIC)

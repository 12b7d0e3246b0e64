import io
import warnings

import numpy as np
import pytest
from PIL import Image

from fomo_dagster.errors import InputError
from fomo_dagster.plots.contact_sheet import COLUMNS, Tile, contact_sheet


def picture(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def colours(count: int) -> list[tuple[int, int, int]]:
    return [(250 - 20 * i, 30 * (i % 7) + 20, 20 * i + 5) for i in range(count)]


def where(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[float, float]:
    """The centre (x, y) of the pixels of that colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(-1))
    assert len(rows) > 1000, f"{colour} is not on the sheet"
    return float(columns.mean()), float(rows.mean())


def test_every_image_is_on_the_sheet_row_by_row_from_left_to_right() -> None:
    shades = colours(COLUMNS + 3)
    tiles = [Tile(Image.new("RGB", (64, 64), shade), f"concept {shade}") for shade in shades]
    sheet = picture(contact_sheet(tiles, "a title"))

    centres = [where(sheet, shade) for shade in shades]
    above, below = centres[:COLUMNS], centres[COLUMNS:]
    assert above == sorted(above)
    assert below == sorted(below)
    assert max(y for _, y in above) < min(y for _, y in below)
    assert [x for x, _ in below] == pytest.approx([x for x, _ in above[:3]], abs=1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "L", "LA", "1"])
def test_images_of_every_mode_keep_their_colour(mode: str) -> None:
    white = Image.new("RGB", (40, 40), "white").convert(mode)
    black = Image.new("RGB", (40, 40), "black").convert(mode)
    sheet = picture(contact_sheet([Tile(white, ""), Tile(black, "")]))
    where(sheet, (0, 0, 0))
    assert np.asarray(sheet)[:, : sheet.width // 2].min() == 255


def test_sixteen_bit_images_are_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.full((40, 40), 128 * 256, np.uint16))
    where(picture(contact_sheet([Tile(grey, "")])), (128, 128, 128))


def test_captions_are_drawn_as_text_whatever_they_hold() -> None:
    def sheet(text: str) -> bytes:
        return contact_sheet([Tile(Image.new("RGB", (32, 32)), text, text)], text)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = sheet("costs 5 or x")
        for text in ("costs $x^$", r"a $\frac{$ b", "日本語の説明", "tab\tand\nline", "word " * 99):
            assert sheet(text) != plain


def test_a_long_caption_is_cut_and_does_not_widen_the_sheet() -> None:
    image = Image.new("RGB", (32, 32))
    three_lines = picture(contact_sheet([Tile(image, "c", "word " * 12)] * 3))
    endless = picture(contact_sheet([Tile(image, "c", "word " * 500 + "x" * 5000)] * 3))
    assert endless.size == three_lines.size


def test_the_same_tiles_give_the_same_bytes() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8))
    assert contact_sheet([Tile(image, "a", "b")]) == contact_sheet([Tile(image, "a", "b")])


def test_a_large_image_is_left_as_it_was() -> None:
    image = Image.new("RGB", (2000, 1000), "red")
    contact_sheet([Tile(image, "a")])
    assert image.size == (2000, 1000)


def test_no_tile_is_an_error() -> None:
    with pytest.raises(InputError, match="'digits' has no image"):
        contact_sheet([], "digits")

"""From encoded images to pictures: what every mode shows, held against arithmetic on its values."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from fomo_dagster.data.decoding import DEFAULT, Decoding
from fomo_dagster.data.formats import COMMON, LEFT_OUT, extensions, formats, has_image_suffix
from fomo_dagster.data.images import Seen, UnreadableImageError, checked, decoded, glimpsed

RAMP = np.linspace(0, 1, 256)[None].repeat(4, 0)  # (4, 256), from black to white
GREY = np.arange(256, dtype=np.uint8)[None].repeat(4, 0)  # what it should look like
TIFF_TYPES = {2: 1, 3: 2, 4: 4}


def shown(data: bytes, decoding: Decoding = DEFAULT) -> np.ndarray:
    picture = decoded(data, decoding)
    assert picture.mode == "RGB"
    return np.asarray(picture)


def as_grey(values: np.ndarray) -> np.ndarray:
    """(H, W) as the (H, W, 3) of a picture."""
    return values[..., None].repeat(3, -1)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png(rows: list[bytes], width: int, depth: int, colour: int, key: bytes = b"") -> bytes:
    """A PNG by its own rules; colour: 0 grey, 2 RGB. key: the transparent value."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"tRNS", key)] if key else [])]
    chunks += [(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff(
    values: np.ndarray,
    bits: int | None = None,
    *,
    white_is_zero: bool = False,
    data: bytes = b"",
    planes: int = 1,
) -> bytes:
    """A little-endian greyscale TIFF, its values as they are, or as `data` has packed them."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    pixels = data or values.astype(values.dtype.newbyteorder("<")).tobytes()
    height, width = values.shape
    tags = {
        256: width, 257: height, 258: bits or values.dtype.itemsize * 8, 259: 1,
        262: 0 if white_is_zero else 1, 273: 8, 277: 1, 278: height, 279: len(pixels),
        284: planes, 339: kind,
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


def pgm(values: np.ndarray, white: int, kind: bytes = b"P5") -> bytes:
    head = kind + f" {values.shape[1]} {values.shape[0]} {white}\n".encode()
    if kind == b"P2":
        return head + " ".join(map(str, values.ravel())).encode()
    return head + values.astype(">u2" if white > 255 else "u1").tobytes()


def scaled(white: float, dtype: str) -> np.ndarray:
    """The ramp with `white` for its white."""
    return (
        np.round(RAMP * white).astype(dtype) if dtype[0] in "ui" else (RAMP * white).astype(dtype)
    )


def twelve_bits(values: np.ndarray) -> bytes:
    """Two values in three bytes, the upper bits first."""
    first, second = values.ravel()[::2].astype(int), values.ravel()[1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    return packed.astype(np.uint8).tobytes()


DEEP = {
    "16-bit PNG": png([row.tobytes() for row in scaled(65535, ">u2")], 256, 16, 0),
    "16-bit PGM": pgm(scaled(65535, "u2"), 65535),
    "10-bit PGM": pgm(scaled(1023, "u2"), 1023),
    "16-bit plain PGM": pgm(scaled(65535, "u2"), 65535, b"P2"),
    "16-bit TIFF": tiff(scaled(65535, "u2")),
    "16-bit TIFF, white is 0": tiff(65535 - scaled(65535, "u2"), white_is_zero=True),
    "12-bit TIFF": tiff(scaled(4095, "u2"), 12, data=twelve_bits(scaled(4095, "u2"))),
    "signed 16-bit TIFF": tiff(scaled(65535, "i4").astype(int).__sub__(32768).astype("i2")),
    "32-bit TIFF": tiff(scaled(2**32 - 1, "u4")),
    "32-bit TIFF of 16-bit values": tiff(scaled(65535, "u4")),
    "32-bit TIFF of 8-bit values": tiff(scaled(255, "i4")),
    "32-bit TIFF around 0": tiff(scaled(1000, "i4") - 500),
    "32-bit TIFF of labels": tiff(scaled(20, "u4")),
    "float TIFF to 1": tiff(scaled(1, "f4")),
    "float TIFF to 1, white is 0": tiff(1 - scaled(1, "f4"), white_is_zero=True),
    "float TIFF to 255": tiff(scaled(255, "f4")),
    "float TIFF to 65535": tiff(scaled(65535, "f4")),
    "float TIFF of depths": tiff(scaled(9.5, "f4")),
    "float TIFF of tiny numbers": tiff(scaled(1e-6, "f4")),
    "float TIFF of huge numbers": tiff(scaled(1e30, "f4") - np.float32(5e29)),
    "float TIFF around 0": tiff(scaled(2, "f4") - 1),
    "PFM": b"Pf\n256 4\n-1.0\n" + scaled(1, "<f4").tobytes(),
    "signed 8-bit TIFF": tiff((GREY.astype(int) - 128).astype("i1")),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP)
def test_a_ramp_of_any_depth_is_a_ramp(name: str) -> None:
    off = np.abs(shown(DEEP[name]).astype(int) - as_grey(GREY))
    assert off.max() <= (14 if "labels" in name else 1)  # of labels there are but 21


def stored(values: np.ndarray, **options: object) -> bytes:
    """A TIFF by another library, of (H, W) or (H, W, 3)."""
    file = io.BytesIO()
    tifffile.imwrite(
        file, values, photometric="minisblack" if values.ndim == 2 else "rgb", **options
    )
    return file.getvalue()


ORDERS = {
    "signed 16-bit": (scaled(65535, "i4") - 32768).astype("i2"),
    "signed 32-bit": scaled(2**31 - 1, "i4"),
    "float": scaled(1, "f4"),
    "16-bit": scaled(65535, "u2"),
    "16-bit colours": np.dstack([scaled(65535, "u2")] * 3),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_numbers_of_a_tiff_are_read_in_its_byte_order(
    name: str, order: str, compression: str | None
) -> None:
    data = stored(ORDERS[name], byteorder=order, compression=compression)
    np.testing.assert_allclose(shown(data), as_grey(GREY), atol=1)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_of_a_tiff_show_what_interleaved_channels_do(
    dtype: str, order: str, compression: str | None
) -> None:
    planes = (COLOURS.astype(int) * (257 if dtype == "u2" else 1)).astype(dtype).transpose(2, 0, 1)
    data = stored(planes, byteorder=order, compression=compression, planarconfig="separate")
    assert (shown(data) == COLOURS).all()
    mended = dtype == "u2" and compression is None
    assert checked(data, None).seen == Seen(rescaled=mended)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("photometric", ["minisblack", "cielab"])
def test_planes_that_would_be_mixed_up_are_unreadable(
    photometric: str, compression: str | None
) -> None:
    channels, extra = (2, ["unassalpha"]) if photometric == "minisblack" else (3, None)

    def arranged(values: np.ndarray, how: str) -> bytes:
        file = io.BytesIO()
        options = {"photometric": photometric, "extrasamples": extra, "compression": compression}
        tifffile.imwrite(file, values, planarconfig=how, **options)
        return file.getvalue()

    values = COLOURS[..., :channels]
    assert shown(arranged(values, "contig")).shape == COLOURS.shape
    with pytest.raises(UnreadableImageError, match="in planes, which Pillow mixes up"):
        decoded(arranged(values.transpose(2, 0, 1), "separate"))


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_a_single_plane_is_an_image(dtype: str, *, white_is_zero: bool) -> None:
    largest = {"u1": 255, "u2": 65535, "f4": 1}[dtype]
    values = scaled(largest, dtype)
    if white_is_zero:
        values = (largest - values).astype(dtype)
    data = tiff(values, white_is_zero=white_is_zero, planes=2)
    np.testing.assert_allclose(shown(data), as_grey(GREY), atol=1)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("bits", [8, 9, 12, 16])
@pytest.mark.parametrize("codestream", [False, True])
def test_a_deep_jpeg_2000_is_unreadable_where_white_would_be_black(
    mode: str, bits: int, *, codestream: bool
) -> None:
    data = bytearray(encoded(Image.new(mode, (8, 8), "white"), "JPEG2000", no_jp2=codestream))
    channels = data.index(b"\xff\x4f\xff\x51") + 42
    for channel in range(len(mode)):
        data[channels + 3 * channel] = bits - 1
    if bits == 8:
        assert (shown(bytes(data)) == 255).all()
    elif mode != "L" or not codestream:  # else Pillow has 16 bits for it
        with pytest.raises(UnreadableImageError, match=f"JPEG 2000 of {bits} bits a channel"):
            decoded(bytes(data))


def fits(values: np.ndarray, *cards: str) -> bytes:
    """Rows from below, signed and big-endian, as the format has them."""
    height, width = values.shape
    header = [
        "SIMPLE  =                    T", f"BITPIX  = {16:20}", f"NAXIS   = {2:20}",
        f"NAXIS1  = {width:20}", f"NAXIS2  = {height:20}", *cards, "END",
    ]  # fmt: skip
    text = "".join(card.ljust(80) for card in header).ljust(2880).encode()
    return text + values[::-1].astype(">i2").tobytes().ljust(2880, b"\0")


def test_a_fits_of_16_bits_is_signed() -> None:
    camera = fits(scaled(65535, "i4") - 32768, f"BZERO   = {32768:20}")
    np.testing.assert_allclose(shown(camera), as_grey(GREY), atol=1)
    np.testing.assert_allclose(shown(fits(scaled(200, "i4") - 100)), as_grey(GREY), atol=2)


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_a_dark_image_stays_dark_where_its_white_is_a_usual_one(white: float) -> None:
    dark = shown(tiff((RAMP * white * 0.3).astype("f4")))
    np.testing.assert_allclose(dark, as_grey(RAMP * 255 * 0.3), atol=0.5001)


def test_what_is_no_number_is_black_and_an_image_of_nothing_else_unreadable() -> None:
    values = scaled(1, "f4")
    values[0, :3] = np.nan, np.inf, -np.inf
    assert shown(tiff(values))[0, :4, 0].tolist() == [0, 255, 0, 3]
    assert (shown(tiff(values))[1:] == as_grey(GREY[1:])).all()
    with pytest.raises(UnreadableImageError, match="none of its values is a number"):
        decoded(tiff(np.full((2, 2), np.nan, "f4")))


@pytest.mark.parametrize(("value", "level"), [(0.0, 0), (0.5, 128), (1.0, 255), (-3.0, 0)])
def test_a_float_image_of_one_value_is_flat(value: float, level: int) -> None:
    data = tiff(np.full((2, 2), value, "f4"))
    assert (shown(data) == level).all()
    assert checked(data, None).seen == Seen(rescaled=True, flat=True)


COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (6, 8), np.uint8)
ALPHA[0] = 0, 255, 0, 255, 0, 255, 0, 255


def over(colours: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + np.array(background) * (1 - share)


def transparent_images() -> dict[str, tuple[bytes, np.ndarray, np.ndarray]]:
    """Encoded, and the colours and alpha in it."""
    rgba = Image.fromarray(np.dstack([COLOURS, ALPHA]))
    grey = COLOURS[..., 0]
    la = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(ALPHA)])
    palette = Image.fromarray((np.arange(48) % 7).reshape(6, 8).astype(np.uint8), "P")
    palette.putpalette(COLOURS.reshape(-1, 3)[:7].tobytes())
    of_palette = np.asarray(palette.convert("RGB"))
    index = np.asarray(palette)
    steps = np.array([0, 128, 255, 7, 255, 255, 255])
    two_bits = (np.arange(48) % 4).reshape(6, 8)
    four = bytes(
        int(a) << 6 | int(b) << 4 | int(c) << 2 | int(d) for a, b, c, d in two_bits.reshape(-1, 4)
    )
    sixteen = (np.arange(48).reshape(6, 8) * 1000).astype(">u2")
    deep = COLOURS.astype(">u2") * 257
    dark = COLOURS.copy()
    dark[0, 5], dark[1, 1] = 0, (9, 8, 7)
    of_dark = (dark.astype(">u2") * 256).astype(">u2")
    of_dark[0, 5] = 9, 8, 7
    return {
        "RGBA PNG": (encoded(rgba, "PNG"), COLOURS, ALPHA),
        "RGBA WebP": (encoded(rgba, "WEBP", lossless=True, exact=True), COLOURS, ALPHA),
        "RGBA TIFF": (encoded(rgba, "TIFF"), COLOURS, ALPHA),
        "RGBA TGA": (encoded(rgba, "TGA"), COLOURS, ALPHA),
        "RGBA ICO": (encoded(rgba, "ICO", sizes=[(8, 6)], bitmap_format="png"), COLOURS, ALPHA),
        "RGBA JPEG 2000": (encoded(rgba, "JPEG2000", irreversible=False), COLOURS, ALPHA),
        "LA PNG": (encoded(la, "PNG"), as_grey(grey), ALPHA),
        "palette PNG, alphas": (
            encoded(palette, "PNG", transparency=steps.astype(np.uint8).tobytes()),
            of_palette, steps[index],
        ),
        "palette PNG, a key": (
            encoded(palette, "PNG", transparency=3), of_palette, np.where(index == 3, 0, 255)
        ),
        "palette GIF, a key": (
            encoded(palette, "GIF", transparency=3), of_palette, np.where(index == 3, 0, 255)
        ),
        "RGB PNG, a key": (
            encoded(Image.fromarray(COLOURS), "PNG", transparency=tuple(map(int, COLOURS[2, 3]))),
            COLOURS, np.where((COLOURS[2, 3] == COLOURS).all(-1), 0, 255),
        ),
        "2-bit PNG, a key": (
            png([four[i : i + 2] for i in range(0, 12, 2)], 8, 2, 0, b"\0\1"),
            as_grey(two_bits * 85), np.where(two_bits == 1, 0, 255),
        ),
        "16-bit PNG, a key": (
            png([row.tobytes() for row in sixteen], 8, 16, 0, struct.pack(">H", 5000)),
            as_grey(sixteen >> 8), np.where(sixteen == 5000, 0, 255),
        ),
        "16-bit RGB PNG, a key": (
            png([row.tobytes() for row in deep], 8, 16, 2, deep[1, 1].tobytes()),
            COLOURS, np.where((COLOURS[1, 1] == COLOURS).all(-1), 0, 255),
        ),
        "16-bit RGB PNG, a dark key": (
            png([row.tobytes() for row in of_dark], 8, 16, 2, struct.pack(">HHH", 9, 8, 7)),
            dark, np.where(np.arange(48).reshape(6, 8) == 5, 0, 255),
        ),
        "RGB PNG, a key of 16 bits": (
            png(
                [row.tobytes() for row in COLOURS], 8, 8, 2,
                struct.pack(">HHH", *(0xFF00 | int(part) for part in COLOURS[2, 3])),
            ),
            COLOURS, np.where((COLOURS[2, 3] == COLOURS).all(-1), 0, 255),
        ),
        "1-bit PNG, a key": (
            png([b"\xaa"] * 6, 8, 1, 0, b"\0\1"),
            np.zeros((6, 8, 3)), np.tile([0, 255], 24).reshape(6, 8),
        ),
    }  # fmt: skip


TRANSPARENT = transparent_images()


@pytest.mark.parametrize("name", TRANSPARENT)
@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 90)])
def test_transparency_shows_the_background(name: str, background: tuple[int, int, int]) -> None:
    data, colours, alpha = TRANSPARENT[name]
    declared = Decoding("#{:02x}{:02x}{:02x}".format(*background))
    np.testing.assert_allclose(shown(data, declared), over(colours, alpha, background), atol=1.01)
    assert checked(data, None, decoding=declared).seen.transparent


def test_opaque_pixels_are_bit_for_bit_those_without_an_alpha_channel() -> None:
    opaque = Image.fromarray(np.dstack([COLOURS, np.full((6, 8), 255, np.uint8)]))
    data = encoded(opaque, "PNG")
    assert (shown(data, Decoding("#000000")) == COLOURS).all()
    assert checked(data, None).seen == Seen()
    thin = np.dstack([COLOURS, np.where(ALPHA > 128, 255, 0).astype(np.uint8)])
    kept = shown(encoded(Image.fromarray(thin), "PNG"))
    assert (kept[ALPHA > 128] == COLOURS[ALPHA > 128]).all()


def test_a_drawing_on_nothing_is_no_flat_colour() -> None:
    """Its pixels are all black, and only its alpha channel says which are drawn."""
    drawing = Image.new("RGBA", (20, 20))
    drawing.paste((0, 0, 0, 255), (5, 5, 15, 15))
    data = encoded(drawing, "PNG")
    assert sorted(decoded(data).getcolors()) == [(100, (0, 0, 0)), (300, (255, 255, 255))]
    assert checked(data, None).seen == Seen(transparent=True)
    assert checked(data, None, decoding=Decoding("#000000")).seen == Seen(True, flat=True)


@pytest.mark.parametrize("resize", [None, 8])
def test_stored_images_show_what_they_showed_before(resize: int | None) -> None:
    """Resized over the background, so that no hidden colour bleeds into the edges."""
    drawing = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    drawing.paste((0, 0, 255, 255), (0, 0, 20, 40))
    stored, _, seen = checked(encoded(drawing, "PNG"), resize, decoding=Decoding("#00ff00"))
    assert seen.transparent
    picture = shown(stored, Decoding("#00ff00"))
    assert picture[..., 0].max() == 0
    assert picture[0, 0].tolist() == [0, 0, 255]
    assert picture[0, -1].tolist() == [0, 255, 0]


def test_only_pictures_that_rules_or_declarations_change_have_other_digests() -> None:
    black, turned = Decoding("#000000"), Decoding(upright=True)
    for seen in (Seen(), Seen(flat=True)):
        assert {seen.digest("d", one) for one in (DEFAULT, black, turned)} == {"d"}
    digests = [Seen(transparent=True).digest("d", one) for one in (DEFAULT, black, turned)]
    assert len({*digests, "d"}) == 3
    assert digests[0] == digests[2]
    assert Seen(turned=True).digest("d", DEFAULT) == "d"
    assert Seen(turned=True).digest("d", turned) != "d"
    assert Seen(rescaled=True).digest("d", DEFAULT) == Seen(rescaled=True).digest("d", black) != "d"
    assert len({Seen().digest("d", DEFAULT, resize) for resize in (None, 8, 9)}) == 3


CORNERS = np.array(
    [[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 0]], [[9, 9, 9], [250, 0, 250]]],
    np.uint8,
)
UPRIGHT = {
    1: CORNERS, 2: CORNERS[:, ::-1], 3: CORNERS[::-1, ::-1], 4: CORNERS[::-1],
    5: CORNERS.swapaxes(0, 1), 6: CORNERS[::-1].swapaxes(0, 1),
    7: CORNERS[::-1, ::-1].swapaxes(0, 1), 8: CORNERS.swapaxes(0, 1)[::-1],
}  # fmt: skip


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_orientation_tags_are_heeded_where_it_is_declared(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(CORNERS), form, exif=exif, lossless=True)
    assert (shown(data) == CORNERS).all()
    assert (shown(data, Decoding(upright=True)) == UPRIGHT[orientation]).all()
    assert checked(data, None).seen.turned == (orientation != 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_tag_takes_nothing_from_the_image() -> None:
    image = Image.fromarray(CORNERS)
    for exif in (b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0", b"nonsense"):
        data = encoded(image, "PNG", exif=exif)
        assert (shown(data, Decoding(upright=True)) == CORNERS).all()


def test_inks_that_adobe_stores_inverted_and_those_that_others_do_not_are_the_same() -> None:
    cmyk = Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1)).convert("CMYK")
    data = encoded(cmyk, "JPEG", quality=100)  # with Adobe's mark, and inverted as theirs
    assert b"Adobe" in data
    np.testing.assert_allclose(shown(data), np.asarray(cmyk.convert("RGB")), atol=12)


def moving(form: str) -> bytes:
    frames = [Image.new("RGB", (2, 6), (0, 0, shade)) for shade in (50, 100, 150)]
    return encoded(Image.fromarray(CORNERS.repeat(2, 0)), form, save_all=True, append_images=frames)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_the_first_is_shown(form: str) -> None:
    picture = shown(moving(form)).astype(int)
    assert picture.shape == (6, 2, 3)
    assert picture[..., 0].max() > 150  # in the others there is no red


def test_an_image_of_one_pixel_is_a_picture() -> None:
    for form in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        assert shown(encoded(Image.new("RGB", (1, 1), "white"), form)).tolist() == [[[255] * 3]]


FLAT = {
    "PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}, "GIF": {},
    "AVIF": {"quality": 100}, "BMP": {}, "TIFF": {}, "PPM": {}, "JPEG2000": {}, "TGA": {},
}  # fmt: skip


@pytest.mark.parametrize("form", FLAT)
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (700, 500)])
def test_a_glimpse_finds_every_image_of_one_colour(form: str, size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, (90, 160, 30)), form, **FLAT[form])
    assert glimpsed(data).flat
    assert checked(data, None).seen.flat


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_glimpse_takes_no_metadata_for_pixels(form: str) -> None:
    image = Image.new("RGB", (16, 16), (90, 160, 30))
    data = encoded(image, form, icc_profile=bytes(20_000), exif=b"Exif\0\0" + bytes(5000))
    assert glimpsed(data).flat


def test_a_glimpse_sees_what_decoding_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    several = [data for data, *_ in TRANSPARENT.values()] + list(DEEP.values())
    assert [glimpsed(data) for data in several] == [checked(data, None).seen for data in several]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)  # a plain image's header is enough
    for form in ("PNG", "JPEG", "WEBP"):
        assert glimpsed(encoded(noise, form, lossless=True)) == Seen()


def test_every_format_of_pillow_is_read_or_left_out_on_purpose() -> None:
    Image.init()
    assert set(formats()) == set(Image.OPEN) - LEFT_OUT
    assert formats()[: len(COMMON)] == COMMON
    for name in ("avif", "pgm", "jp2", "jfif", "tif", "webp", "apng", "mpo", "tga", "qoi"):
        assert name in extensions()
        assert has_image_suffix(f"a/b.{name.upper()}")
    for name in ("eps", "ps", "wmf", "pdf", "mpg", "h5", "txt", "json", ""):
        assert not has_image_suffix(f"a/b.{name}")


@pytest.mark.parametrize("form", ["GIF", "AVIF", "JPEG2000", "TGA", "QOI", "SGI", "PCX", "PPM"])
def test_an_image_that_ends_early_is_unreadable(form: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
    data = encoded(noise, form)
    decoded(data)
    with pytest.raises(UnreadableImageError):
        decoded(data[: len(data) * 2 // 3])


def test_broken_bytes_pass_for_no_format() -> None:
    rng = np.random.default_rng(0)
    for start in (b"", b"\0" * 18, b"\xff\xd8\xff\xe0", b"\0\0\2", b"\0\0\1\0", b"P6\n", b"BM"):
        with pytest.raises(UnreadableImageError):
            decoded(start + rng.bytes(200))

"""Decodes images: the one place for storing, training, evaluation and plots.

A picture is the first frame in 8-bit RGB, by these rules:

- Transparency shows a background (`Decoding.background`), by default white.
- Integers of up to 16 bits keep their upper 8, by the depth that the file declares.
- 32-bit integers and floating point declare no white. It is the smallest of 1 (floating point
  only), 255 and 65535 that no value exceeds, if the largest is at least a quarter of it, and
  black is 0. Otherwise, or if a value is below 0, the least value is black and the largest
  white. What is not a number is black.
- TIFF and FITS are unpacked as they are stored, also where Pillow alone has it wrong.
- Orientation tags are ignored, as in OpenCLIP's loaders, unless `Decoding.upright`. Pillow heeds
  those of TIFF. Colour profiles are ignored; CMYK and LAB become RGB by Pillow's own formulas.

No image can start a helper program (see `formats.py`). Turning pixels into tensors is not covered
(see `transforms.py`).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from fomo_dagster.data.decoding import DEFAULT, RULES, Decoding
from fomo_dagster.data.formats import formats, stored_extension
from fomo_dagster.store.digests import digest_of

JPEG_QUALITY = 95
MAX_PIXELS = 178_956_970  # Pillow's own limit for an error: 512 MiB in RGB
ADDRESS = re.compile("0x[0-9a-f]+")  # in an error's text; no two runs have the same
WHITES = (1, 255, 65535)  # of which the first is one of floating point alone
WHITE_OVER_LARGEST = 4  # how far an image's largest value may be below its white
OPAQUE = 255
DARK = 15  # the highest level of 255 of a picture that nearly nothing is to be seen in
SINGLE_CHANNEL = ("1", "L", "LA", "La", "I", "F")  # with or without alpha
PLAIN_MODES = ("RGB", "L", "CMYK", "YCbCr")
COMPRESSING = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF")
# More than any image of one colour takes in these: a JPEG of full chroma has 18 bits for 64 pixels.
FLAT_BYTES, FLAT_BYTES_PER_PIXEL = 2000, 0.05
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what an orientation tag asks for
TIFF_BITS, TIFF_COMPRESSION, TIFF_PHOTOMETRIC, TIFF_PLANES = 258, 259, 262, 284
TIFF_SAMPLE_FORMAT = 339
PLAIN_LAYOUTS = ("1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK")  # in Pillow's words
MIXED_UP_PLANES = ("LA", "LAB")
DEEP_LAYOUT = re.compile(r"^([IF];(?:16|32))B")  # big-endian numbers

JPEG_2000_START = b"\xff\x4f\xff\x51"  # of what tells of its channels

# Without libtiff, Pillow shows uncompressed planes of all but the plain layouts wrong.
TiffImagePlugin.READ_LIBTIFF = True

Values = npt.NDArray[Any]

# Metadata is not what is looked for, and too many pixels are an error here.
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning, r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnreadableImageError(Exception):
    """Why an image cannot be stored. This is a fault of the sample, and reported to its owner."""


class Seen(NamedTuple):
    """What decoding found in an image.

    transparent: a pixel that is not opaque. rescaled: values without a declared white, or of a
    depth that Pillow alone would show wrong. turned: an orientation tag. flat: a single colour.
    """

    transparent: bool = False
    rescaled: bool = False
    turned: bool = False
    flat: bool = False

    def digest(self, digest: str, decoding: Decoding, resize: int | None = None) -> str:
        """The digest of the picture, from that of the encoded image. It is the same one if neither
        our rules nor the declaration affect the pixels, so it stays when these change."""
        told: dict[str, Any] = {"image": digest}
        if self.transparent or self.rescaled:
            told["decoder"] = RULES
        if self.transparent:
            told["background"] = decoding.background
        if self.turned and decoding.upright:
            told["upright"] = True
        if resize is not None:
            told["resize"] = resize
        return digest if len(told) == 1 else digest_of(told)


class Checked(NamedTuple):
    """An image to store, encoded, with its extension."""

    data: bytes
    extension: str
    seen: Seen = Seen()


def checked(
    data: bytes,
    resize: int | None,
    max_pixels: int = MAX_PIXELS,
    decoding: Decoding = DEFAULT,
) -> Checked:
    """The image to store: `data` as it is where `resize` is None; else the picture with a short
    side of `resize` pixels (bicubic), JPEG where `data` is JPEG and PNG otherwise.

    Raises `UnreadableImageError` for what is not an image or not a whole one, or has more than
    `max_pixels` pixels before or after resizing (looked up before any is decoded).
    """
    # Pillow warns of odd metadata and of large images; what matters of it is an error here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _opened(data, max_pixels) as image:
            extension = stored_extension(image.format or "")
            size = image.size if resize is None else _resized(image.size, resize)
            _check_pixels(size, max_pixels)
            picture, seen = to_picture(image, decoding)
            seen = seen._replace(flat=_is_flat(picture))
            if resize is None:
                return Checked(data, extension, seen)
            small = picture.resize(_resized(picture.size, resize), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    if extension == "jpg":
        small.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        return Checked(file.getvalue(), "jpg", seen)
    small.save(file, "PNG")
    return Checked(file.getvalue(), "png", seen)


def glimpsed(data: bytes) -> Seen:
    """What there is to see of an image, decoded only where its header does not say that it is plain
    and its size that it is not flat. Raises `UnreadableImageError` as `checked`, for what it read.
    """
    with _opened(data, MAX_PIXELS) as image:
        width, height = image.size
        is_plain = image.mode in PLAIN_MODES and image.format in COMPRESSING
        beside = sum(len(value) for value in image.info.values() if isinstance(value, bytes))
        flat_bytes = FLAT_BYTES + width * height * FLAT_BYTES_PER_PIXEL
        could_be_flat = len(data) - beside < flat_bytes  # colour profiles and the like left out
        if is_plain and not could_be_flat and not image.has_transparency_data:
            return Seen(turned=_orientation(image) in TURNS)
        picture, seen = to_picture(image)
        return seen._replace(flat=_is_flat(picture))


class Measured(NamedTuple):
    """An image's size, whether it has one channel alone, and what was seen of it.

    dark: whether no level is above `DARK`, as of 12 bits stored in 16, or of the numbers of labels.
    """

    width: int
    height: int
    single_channel: bool
    dark: bool
    seen: Seen


def measured(data: bytes, decoding: Decoding = DEFAULT) -> Measured:
    """What there is to know of an image; raises `UnreadableImageError` as `checked`."""
    with _opened(data, MAX_PIXELS) as image:
        (width, height), mode = image.size, image.mode
        picture, seen = to_picture(image, decoding)
        single_channel = mode in SINGLE_CHANNEL or mode.startswith("I;16")
        seen = seen._replace(flat=_is_flat(picture))
        dark = not seen.flat and all(high <= DARK for _, high in _extremes(picture))
        return Measured(width, height, single_channel, dark, seen)


def decoded(data: bytes, decoding: Decoding = DEFAULT, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture (mode RGB) of an encoded image; raises `UnreadableImageError` as `checked`."""
    with _opened(data, max_pixels) as image:
        return to_picture(image, decoding)[0]


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture of an image in any of Pillow's modes, over white."""
    return to_picture(image)[0]


def to_picture(image: Image.Image, decoding: Decoding = DEFAULT) -> tuple[Image.Image, Seen]:
    """`image` by the rules above, in mode RGB, and what was seen of it except for `flat`.

    Raises what decoding raises, which can be nearly anything.
    """
    corrected = _corrected(image)
    _check_jpeg_2000(image)
    raw = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else None
    image.load()
    orientation = _orientation(image)  # after loading: Pillow turns TIFF itself
    shown, rescaled = _eight_bits(image)
    alpha = _alpha_of_key(image, raw)
    if alpha is not None:
        shown = shown.convert("RGB")
        shown.putalpha(alpha)
    elif image.has_transparency_data:
        shown = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha = shown.getchannel("A")
    transparent = alpha is not None and cast(tuple[int, int], alpha.getextrema())[0] < OPAQUE
    if transparent:
        background = Image.new("RGBA", shown.size, decoding.background)
        background.alpha_composite(shown)
        shown = background
    picture = shown if shown.mode == "RGB" else shown.convert("RGB")
    if decoding.upright and orientation in TURNS:
        picture = picture.transpose(TURNS[orientation])
    return picture, Seen(transparent, rescaled or corrected, orientation in TURNS)


def _corrected(image: Image.Image) -> bool:
    """Correct how Pillow is about to unpack a TIFF; whether it alone would show it wrong.

    libtiff brings numbers in the machine's byte order, whatever the file's.
    """
    if image.format != "TIFF" or not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return False
    (tile,) = image.tile  # libtiff's
    layout, *others = cast(tuple[Any, ...], tile.args)
    tags = getattr(image, "tag_v2", {})
    in_planes = tags.get(TIFF_PLANES) == 2
    if in_planes and layout in MIXED_UP_PLANES:
        raise UnreadableImageError(
            f"it is a TIFF of {layout} in planes, which Pillow mixes up: interleave its channels"
        )
    native = DEEP_LAYOUT.sub(r"\1N", layout)
    image.tile = [tile._replace(args=(native, *others))]
    is_compressed = tags.get(TIFF_COMPRESSION, 1) != 1
    return native != layout or (in_planes and not is_compressed and layout not in PLAIN_LAYOUTS)


def _check_jpeg_2000(image: Image.Image) -> None:
    """Refuse more than 8 bits in modes of 8, in which Pillow shows white as black."""
    file = getattr(image, "fp", None)
    if image.format != "JPEG2000" or image.mode == "I;16" or file is None:
        return
    file.seek(0)
    data = file.read()
    start = data.find(JPEG_2000_START) + 40  # up to which sizes and offsets stand
    channels = int.from_bytes(data[start : start + 2], "big")
    depths = data[start + 2 : start + 2 + 3 * channels : 3]  # less 1, and a bit for signed ones
    deepest = max(((depth & 0x7F) + 1 for depth in depths), default=8)
    if deepest > 8:
        raise UnreadableImageError(
            f"it is a JPEG 2000 of {deepest} bits a channel, in which Pillow takes white for "
            "black: store it with 8 bits, or as PNG"
        )


def _is_flat(picture: Image.Image) -> bool:
    """Whether every pixel of a picture has the same colour."""
    return all(low == high for low, high in _extremes(picture))


def _extremes(picture: Image.Image) -> tuple[tuple[int, int], ...]:
    """The least and the greatest level of each channel."""
    return cast(tuple[tuple[int, int], ...], picture.getextrema())


def _eight_bits(image: Image.Image) -> tuple[Image.Image, bool]:
    """`image`, or what it is in mode L where its values are not of 8 bits; and whether its white
    had to be found, or Pillow has it wrong."""
    tags = getattr(image, "tag_v2", {})  # a TIFF's
    is_signed = tags.get(TIFF_SAMPLE_FORMAT, (1,))[0] == 2
    inverted = tags.get(TIFF_PHOTOMETRIC) == 0  # which Pillow heeds for 8 bits alone
    if image.format == "FITS" and image.mode.startswith("I;16"):  # always signed
        return Image.fromarray(_scaled(np.asarray(image).astype(np.int16))), True
    if image.mode.startswith("I;16"):
        bits = max(tags.get(TIFF_BITS, (16,)))
        levels = (np.asarray(image) >> (bits - 8)).clip(max=255).astype(np.uint8)
        return Image.fromarray(255 - levels if inverted else levels), inverted or bits != 16
    if image.mode == "I" and image.format == "PPM":  # Pillow has scaled it to 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)), True
    if image.mode in ("I", "F") or (image.mode == "L" and is_signed):
        values = np.asarray(image)
        if image.mode == "L":
            values, inverted = values.view(np.int8), False
        elif image.mode == "I" and tags and not is_signed:
            values = values.view(np.uint32)
        levels = _scaled(values)
        return Image.fromarray(255 - levels if inverted else levels), True
    return image, False


def _scaled(values: Values) -> npt.NDArray[np.uint8]:
    """Numbers of no declared white as 8 bits; see the rules above."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        raise UnreadableImageError("none of its values is a number")
    low, high = float(finite.min()), float(finite.max())
    whites = WHITES if values.dtype.kind == "f" else WHITES[1:]
    white = next((white for white in whites if high <= white), None)
    if low >= 0 and (high == 0 or (white is not None and white <= WHITE_OVER_LARGEST * high)):
        low, high = 0.0, float(white or 1)
    elif low == high:
        low = min(low, 0.0)
    scaled = values.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled -= low
        scaled *= 255 / (high - low or 1)
    return np.nan_to_num(scaled.round(), nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def _alpha_of_key(image: Image.Image, raw: Any) -> Image.Image | None:
    """The alpha channel of an image in which one colour stands for transparency; None of another.

    Pillow compares 2-, 4- and 16-bit values with a key of the other depth. raw: how the image was
    encoded, in Pillow's words.
    """
    key = image.info.get("transparency")
    if key is None or image.mode not in ("1", "L", "RGB", "I;16", "I;16B"):
        return None
    if image.mode == "RGB":
        key = tuple(part >> 8 if raw == "RGB;16B" else part & 255 for part in key)
    elif image.mode == "L":
        key *= {"L;2": 85, "L;4": 17}.get(raw[0] if isinstance(raw, tuple) else raw, 1)
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    same = values == np.asarray(key)
    if image.mode == "RGB":
        same = same.all(axis=2)
    return Image.fromarray(np.where(same, 0, OPAQUE).astype(np.uint8))


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # a damaged tag says nothing, and takes nothing from the pixels
        return None


@contextmanager
def _opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The image, of which the header alone was read; errors in here are about the image."""
    try:
        with Image.open(io.BytesIO(data), formats=formats()) as image:
            _check_pixels(image.size, max_pixels)
            yield image
    except (MemoryError, UnreadableImageError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImageError("it is not an image of a known format") from error
    except Exception as error:  # decoders raise nearly anything for broken bytes
        message = ADDRESS.sub("0x…", str(error))
        raise UnreadableImageError(f"{type(error).__name__}: {message}") from error


def _resized(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Width and height with the short side at `short`; the other is cut to whole pixels."""
    width, height = size
    if width <= height:
        return short, short * height // width
    return short * width // height, short


def _check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"{width} x {height} pixels are more than {max_pixels}: a decompression bomb?"
        )

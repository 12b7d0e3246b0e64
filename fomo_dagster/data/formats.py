"""Which files are images: by the endings of their names, and by their first bytes.

Everything that Pillow decodes by itself is read. Left out are formats that start a helper program
(PostScript), that only other libraries decode, and that no first bytes identify, since broken bytes
would pass for them. Of these only TGA is read; little in its header can be anything.
"""

from __future__ import annotations

import mimetypes
import os
from functools import cache

from PIL import Image

COMMON = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")  # tried first, in this order
LEFT_OUT = frozenset(
    {
        "EPS", "WMF",  # a program draws them
        "BUFR", "GRIB", "HDF5", "MPEG",  # recognised, and never decoded
        "IM", "IMT", "IPTC", "MCIDAS", "PCD", "SPIDER", "XVTHUMB",  # anything may look like them
    }
)  # fmt: skip
LAST = "TGA"  # its header is told from others' by plausible values alone
ALSO_READ_AS = {"MPO": "JPEG"}  # with more pictures behind the first; cameras write them
TOLD_BY_BYTES = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "JPEG2000")  # whatever their names
FIRST_BYTES = 16  # what Pillow tells formats by


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, in the order in which they are tried."""
    Image.init()
    others = sorted(set(Image.OPEN) - {*COMMON, LAST} - LEFT_OUT)
    return (*COMMON, *others, LAST)


@cache
def extensions() -> tuple[str, ...]:
    """Those of the formats that are read, such as `jpg`, in lower case, the usual ones first."""
    read = formats()
    found = [
        (read.index(ALSO_READ_AS.get(name, name)), suffix.removeprefix("."))
        for suffix, name in Image.registered_extensions().items()
        if ALSO_READ_AS.get(name, name) in read
    ]
    usual = ("jpg", "png", "jpeg", "webp")
    return (*usual, *(extension for _, extension in sorted(found) if extension not in usual))


def stored_extension(name: str) -> str:
    """The extension that a format, by Pillow's name, is stored under."""
    name = ALSO_READ_AS.get(name, name)
    usual = {"JPEG": "jpg", "JPEG2000": "jp2"}.get(name, name.lower())
    registered = Image.registered_extensions()
    if registered.get(f".{usual}") == name:
        return usual
    return min(suffix for suffix, of in registered.items() if of == name).removeprefix(".")


def has_image_suffix(name: str) -> bool:
    """Whether a file's name ends like an image's, in either case."""
    suffix = os.path.splitext(name)[1].lower().removeprefix(".")
    return suffix in ("jpg", "jpeg", "png", "webp") or (bool(suffix) and suffix in extensions())


def is_image(path: str) -> bool:
    """Whether the file's name or, if that says nothing, its first bytes are an image's.

    A name without a known ending says nothing, for example an address turned into a name. False for
    a file that cannot be read.
    """
    if has_image_suffix(path):
        return True
    if mimetypes.guess_type(path)[0] is not None:
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(FIRST_BYTES)
    except (OSError, ValueError):  # a null character in its name is the latter
        return False
    return any(_accepts(name, start) for name in TOLD_BY_BYTES)


def begins_an_image(start: bytes, extension: str) -> bool:
    """Whether the first bytes are those of a format that is read.

    start: `FIRST_BYTES` of it. extension: its own; it decides for a TGA, which no bytes identify.
    """
    if Image.registered_extensions().get(f".{extension}") == LAST:
        return bool(start)
    return any(_accepts(name, start) for name in formats() if name != LAST)


def _accepts(name: str, start: bytes) -> bool:
    formats()
    accept = Image.OPEN[name][1]
    assert accept is not None
    # A text in place of True says why this Pillow cannot read the format.
    return accept(start.ljust(FIRST_BYTES, b"\0")) is True

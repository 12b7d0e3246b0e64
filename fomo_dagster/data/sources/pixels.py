"""Images that are no files: PNG files of them, and digests of what they show."""

from __future__ import annotations

import io

from PIL import Image

from fomo_dagster.store.digests import digest_of_bytes


def as_png(image: Image.Image) -> bytes:
    """The image as a PNG file, lossless."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def pixel_digest(image: Image.Image) -> str:
    """Of the pixels themselves: encoders differ between versions."""
    return digest_of_bytes(f"{image.mode} {image.size} ".encode() + image.tobytes())

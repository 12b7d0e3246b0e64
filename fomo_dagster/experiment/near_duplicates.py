"""The declaration of which pictures count as near duplicates."""

from __future__ import annotations

from pydantic import Field

from fomo_dagster.data.declarations import Declaration

LARGEST_DISTANCE = 16  # bits of 64; beyond it, pictures that have nothing in common are near


class NearDuplicates(Declaration):
    """Near duplicates among what each stage brings, of what earlier stages brought, and of the test
    images that it is evaluated on."""

    distance: int = Field(
        4,
        ge=0,
        le=LARGEST_DISTANCE,
        description="Bits of 64 in which the perceptual hashes of two pictures may differ.",
    )
    mirrored: bool = Field(
        False, description="Whether a picture's mirror image is a near duplicate of it, too."
    )
    similarity: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Cosine of θ₀'s image features from which two pictures are near duplicates, "
        "too; null: their hashes alone count.",
    )
    deduplicate: bool = Field(
        False,
        description="Train on what a stage brings without its near duplicates. Look at them first.",
    )

"""Texts that stand for a whole backbone, architecture and weights: the benchmark's 24 names, and
OpenCLIP's `architecture/tag`.

The names are those of FoMo-in-Flux's code. Weights trained with QuickGELU come with the
architecture that has it. Whether OpenCLIP has what a text names is checked when it is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Named(NamedTuple):
    """An OpenCLIP architecture, and its tag; None if OpenCLIP lists no such weights."""

    architecture: str
    pretrained: str | None


_DATACOMP = "datacomp_xl_s13b_b90k"

BACKBONES: Mapping[str, Named] = {
    "openclip_vit_s16": Named("ViT-S-16", None),
    "openclip_vit_b32": Named("ViT-B-32", "laion2b_s34b_b79k"),
    "openclip_vit_b16": Named("ViT-B-16", "laion2b_s34b_b88k"),
    "openclip_vit_l14": Named("ViT-L-14", "laion2b_s32b_b82k"),
    "openclip_vit_h14": Named("ViT-H-14", "laion2b_s32b_b79k"),
    "openclip_vit_g14": Named("ViT-g-14", "laion2b_s34b_b88k"),
    "openclip_vit_G14": Named("ViT-bigG-14", "laion2b_s39b_b160k"),
    "openclip_vit_b32_datacomp": Named("ViT-B-32", _DATACOMP),
    "openclip_vit_b16_datacomp": Named("ViT-B-16", _DATACOMP),
    "openclip_vit_l14_datacomp": Named("ViT-L-14", _DATACOMP),
    "openclip_convnext_base_w": Named("convnext_base_w", "laion2b_s13b_b82k_augreg"),
    "openclip_convnext_large_d": Named("convnext_large_d", "laion2b_s26b_b102k_augreg"),
    "metaclip_vit_b32": Named("ViT-B-32-quickgelu", "metaclip_fullcc"),
    "metaclip_vit_b16": Named("ViT-B-16-quickgelu", "metaclip_fullcc"),
    "metaclip_vit_l14": Named("ViT-L-14-quickgelu", "metaclip_fullcc"),
    "metaclip_vit_h14": Named("ViT-H-14-quickgelu", "metaclip_fullcc"),
    "dfn_vit_b16": Named("ViT-B-16-quickgelu", "dfn2b"),
    "dfn_vit_l14": Named("ViT-L-14-quickgelu", "dfn2b"),
    "dfn_vit_h14": Named("ViT-H-14-quickgelu", "dfn5b"),
    "clip_rn50": Named("RN50-quickgelu", "openai"),
    "clip_rn101": Named("RN101-quickgelu", "openai"),
    "clip_vit_b32": Named("ViT-B-32-quickgelu", "openai"),
    "clip_vit_b16": Named("ViT-B-16-quickgelu", "openai"),
    "clip_vit_l14": Named("ViT-L-14-quickgelu", "openai"),
}


def whole_backbone(text: Any) -> Named | None:
    """What a text stands for; None for an architecture alone, and for anything but text."""
    if not isinstance(text, str):
        return None
    if text in BACKBONES:
        return BACKBONES[text]
    architecture, _, tag = text.rpartition("/")
    return Named(architecture, tag) if architecture and tag else None


def name_of(text: str) -> str:
    """A name for files and assets, for a text that stands for a backbone."""
    return re.sub(r"[^A-Za-z0-9]+", "_", text)

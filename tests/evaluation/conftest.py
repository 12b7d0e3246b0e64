"""A tiny real model, and real images behind a real index."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from fomo_dagster.data.index import INDEX_FILE, Index
from fomo_dagster.data.samples import INDEX
from fomo_dagster.models.backbones import Model, create
from fomo_dagster.store.digests import digest_of_bytes

TINY = {
    "embed_dim": 16,
    # Half of the patches are dropped in training: what is encoded in that mode is visibly wrong.
    "vision_cfg": {
        "image_size": 24, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16,
        "patch_dropout": 0.5,
    },
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip

Sample = tuple[str, str, list[str], bytes]  # key, concept, captions, encoded image
StoreImages = Callable[[Sequence[Sample]], Index]


@pytest.fixture
def tiny_model() -> Model:
    """With weights so large that different images and texts have quite different features."""
    model = create(TINY, seed=0)
    with torch.no_grad():
        for matrix in (model.module.token_embedding.weight, *model.module.visual.parameters()):
            matrix.mul_(5 if matrix.ndim > 1 else 1)
    return model


@pytest.fixture
def store_images(tmp_path: Path) -> StoreImages:
    """Writes test samples into a folder of shards; equal bytes have equal digests."""

    def store(samples: Sequence[Sample]) -> Index:
        rows = []
        with (tmp_path / "test-000000.tar").open("wb") as shard:
            for key, concept, captions, data in sorted(samples):
                place = ("test-000000.tar", shard.tell(), len(data))
                rows.append(("test", key, concept, captions, digest_of_bytes(data), *place))
                shard.write(data)
        pl.DataFrame(rows, schema=INDEX, orient="row").write_parquet(tmp_path / INDEX_FILE)
        return Index(tmp_path)

    return store


@pytest.fixture
def picture() -> Callable[[int], bytes]:
    """The PNG of a number: a seeded photograph-like image of its own size and colours."""

    def draw(seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        size = int(rng.integers(20, 60)), int(rng.integers(20, 60))
        file = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
        return file.getvalue()

    return draw

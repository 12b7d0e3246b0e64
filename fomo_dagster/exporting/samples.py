"""Real images and texts of a model's evaluation, to hold what is written against the model with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from fomo_dagster.data.transforms import evaluate_transform
from fomo_dagster.evaluation.prompts import class_texts, templates_of
from fomo_dagster.exporting.subject import Evaluated, Subject
from fomo_dagster.models.backbones import Model

MOST = 256  # images, and texts


@dataclass(frozen=True)
class Samples:
    """images: (N, 3, H, W) fp32, as the model takes them. texts: M of them, all different; tokens:
    (M, L) int64, of the model's tokeniser. N and M are at least 1 and at most `MOST`."""

    images: Tensor
    texts: Sequence[str]
    tokens: Tensor


def samples_of(subject: Subject) -> Samples:
    """Test images of all datasets, about as many of each and spread over their order, with a prompt
    or caption of each. The same for the same data.

    The model was evaluated on something. Raises `UnreadableImageError` for an image that cannot be
    decoded.
    """
    model = subject.model
    transform = evaluate_transform(
        model.image_size, model.mean, model.std, model.resize_mode, model.interpolation
    )
    chosen = _shared_out([len(one.evaluation_set.index.rows("test")) for one in subject.evaluated])
    images: list[Tensor] = []
    texts: list[str] = []
    for one, count in zip(subject.evaluated, chosen, strict=True):
        index = one.evaluation_set.index
        rows = _spread(index.rows("test").sort("key"), count)
        for shard, offset, size in rows.select("shard", "offset", "size").iter_rows():
            images.append(transform(index.picture(shard, offset, size)))
        texts += _texts(one, rows, subject)
    texts = list(dict.fromkeys(texts))[:MOST]
    return Samples(torch.stack(images), texts, model.tokenize(texts))


def made_up_samples(model: Model) -> Samples:
    """Images of noise and a text, for a model that was evaluated on nothing."""
    noise = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, model.image_size, model.image_size, generator=noise)
    return Samples(images, ["a photo"], model.tokenize(["a photo"]))


def _shared_out(available: Sequence[int]) -> list[int]:
    """How many samples of each dataset, `MOST` in all where there are as many."""
    counts = [0] * len(available)
    left = min(MOST, sum(available))
    while left:
        for place, there in enumerate(available):
            if left and counts[place] < there:
                counts[place] += 1
                left -= 1
    return counts


def _spread(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    return rows[[place * len(rows) // count for place in range(count)]]


def _texts(one: Evaluated, rows: pl.DataFrame, subject: Subject) -> Iterator[str]:
    dataset = one.evaluation_set.dataset
    if dataset.task == "retrieval":
        yield from (captions[0] for captions in rows["captions"].to_list() if captions)
        return
    template, *_ = templates_of(subject.settings.prompts, dataset.prompt)
    yield from class_texts(rows["concept"].to_list(), [template])

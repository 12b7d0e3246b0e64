"""Features that a stage leaves of its samples, for the replay of later stages.

There is one file per stage, for the samples of its chunk that a later buffer may still hold: N
samples and M different captions take 2 · D · (N + M) bytes and a few for the places. Half precision
is enough for the logits that are made of them (to 0.01 at CLIP's highest temperature). The bias of
the logits is included, if the model has one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.graph.core.files import SAMPLE
from fomo_dagster.graph.work.manifest_features import image_features_of, texts_of

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext


def write_replay_features(
    encoder: Encoder,
    chunk: pl.DataFrame,
    kept: pl.DataFrame,
    path: Path,
    context: NodeContext,
) -> int:
    """Write the model's features of those samples of `chunk` that are in `kept`, both MANIFESTs.

    `rows` (N,): the samples' rows in the chunk. `images` (N, D), fp16: as long as the temperature,
    exp(logit_scale). `texts` (M, D), fp16, L2-normalised: of all different captions. `captions`
    (C,): the row in `texts` of each sample's each caption, those of sample n from `first[n]` on.
    `bias` (): that of the logits, fp32, where the model has one.
    Returns N.
    """
    mine = chunk.with_row_index("row").join(kept, on=SAMPLE, how="semi", maintain_order="left")
    images = image_features_of(encoder, mine, context)
    texts, own = texts_of(mine)
    encoded = encoder.texts(texts) if texts else torch.empty(0, 0)
    module = encoder.model.module
    ends = mine["captions"].list.len().cast(pl.Int64).cum_sum()
    tensors = {
        "rows": mine["row"].cast(pl.Int64).to_torch(),
        "images": (module.logit_scale.detach().exp().cpu() * images).half(),
        "texts": encoded.half(),
        "captions": torch.tensor([row for rows in own for row in rows], dtype=torch.int64),
        "first": (ends - mine["captions"].list.len()).to_torch(),
    }
    bias = getattr(module, "logit_bias", None)
    if bias is not None:
        tensors["bias"] = bias.detach().cpu()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return mine.height


def read_replay_features(
    paths: Sequence[Path], chunks: Sequence[pl.DataFrame], buffer: pl.DataFrame
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """What stages left of their chunks, for rows of the manifest `buffer`; see `StageInputs`."""
    stages = [load_file(path) for path in paths]
    brought = pl.concat(
        chunk[stored["rows"].numpy()]
        .select(*SAMPLE, pl.lit(number).alias("stage"))
        .with_row_index("place")
        for number, (chunk, stored) in enumerate(zip(chunks, stages, strict=True))
    )
    places = buffer.join(brought, on=SAMPLE, how="left", maintain_order="left")
    where = places.select(pl.col("stage", "place").cast(pl.Int64)).to_torch()  # (rows, 2)

    biases = torch.tensor([float(stored.get("bias", 0.0)) for stored in stages])  # (stages,)

    def features(drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images, texts = [], []
        for row, caption in drawn.tolist():
            number, place = where[row].tolist()
            stored = stages[number]
            images.append(stored["images"][place])
            texts.append(stored["texts"][stored["captions"][stored["first"][place] + caption]])
        of_rows = biases[where[drawn[:, 0], 0]]
        return torch.stack(images).float(), torch.stack(texts).float(), of_rows

    return features

"""Text embeddings of a checkpoint, kept in the store: a set of texts is encoded only once.

They are an artifact without an asset of its own, so that evaluations and orders of one checkpoint
share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.graph.core.context import NodeContext

EMBEDDINGS = "embeddings.safetensors"


def text_embeddings(
    texts: tuple[str, ...],
    each: int,
    *,
    checkpoint: Artifact,
    precision: str,
    encoder: Callable[[], Encoder],
    context: NodeContext,
) -> tuple[Tensor, Mapping[str, int]]:
    """`mean_embeddings` of the texts, `each` of which in a row share one: (N / each, D), fp32.

    `encoder` gives that of the model with the checkpoint's weights, in this precision; it is called
    only where the store does not have the embeddings. What it cost comes with them: `flops`, or
    nothing if they were there or the operations cannot be counted.
    """
    from safetensors.torch import load_file, save_file

    from fomo_dagster.evaluation.prompts import mean_embeddings

    spent: dict[str, int] = {}

    def make(folder: Path) -> Mapping[str, int]:
        encodes = encoder()
        features = encodes.texts(texts)
        save_file({"embeddings": mean_embeddings(features, each).contiguous()}, folder / EMBEDDINGS)
        count = len(set(texts))
        spent.update(encoding_flops(encodes.model.architecture, context.home.cache, texts=count))
        return spent

    recipe = Recipe(
        "text_embeddings",
        1,
        {"precision": precision, "each": each},
        {"checkpoint": checkpoint.digest, "texts": digest_of(texts)},
    )
    artifact = context.get_or_make(recipe, make)
    return load_file(artifact.path(EMBEDDINGS))["embeddings"], spent

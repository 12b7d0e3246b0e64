"""Zero-shot classifiers from prompts: which templates, which texts, and one embedding per class.

`evaluation/encoding.py` encodes the texts, so this module loads no PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fomo_dagster.experiment.evaluation import Prompts, Waffle

if TYPE_CHECKING:
    from torch import Tensor

PLACE = "{}"  # where the concept goes in a template

TextEmbeddings = Callable[[tuple[str, ...], int], "Tensor"]
"""Texts, and how many of them in a row share an embedding (K), to `mean_embeddings` of their
features: (N/K, D), fp32, on the CPU. Whoever provides it may keep what it gave."""


def templates_of(prompts: Prompts, own_prompt: str) -> tuple[str, ...]:
    """The templates that an evaluation's `prompts` setting means for a dataset.

    `dataset` is the dataset's own prompt; `openai` and `simple` are OpenCLIP's sets of 80 and 7
    ImageNet templates (Radford et al. 2021, arXiv 2103.00020); `Waffle` is WaffleCLIP's; a tuple
    stands for itself.
    """
    if isinstance(prompts, Waffle):
        from fomo_dagster.evaluation.waffle import waffle_templates

        waffle = prompts.waffle
        return waffle_templates(own_prompt, waffle.pairs, waffle.words, waffle.seed)
    if not isinstance(prompts, str):
        return prompts
    if prompts == "dataset":
        return (own_prompt,)
    # Only here, because it loads PyTorch with it.
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    sets = {"openai": OPENAI_IMAGENET_TEMPLATES, "simple": SIMPLE_IMAGENET_TEMPLATES}
    return tuple(template(PLACE) for template in sets[prompts])


def class_texts(class_names: Sequence[str], templates: Sequence[str]) -> tuple[str, ...]:
    """Every class in every template: C·K texts, all K of the first class first."""
    # Not str.format: other braces in a template, such as a LaTeX formula's, are text.
    return tuple(template.replace(PLACE, name) for name in class_names for template in templates)


def mean_embeddings(features: Tensor, each: int) -> Tensor:
    """features: (N·K, D), L2-normalised; each run of K = `each` makes one embedding. Returns (N,
    D).

    An embedding is the mean of its K features, normalised again, as in
    `open_clip.build_zero_shot_classifier`. With K = 1 it is the feature itself.
    """
    if each == 1:
        return features
    means = features.reshape(-1, each, features.shape[1]).mean(dim=1)  # (N, D)
    embeddings: Tensor = means / means.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return embeddings

"""Evaluates one checkpoint on one dataset's test split: each image and each text is encoded
once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl
from torch import Tensor

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.index import Index
from fomo_dagster.evaluation.classification import classification_result
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.evaluation.prompts import TextEmbeddings, class_texts, templates_of
from fomo_dagster.evaluation.results import EvaluationResult
from fomo_dagster.evaluation.retrieval import images_of, retrieval_result
from fomo_dagster.evaluation.subsets import subset
from fomo_dagster.experiment.evaluation import Evaluation

ImageFeatures = Callable[[pl.DataFrame], Tensor]
"""Rows of an index to features, (N, D) fp32, L2-normalised, on the CPU."""


@dataclass(frozen=True)
class EvaluationSet:
    """The test split of a dataset; it is not empty.

    classes: all distinct classes of a classification dataset, whether or not they have test
    samples; unused for retrieval.
    """

    name: str
    dataset: Dataset
    index: Index
    classes: Sequence[str]


def evaluate(
    encoder: Encoder,
    evaluation_set: EvaluationSet,
    settings: Evaluation,
    text_embeddings: TextEmbeddings,
    image_features: ImageFeatures | None = None,
) -> EvaluationResult:
    """What a checkpoint makes of a dataset's test split, by the dataset's task.

    text_embeddings: see `TextEmbeddings`; it is called once, with the classes' prompts or the
    captions of the images. image_features: see `ImageFeatures`; None: by the encoder.

    Raises `DataError` for a sample of an unknown class, an image that cannot be decoded, a
    retrieval image without caption, and features that are not finite.
    """
    name, dataset, index = evaluation_set.name, evaluation_set.dataset, evaluation_set.index
    classes = evaluation_set.classes
    samples = index.rows("test")
    is_retrieval = dataset.task == "retrieval"
    if is_retrieval:  # always whole; `subsets.py` says why
        chosen = images_of(name, samples)
    else:
        chosen = subset(samples, settings.subset, settings.seed)
    encoded = image_features(chosen) if image_features else encoder.images(name, chosen, index)
    features = encoded.numpy()
    if is_retrieval:
        captions = tuple(chosen["captions"].explode())
        return retrieval_result(name, chosen, features, text_embeddings(captions, 1).numpy())
    templates = templates_of(settings.prompts, dataset.prompt)
    texts = class_texts(classes, templates)
    embeddings = text_embeddings(texts, len(templates)).numpy()
    return classification_result(name, chosen, classes, features, embeddings, encoder.model.scale)

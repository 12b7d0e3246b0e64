"""Evaluates one checkpoint on one dataset's test split: each image and each text is encoded
once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.index import Index
from fomo_dagster.evaluation.classification import classification_result
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.evaluation.prompts import TextEmbeddings, class_texts, templates_of
from fomo_dagster.evaluation.results import EvaluationResult
from fomo_dagster.evaluation.retrieval import images_of, retrieval_result
from fomo_dagster.evaluation.subsets import subset
from fomo_dagster.experiment.evaluation import Evaluation


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
) -> EvaluationResult:
    """What a checkpoint makes of a dataset's test split, by the dataset's task.

    text_embeddings: see `TextEmbeddings`; it is called once, with the classes' prompts or the
    captions of the images.

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
    image_features = encoder.images(name, chosen, index).numpy()
    if is_retrieval:
        captions = tuple(chosen["captions"].explode())
        return retrieval_result(name, chosen, image_features, text_embeddings(captions, 1).numpy())
    templates = templates_of(settings.prompts, dataset.prompt)
    texts = class_texts(classes, templates)
    embeddings = text_embeddings(texts, len(templates)).numpy()
    return classification_result(
        name, chosen, classes, image_features, embeddings, encoder.model.scale
    )

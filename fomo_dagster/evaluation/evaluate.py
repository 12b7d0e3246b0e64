"""One checkpoint on one dataset's test split: each image and each text is encoded once."""

from __future__ import annotations

from collections.abc import Sequence

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.index import Index
from fomo_dagster.evaluation.classification import classification_result
from fomo_dagster.evaluation.encoding import encode_images
from fomo_dagster.evaluation.prompts import TextEmbeddings, class_texts, templates_of
from fomo_dagster.evaluation.results import EvaluationResult
from fomo_dagster.evaluation.retrieval import images_of, retrieval_result
from fomo_dagster.evaluation.subsets import subset
from fomo_dagster.experiment.evaluation import Evaluation
from fomo_dagster.experiment.schema import Execution
from fomo_dagster.models.backbones import Model
from fomo_dagster.progress import Progress, no_progress


def evaluate(
    model: Model,
    dataset_name: str,
    dataset: Dataset,
    index: Index,
    class_names: Sequence[str],
    settings: Evaluation,
    execution: Execution,
    text_embeddings: TextEmbeddings,
    progress: Progress = no_progress,
) -> EvaluationResult:
    """Metrics and per-concept scores of a checkpoint on a dataset, as its task asks for.

    class_names: all distinct classes of a classification dataset, whether or not they have test
    samples; unused for retrieval. text_embeddings: see `TextEmbeddings`; it is called once, with
    the classes' prompts or the captions of the images.

    Raises `DataError` for a sample of an unknown class, an image that cannot be decoded, a
    retrieval image without caption, and features that are not finite. The test split is not empty.
    """
    samples = index.rows("test")
    is_retrieval = dataset.task == "retrieval"
    if is_retrieval:  # always whole; `subsets.py` says why
        chosen = images_of(dataset_name, samples)
    else:
        chosen = subset(samples, settings.subset, settings.seed)
    image_features = encode_images(
        model,
        dataset_name,
        chosen,
        index,
        batch_size=execution.evaluation_batch_size,
        precision=settings.precision,
        device=execution.device,
        progress=progress,
    ).numpy()
    if is_retrieval:
        captions = tuple(chosen["captions"].explode())
        return retrieval_result(
            dataset_name, chosen, image_features, text_embeddings(captions, 1).numpy()
        )
    templates = templates_of(settings.prompts, dataset.prompt)
    texts = class_texts(class_names, templates)
    embeddings = text_embeddings(texts, len(templates)).numpy()
    return classification_result(
        dataset_name, chosen["concept"].to_list(), class_names, image_features, embeddings
    )

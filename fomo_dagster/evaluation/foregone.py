"""Finds datasets on which the score is the same whatever the model: 100 %."""

from __future__ import annotations

from collections.abc import Sequence

from fomo_dagster.evaluation.retrieval import MAIN_DEPTH
from fomo_dagster.units import counted


def foregone(dataset: str, task: str, classes: Sequence[str], tests: int) -> str | None:
    """The sentence about a dataset with this number of test images that no model can get wrong;
    None where it can, or where nothing is tested.

    Of so few images recall finds each; texts can still be missed where an image has several.
    """
    if not tests:
        return None
    if task == "classification" and len(classes) == 1:
        return (
            f"dataset {dataset!r} has one class alone, {classes[0]!r}, so that every model scores "
            "100 % on it: add classes, leave it out of the evaluation, or set `task: retrieval` "
            "if its images have captions"
        )
    if task == "retrieval" and tests <= MAIN_DEPTH:
        return (
            f"dataset {dataset!r} has {counted(tests, 'test image')}, so that every model finds "
            f"them among {MAIN_DEPTH}, and recall@{MAIN_DEPTH} from text to image is 100 %: add "
            "test images, or leave it out of the evaluation"
        )
    return None

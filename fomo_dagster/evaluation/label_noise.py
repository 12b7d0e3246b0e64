"""Labels that are probably wrong: confident learning (Northcutt et al. 2021, arXiv 1911.00068), by
cleanlab."""

from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt

from fomo_dagster.errors import InputError

EXTRA = "cleanlab"


def check_can_look(wanted_by: str) -> None:
    """Raises `InputError` where cleanlab is not installed."""
    if importlib.util.find_spec("cleanlab") is None:
        raise InputError(
            f"{wanted_by} looks for wrong labels by cleanlab, which is not installed: "
            f"pip install 'fomo-dagster[{EXTRA}]', or leave label_noise out"
        )


def doubtful_labels(
    classes: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """(N,), which labels are probably wrong.

    classes: (N,), the place of each sample's label; probabilities: (N, C), of a model that was not
    trained on these samples. A label is doubtful if another class is more probable than that class
    is, on average, for the samples that are labelled so. Classes that no sample has are never the
    better one.
    """
    from cleanlab.filter import find_label_issues

    found = np.zeros(len(classes), dtype=np.bool_)
    there, places = np.unique(classes, return_inverse=True)
    if len(there) < 2:
        return found
    among = probabilities[:, there].astype(np.float64)
    among /= among.sum(axis=1, keepdims=True).clip(min=np.finfo(np.float64).tiny)
    found[:] = find_label_issues(
        places, among, filter_by="confident_learning", n_jobs=1, verbose=False
    )
    return found

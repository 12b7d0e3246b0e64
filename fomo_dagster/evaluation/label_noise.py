"""Labels that are probably wrong: confident learning (Northcutt et al. 2021, arXiv 1911.00068), by
cleanlab, on predictions of a linear probe.

Zero-shot predictions would not do: of concepts that a model has never met, they contradict nearly
every label.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import numpy.typing as npt
import polars as pl

from fomo_dagster.errors import InputError

EXTRA = "cleanlab"
FOLDS = 5
ITERATIONS = 1000  # of the probe's L-BFGS at most
C = 10.0  # of the probe: features of length 1 need weights that are free to grow

LABEL_NOISE: dict[str, pl.DataType] = {
    "label_quality": pl.Float64(),
    "suggested": pl.String(),
    "doubtful": pl.Boolean(),
}


def check_can_look(wanted_by: str) -> None:
    """Raises `InputError` where cleanlab is not installed."""
    if importlib.util.find_spec("cleanlab") is None:
        raise InputError(
            f"{wanted_by} looks for wrong labels by cleanlab, which is not installed: "
            f"pip install 'fomo-dagster[{EXTRA}]', or leave label_noise out"
        )


def label_noise(
    samples: pl.DataFrame, features: npt.NDArray[np.float32], seed: int = 0
) -> pl.DataFrame:
    """row, and LABEL_NOISE: the probability of each sample's label for a probe that was trained on
    other samples, the most probable one, and whether the label is probably wrong.

    samples: row, and concept; features: (N, D), of the same samples. The probe is a logistic
    regression, cross-validated. A label is doubtful if another one is more probable than that one
    is, on average, for the samples that have it. Without samples of concepts that have fewer than
    `FOLDS`, and without any where fewer than two concepts remain.
    """
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    enough = pl.len().over("concept") >= FOLDS
    kept = samples.with_row_index("place").filter(enough)
    concepts, labels = np.unique(kept["concept"].to_numpy(), return_inverse=True)
    if len(concepts) < 2:
        return pl.DataFrame(schema={"row": samples.schema["row"], **LABEL_NOISE})
    probabilities = cross_val_predict(
        LogisticRegression(C=C, max_iter=ITERATIONS),
        features[kept["place"].to_numpy()],
        labels,
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
        method="predict_proba",
    )  # (N, C)
    doubtful = find_label_issues(
        labels, probabilities, filter_by="confident_learning", n_jobs=1, verbose=False
    )
    return kept.select("row").with_columns(
        label_quality=pl.Series(probabilities[np.arange(len(labels)), labels], dtype=pl.Float64),
        suggested=pl.Series(concepts[probabilities.argmax(axis=1)].tolist(), dtype=pl.String),
        doubtful=pl.Series(doubtful.tolist(), dtype=pl.Boolean),
    )

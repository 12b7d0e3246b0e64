"""Whether scores depend on the way of `Pixels`: the same weights evaluated by Pillow and by ours.

    python benchmarks/pixel_scores.py [--home HOME] [--only quickstart vit]

quickstart: the weights after the last stage of the experiment `quickstart`, which `fomo run` makes
in the home if they are not there, on the suite's test images: of the size that they are shipped in,
which is the model's, and rendered larger, so that they have to be reduced. vit: a ViT-B-32 of
random weights, with a linear probe of its features of a few training images, all of them by our
way. Both ways answer the same queries, so each difference has a paired interval.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from pictures import print_figures
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.decoders import DECODE
from fomo_dagster.data.index import Index
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.reading import Reading
from fomo_dagster.data.shards import write_shards
from fomo_dagster.data.sources.source import Inspection
from fomo_dagster.data.transforms import EvaluationTransform
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.evaluation.evaluate import EvaluationSet, evaluate
from fomo_dagster.evaluation.prompts import mean_embeddings
from fomo_dagster.evaluation.ranking import Floats
from fomo_dagster.experiment.evaluation import Evaluation
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.home import Home
from fomo_dagster.metrics import COUNTS_WITHIN
from fomo_dagster.models.backbones import Model, create, load
from fomo_dagster.statistics.answers import Answers
from fomo_dagster.statistics.comparison import metrics_of
from fomo_dagster.statistics.intervals import interval
from fomo_dagster.tables.answers import answers_of

PROJECT = Path(__file__).parents[1]
LARGER, LARGE = 100, 320  # pixels of a side, which are reduced to 32 and to 224
PROBED = ("photographs", "flags", "aerial", "rooms", "clocks")
SHOTS = 8
WAYS = "before", "now"
LOOKED_AT = 50  # images whose levels are compared

Row = tuple[str, str, str, float, float, float, float, float, float, int, int]


@dataclass(frozen=True)
class Both:
    """The answers of the same weights to the same queries of a dataset, by either way, and the
    share of the levels of its images that the ways differ in, in percent."""

    before: Answers
    now: Answers
    levels: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path, help="a home; by default a temporary one")
    parser.add_argument("--only", nargs="+", choices=["quickstart", "vit"])
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "quickstart" in (arguments.only or ["quickstart"]):
            rows += quickstart(arguments.home or folder / "home", folder)
        if "vit" in (arguments.only or ["vit"]):
            both = dict(probed(folder))
            rows += compared("ViT-B-32, probe", LARGE, both, dict.fromkeys(both, "adaptation"))
    columns = (
        "weights", "images", "of", "other levels", "by Pillow", "now", "difference", "from", "to",
        "queries", "other answers",
    )  # fmt: skip
    print_figures("Scores in percent, differences in points with 95 %", columns, rows)


def quickstart(home: Path, folder: Path) -> Iterator[Row]:
    """The rows of the quickstart's last stage."""
    environment = {**os.environ, "FOMO_HOME": str(home)}
    fomo = Path(sys.executable).with_name("fomo")
    subprocess.run([fomo, "run", "quickstart"], env=environment, cwd=PROJECT, check=True)
    told = yaml.safe_load((PROJECT / "experiments/quickstart.yaml").read_text())
    opened = Home(home)
    head = opened.heads.read(f"quickstart/trained_{told['stream']['stages']:03d}")
    assert head is not None
    artifact = opened.store.open(*head.artifacts[ONLY])
    assert artifact is not None
    model = load(told["backbone"]["architecture"], artifact.path(WEIGHTS))
    held_out = told["evaluation"]["held_out"]
    roles = dict.fromkeys(told["stream"]["datasets"], "adaptation")
    roles |= dict.fromkeys(held_out, "held_out")
    settings = Evaluation(held_out=held_out)
    for size in (model.image_size, LARGER):
        both = {}
        for name in roles:
            of, index = written(name, size, folder)
            classes = sorted(index.samples["concept"].unique())
            evaluated = []
            for pixels in Pixels:
                encoder = Encoder.of(model, "fp32", Execution(device="cpu"), pixels)
                found = evaluate(
                    encoder, EvaluationSet(name, of, index, classes), settings,
                    lambda texts, each, by=encoder: mean_embeddings(by.texts(texts), each),
                )  # fmt: skip
                is_right = pl.col("rank") < COUNTS_WITHIN[of.task]
                evaluated.append(
                    found.predictions.with_columns(dataset=pl.lit(name), correct=is_right)
                )
            both[name] = Both(*answers_of(name, evaluated), other_levels(model, index))
        yield from compared("quickstart", size, both, roles)


def probed(folder: Path) -> Iterator[tuple[str, Both]]:
    """Datasets, with the answers of a linear probe on the features of a ViT-B-32."""
    model = create("ViT-B-32", 0)
    for name in PROBED:
        _, index = written(name, LARGE, folder)
        train, test = index.rows("train"), index.rows("test")
        few = train.filter(pl.int_range(pl.len()).over("concept") < SHOTS)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        probe.fit(features(model, index, few, Pixels.TORCH), few["concept"].to_numpy())
        answers = []
        for pixels in Pixels:
            predicted = probe.predict(features(model, index, test, pixels))
            right = predicted == test["concept"].to_numpy()
            of_captions, clusters = np.zeros(len(right), bool), np.arange(len(right))
            answers.append(Answers(right[None], of_captions, clusters))
        yield name, Both(*answers, other_levels(model, index))


def features(model: Model, index: Index, rows: pl.DataFrame, pixels: Pixels) -> Floats:
    """(N, D)."""
    encoder = Encoder.of(model, "fp32", Execution(device="cpu"), pixels)
    found: Floats = encoder.images(index.folder.name, rows, index).numpy()
    return found


def other_levels(model: Model, index: Index) -> float:
    """In percent, of the first test images."""
    shares = []
    for place in index.rows("test").select("shard", "offset", "size").head(LOOKED_AT).iter_rows():
        one, other = (
            EvaluationTransform(model.preparation, pixels).fitted(
                index.decoded(*place, DECODE[pixels])
            )
            for pixels in Pixels
        )
        shares.append(float((one != other).float().mean()))
    return 100 * float(np.mean(shares))


def written(name: str, size: int, folder: Path) -> tuple[Dataset, Index]:
    """A dataset of the quickstart's suite with images of another size, as shards."""
    told = yaml.safe_load((PROJECT / "datasets/quickstart.yaml").read_text())[name]
    told["source"]["parameters"]["size"] = size
    dataset = Dataset.model_validate(told)
    source = dataset.open(name, folder, folder / "cache")
    place = folder / f"{name}_{size}"
    write_shards(Inspection(source.scan()), Reading(source), place, unreadable_limit=0)
    return dataset, Index(place)


def compared(
    weights: str, size: int, both: Mapping[str, Both], roles: Mapping[str, str]
) -> Iterator[Row]:
    """A row for each dataset, and for the means that the roles give."""
    before, now = ({name: getattr(one, way) for name, one in both.items()} for way in WAYS)
    for name, one in both.items():
        other = int((one.before.correct != one.now.correct).sum())
        found = interval(lambda scores, of=name: scores[of], now, before)
        scores = float(one.before.scores()[0]), float(one.now.scores()[0])
        yield (
            weights, f"{size} px", name, one.levels, *scores, found.estimate, found.low, found.high,
            one.now.correct.size, other,
        )  # fmt: skip
    for metric, of in metrics_of(roles).items():
        found = interval(of, now, before)
        means = [
            float(of({name: one.scores() for name, one in way.items()})[0]) for way in (before, now)
        ]
        levels = float(np.mean([one.levels for one in both.values()]))
        queries = sum(one.correct.size for one in now.values())
        other = sum(int((one.before.correct != one.now.correct).sum()) for one in both.values())
        yield (
            weights, f"{size} px", metric.short, levels, *means, found.estimate, found.low,
            found.high, queries, other,
        )  # fmt: skip


if __name__ == "__main__":
    main()

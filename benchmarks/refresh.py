"""How much a search finds while a gallery is refreshed, by the share that is embedded anew.

    fomo run quickstart && python benchmarks/refresh.py [quickstart] [--older 1] [--newer 5]

All test images of an experiment are embedded by two of its stages. Queries are the classes in their
prompts, and each tenth image, which is no answer to itself. What the newer stage finds in a gallery
of its own is right. Shown is the share of the ten nearest that is found where the newer stage has
embedded only the first rows, in percent: with the similarities of both as they are, and with those
of the older one shifted to the newer (`mixing`).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from fomo_dagster.data.pixel_rules import NEWEST
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.galleries.files import EmbeddingsWriter, Floats
from fomo_dagster.galleries.mixing import CommonRows
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.home import Home, project_folder

DEPTH, EACH = 10, 10
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


def embedded(node: EvaluationNode, context: RunContext) -> tuple[pl.DataFrame, Floats, Floats]:
    """Rows, their embeddings, and those of classes in their prompts, by what a stage deploys."""
    head = context.heads.read(node.checkpoint_key)
    if head is None:
        raise SystemExit(f"{node.checkpoint_key} was never made: fomo run {node.experiment}")
    (address,) = head.artifacts.values()
    artifact = context.home.store.open(*address)
    assert artifact is not None
    weights = load_weights(node.backbone, artifact.path(WEIGHTS))
    encoder = Encoder.of(weights, "fp32", Execution(device="cpu"), NEWEST)
    rows, images, texts = [], [], []
    for name, dataset in node.datasets.items():
        index = index_of(name, context)
        samples = index.samples.filter(split="test").sort("key")
        rows.append(
            samples.select(
                pl.lit(name).alias("split"), "key", "concept", "digest",
                pl.lit(None, pl.String).alias("text"),
            )
        )  # fmt: skip
        images.append(encoder.images(name, samples, index).numpy())
        concepts = samples["concept"].unique().sort().to_list()
        texts.append(encoder.texts([dataset.prompt.format(c) for c in concepts]).numpy())
    return pl.concat(rows), np.concatenate(images), np.concatenate(texts)


def nearest(similarities: Floats, own: int | None) -> set[int]:
    """Places of the ten nearest of N similarities, (N,), but its own."""
    if own is not None:
        similarities = similarities.copy()
        similarities[own] = -np.inf
    return set(np.argsort(-similarities, kind="stable")[:DEPTH].tolist())


def written(rows: pl.DataFrame, embeddings: Floats, path: Path) -> Path:
    """As the file of a gallery."""
    with EmbeddingsWriter(path) as writer:
        writer.add(rows, embeddings)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", nargs="?", default="quickstart")
    parser.add_argument("--older", type=int, default=1)
    parser.add_argument("--newer", type=int, default=5)
    asked = parser.parse_args()
    context = RunContext(build_project(project_folder()), Home.from_environment())
    both = []
    for stage in (asked.older, asked.newer):
        node = context.graph.nodes[f"{asked.experiment}/evaluation_{stage:03d}"]
        assert isinstance(node, EvaluationNode)
        both.append(embedded(node, context))
    (rows, old, old_texts), (_, new, new_texts) = both
    order = np.random.default_rng(0).permutation(len(rows))  # else the first rows are one dataset
    rows, old, new = rows[order], old[order], new[order]
    places = np.arange(0, len(rows), EACH)
    queries: dict[str, list[tuple[Floats, Floats, int | None]]] = {
        "texts": [(a, b, None) for a, b in zip(old_texts, new_texts, strict=True)],
        "images": [(old[p], new[p], int(p)) for p in places],
    }
    print(f"{len(rows)} images; " + ", ".join(f"{len(of)} {name}" for name, of in queries.items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        older = written(rows, old, folder / "older.parquet")
        for share in (0.0, *SHARES):
            count = max(round(share * len(rows)), 2)
            common = CommonRows.of(written(rows[:count], new[:count], folder / "new"), older)
            said = [f"{share:4.0%}"]
            for kind, of in queries.items():
                found = {"as they are": 0.0, "shifted": 0.0}
                for before, now, own in of:
                    right = nearest(new @ now, own)
                    shifts = {"as they are": 0.0, "shifted": common.shift(now, before)}
                    for way, shift in shifts.items():
                        mixed = old @ before + shift
                        mixed[:count] = new[:count] @ now
                        found[way] += len(right & nearest(mixed, own)) / DEPTH / len(of)
                said += [f"{kind} {way} {100 * value:5.1f}" for way, value in found.items()]
            print("  ".join(said), flush=True)


if __name__ == "__main__":
    main()

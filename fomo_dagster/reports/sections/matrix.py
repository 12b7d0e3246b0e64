"""What each stage scores on the concepts of each chunk."""

from __future__ import annotations

import polars as pl

from fomo_dagster.plots.methods import matrices_figure
from fomo_dagster.reports.content import Block, Figure, Fold, Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.tables.replicates import of_methods

_QUERY = """
SELECT experiment, stage, chunk, score, chance FROM matrix WHERE experiment IN ({experiments})
ORDER BY ALL
"""
_TRANSFER = """
SELECT * FROM transfer WHERE experiment IN ({experiments})
QUALIFY stage = max(stage) OVER (PARTITION BY experiment)
"""
MEASURES = ("forward_transfer", "backward_transfer", "forgetting", "plasticity", "stability")


def matrix(reported: Reported) -> pl.DataFrame:
    """The view `matrix` of the methods that have several chunks, as means over replicates: method,
    stage, chunk, score, chance."""
    rows = of_methods(reported.home.root, "matrix", reported.members)
    several = rows.filter(pl.col("chunk").n_unique().over("method") > 1)
    of_cells = several.group_by("method", "stage", "chunk", maintain_order=True)
    means = of_cells.agg(pl.mean("score", "chance"))
    return means.sort("method", "stage", "chunk")


def transfer(reported: Reported) -> pl.DataFrame:
    """The view `transfer` at the last stage of the methods that have several chunks, as means over
    replicates: method, and its measures."""
    rows = of_methods(reported.home.root, "transfer", reported.members)
    last = rows.filter(pl.col("stage") == pl.col("stage").max().over("method"))
    several = last.filter(pl.col("stage") > 1)
    means = several.group_by("method", maintain_order=True).agg(pl.mean(*MEASURES))
    order = pl.DataFrame({"method": reported.names}, schema={"method": pl.String})
    return order.join(means, on="method", how="inner", maintain_order="left")


def section(reported: Reported) -> Section | None:
    """None where the stream has one chunk."""
    found = matrix(reported)
    if found.is_empty():
        return None
    source = reported.source(_QUERY, None, "evaluation", "chunk", "scores")
    caption = (
        "Mean score after each stage on the concepts of each chunk, in %: on the diagonal what was "
        "just learnt, below it what was kept of it, above it what is still to come; stage 0 is θ₀. "
        "Chance is what guessing scores."
    )
    wide = found.pivot("chunk", index=["method", "stage"], values="score")
    shown = wide.rename({str(n): f"chunk {n}" for n in found["chunk"].unique()})
    blocks: list[Block] = [
        Figure("matrix", caption, matrices_figure(found, reported.names), source),
        Fold("As numbers", [Table("matrix", "Stage by chunk, in %.", shown, found, source)]),
    ]
    measures = transfer(reported)
    if measures.height:
        caption = (
            "What follows from it at the last stage, means over chunks. Forward transfer: what "
            "was gained on a chunk before it was trained on; backward transfer: what its score "
            "changed by since; forgetting: its fall from its best (in points). Plasticity: the "
            "score on a chunk right after it; stability: what is left of the scores of earlier "
            "chunks (in %)."
        )
        of_transfer = reported.source(_TRANSFER, None, "evaluation", "chunk", "scores")
        named = measures.rename({name: name.replace("_", " ") for name in MEASURES})
        blocks.append(Table("transfer", caption, named, measures, of_transfer))
    return Section("matrix", "Stage by chunk", blocks)

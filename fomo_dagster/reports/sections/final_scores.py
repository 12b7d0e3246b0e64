"""What each method scores at its last stage, with intervals and differences to the baseline."""

from __future__ import annotations

import polars as pl

from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.reports.content import Block, Section, Table
from fomo_dagster.reports.members import Reported
from fomo_dagster.reports.names import FINAL_SCORES
from fomo_dagster.statistics.significance import LEVEL, verdict
from fomo_dagster.tables.comparisons import LABELS
from fomo_dagster.tables.replicates import SCORES, chances_as_text

_QUERY = "SELECT * FROM leaderboard WHERE experiment IN ({experiments})"


def final_scores(reported: Reported) -> pl.DataFrame:
    """A row a method: that of `methods`, θ₀'s scores as `θ₀_…`, and for each metric that is
    compared the difference to the baseline, its interval and its p."""
    starts = reported.stages.filter(stage=0).select(
        "method", *(pl.col(name).alias(f"θ₀_{name}") for name in SCORES)
    )
    compared = reported.comparison
    margin = compared.margin if compared else None
    rows = [
        {"method": one.method}
        | {
            f"{metric.name}_{key}": value
            for metric in one.metrics
            for key, value in (
                ("difference", metric.difference.estimate), ("low", metric.difference.low),
                ("high", metric.difference.high), ("p", metric.difference.p),
                ("verdict", verdict(metric.difference, margin)),
            )
        }
        for one in (compared.comparisons if compared else ())
    ]  # fmt: skip
    differences = pl.DataFrame(rows, schema=None if rows else {"method": pl.String})
    order = reported.final.join(starts, on="method", how="left", maintain_order="left")
    return order.join(differences, on="method", how="left", maintain_order="left")


def section(reported: Reported) -> Section:
    """The table, and what its columns are."""
    data = final_scores(reported)
    shown = data.select(_name(reported).alias("method"), n="replicates")
    best: dict[str, list[int]] = {}
    contested = ~pl.col("method").is_in(reported.oracles)
    for name in SCORES:
        if data[name].is_null().all():
            continue
        heading = LABELS[name]
        shown = shown.with_columns(data.select(_with_interval(name).alias(heading)))
        highest = data.filter(contested)[name].max()
        best[heading] = [
            row for row, (value, method) in enumerate(data.select(name, "method").iter_rows())
            if value == highest and method not in reported.oracles
        ]  # fmt: skip
        if f"{name}_difference" in data.columns:
            difference = data.select(_difference(name).alias(f"Δ{heading}"))
            shown = shown.with_columns(difference)
    table = Table(
        FINAL_SCORES, _caption(reported), shown, data,
        reported.source(_QUERY, reported.named("results"), "scores"),
        shown.columns[2:], best if data.height > 1 else {},
    )  # fmt: skip
    defined = ". ".join(
        f"{metric.label}: {metric.description.partition(';')[0]}"
        for metric in STAGE_METRICS
        if metric.on_leaderboard
    )
    blocks: list[Block] = [f"{defined}. {_start(reported, data)}", table]
    return Section("final-scores", "Final scores", blocks)


def _start(reported: Reported, data: pl.DataFrame) -> str:
    """What θ₀ scores: that of all, or else that of the baseline; and guessing, if it is known and
    the same for all."""
    starts = data.select(f"θ₀_{name}" for name in SCORES)
    said = ", ".join(
        f"{LABELS[name]} {value:.2f}" for name, value in zip(SCORES, starts.row(0), strict=True)
        if value is not None
    )  # fmt: skip
    whose = "" if starts.n_unique() == 1 else f" of {reported.baseline}"
    start = f"θ₀{whose}, before the first stage, has {said}." if said else ""
    guessed = dict.fromkeys(map(chances_as_text, reported.guessed.iter_rows(named=True)))
    if len(guessed) == 1 and (chance := next(iter(guessed))):
        return f"{start} Guessing has {chance}.".strip()
    return start


def _caption(reported: Reported) -> str:
    said = ["Scores of the last stage, in %"]
    replicates = reported.final["replicates"]
    if replicates.max() != 1:
        said.append("mean ± half of the 95 % interval over n replicates (Student's t)")
    if replicates.min() == 1:
        said.append("n = 1 is one run, of which no interval over seeds is known")
    if reported.comparison is not None:
        said.append(
            f"Δ: difference to {reported.baseline} in points with its 95 % interval, paired by "
            "replicate and test sample; * where it is more than chance (p < 0.05)"
        )
    if reported.final.height > 1:
        said.append("bold: the highest")
    if reported.oracles:
        said.append("† oracle: sees in one stage what the others see one after the other")
    return "; ".join(said) + "."


def _name(reported: Reported) -> pl.Expr:
    of_oracle = pl.col("method").is_in(reported.oracles)
    return pl.when(of_oracle).then(pl.col("method") + " †").otherwise("method")


def _with_interval(name: str) -> pl.Expr:
    mean = pl.col(name).map_elements("{:.2f}".format, pl.String)
    within = pl.col(f"{name}_within").map_elements("{:.2f}".format, pl.String)
    return pl.when(within.is_null()).then(mean).otherwise(mean + " ± " + within)


def _difference(name: str) -> pl.Expr:
    parts = [
        pl.col(f"{name}_{part}").map_elements("{:+.2f}".format, pl.String)
        for part in ("difference", "low", "high")
    ]
    same_side = pl.col(f"{name}_low") * pl.col(f"{name}_high") > 0
    told = same_side & (pl.col(f"{name}_p") < LEVEL)
    star = pl.when(told).then(pl.lit(" *")).otherwise(pl.lit(""))
    return parts[0] + " [" + parts[1] + ", " + parts[2] + "]" + star

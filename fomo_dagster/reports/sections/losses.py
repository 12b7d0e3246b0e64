"""What each method lost and won, dataset by dataset, with concepts and pictures: the baseline since
θ₀, the others against the baseline."""

from __future__ import annotations

import shlex

import polars as pl

from fomo_dagster.reports.content import Fold, Pictures, Section, Source, Table, Tile
from fomo_dagster.reports.members import Reported
from fomo_dagster.tables.prediction_changes import NEWLY_WRONG, Errors, errors_of
from fomo_dagster.tables.predictions import NoPredictionsError
from fomo_dagster.units import counted

MOST_CONCEPTS = 10
MOST_PICTURES = 18
MOST_OF_CONCEPT = 3  # pictures
MOST_OPEN = 3  # methods that are shown without being opened
_QUERY = """
SELECT * FROM predictions WHERE experiment IN ({experiments})
QUALIFY stage IN (0, max(stage) OVER (PARTITION BY experiment))
"""


def losses(reported: Reported) -> dict[str, Errors]:
    """Method → what it gets wrong and the baseline did not, of the first replicate that both have;
    of the baseline itself, what θ₀ did not get wrong. Those without predictions are left out."""
    firsts = {name: experiments[0] for name, experiments in _replicates(reported).items()}
    found = {}
    for name, first in firsts.items():
        try:
            if name == reported.baseline:
                found[name] = errors_of(reported.home, first, since=0)
            elif name not in reported.oracles:
                against = _paired(reported, first)
                found[name] = errors_of(
                    reported.home, first, against=against, common=reported.common
                )
        except NoPredictionsError:
            continue
    return found


def section(reported: Reported) -> Section | None:
    """None where no predictions are known."""
    found = losses(reported)
    folds = []
    for name, errors in found.items():
        blocks = _of_one(reported, name, errors)
        folds.append(blocks if len(found) <= MOST_OPEN else [Fold(errors.title, blocks)])
    if not folds:
        return None
    said = (
        "A test sample is lost if it became wrong, and won if it became right: since θ₀ for "
        f"{reported.baseline}"
    )
    said += ", against it for the others" if len(found) > 1 else ""
    if reported.final["replicates"].max() != 1:
        said += "; of one replicate each"
    return Section("losses", "Losses and gains", [f"{said}.", *(b for own in folds for b in own)])


def _of_one(reported: Reported, name: str, errors: Errors) -> list[Table | Pictures | str]:
    source = _source(reported, errors)
    net = (pl.col("newly right") - pl.col("newly wrong")).alias("net")
    by_dataset = errors.shown(errors.changes.by_dataset).with_columns(
        net, (100 * net / pl.col("samples")).alias("net, %")
    )
    by_dataset = by_dataset.sort("net, %", "dataset")
    signed = {"net": "{:+d}", "net, %": "{:+.2f}"}
    shown = by_dataset.with_columns(
        pl.col(name).map_elements(form.format, pl.String) for name, form in signed.items()
    )
    blocks: list[Table | Pictures | str] = [
        Table(
            f"losses_{name}", f"{errors.title}: datasets, the worst first.", shown, by_dataset,
            source, list(signed),
        )
    ]  # fmt: skip
    blocks += errors.remarks
    if errors.changes.left_out:
        blocks.append(
            f"{counted(errors.changes.left_out, 'query')} of one of the two alone is left out."
        )
    hit = errors.changes.by_concept.filter(pl.col(NEWLY_WRONG) > 0)
    if hit.is_empty():
        return [*blocks, "Nothing is newly wrong."]
    caption = f"{errors.title}: the concepts that were hit hardest"
    caption += f", {MOST_CONCEPTS} of {hit.height}" if hit.height > MOST_CONCEPTS else ""
    shown = errors.shown(hit.head(MOST_CONCEPTS)).select(
        "dataset", "concept", pl.exclude("dataset", "concept")
    )
    by_concept = f"losses_{reported.part_of(name, 'by_concept')}"
    blocks.append(Table(by_concept, f"{caption}.", shown, errors.shown(hit), source))
    if tiles := _tiles(reported, errors):
        caption = (
            f"{errors.title}: some of what is newly wrong, hardest hit concepts first, the surest "
            "of each; below the concept what it is taken for, and how surely."
        )
        blocks.append(Pictures(caption, tiles, source))
    return blocks


def _tiles(reported: Reported, errors: Errors) -> list[Tile]:
    if reported.image_of is None:
        return []
    turn = pl.int_range(pl.len()).over("dataset", "concept")
    wrong = errors.wrong.filter(query="image").filter(turn < MOST_OF_CONCEPT)
    tiles: list[Tile] = []
    for row in wrong.iter_rows(named=True):
        if len(tiles) == MOST_PICTURES:
            break
        image = reported.image_of(row["dataset"], row["key"])
        if image is not None:
            sure = row["probability_of_predicted"]
            share = "" if sure is None else f" ({sure:.0%})"
            text = f"{row['predicted']}{share}, {row['dataset']}"
            tiles.append(Tile(image, row["concept"], text))
    return tiles


def _source(reported: Reported, errors: Errors) -> Source:
    command = ["fomo", "errors", errors.now.experiment]
    before = errors.before
    if before is not None and before.experiment == errors.now.experiment:
        command += ["--since", str(before.stage)]
    elif before is not None:
        command += ["--against", before.experiment, *(["--common"] if reported.common else [])]
    return reported.source(_QUERY, shlex.join(command), "evaluation")


def _replicates(reported: Reported) -> dict[str, list[str]]:
    rows = reported.replicates.select("method", "experiment")
    known = {
        method: of["experiment"].to_list()
        for (method,), of in rows.group_by("method", maintain_order=True)
    }
    return {name: known.get(name, list(own)) for name, own in reported.members.items()}


def _paired(reported: Reported, experiment: str) -> str:
    """The baseline's replicate of the same label, or its first."""
    rows = reported.replicates
    of_baseline = rows.filter(method=reported.baseline)
    label = rows.filter(experiment=experiment)["replicate"]
    same = of_baseline.filter(pl.col("replicate").is_in(label.implode()))
    chosen = same if same.height else of_baseline
    return str(chosen["experiment"][0]) if chosen.height else reported.members[reported.baseline][0]

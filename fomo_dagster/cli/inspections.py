"""`fomo inspect`: what a model thinks of what the stages bring."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_csv, print_json, say
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home, project_folder

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.tables.looked_at import LookedAt


class By(StrEnum):
    """What makes a sample conspicuous."""

    labels = "labels"
    captions = "captions"
    novelty = "novelty"


COLUMNS = {By.labels: "label_quality", By.captions: "similarity", By.novelty: "novelty"}
TITLES = {
    By.labels: "labels that are probably wrong",
    By.captions: "captions that fit least",
    By.novelty: "samples least like earlier ones",
}


def inspect(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="An experiment with `inspection`.")
    ],
    by: Annotated[
        By | None,
        typer.Option(help="Which samples to show; by default labels where they were looked at."),
    ] = None,
    stage: Annotated[int | None, typer.Option(min=1, help="Of this stage; by default all.")] = None,
    most: Annotated[int, typer.Option(min=1, help="How many samples to show.")] = 20,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the first of the samples into this file."),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show what a model finds odd about the samples that each stage brings.

    It only shows: nothing is left out. JSON and CSV have each sample.
    """
    from fomo_dagster.cli.rows import print_frame
    from fomo_dagster.plots.inspection_sheet import most_conspicuous
    from fomo_dagster.tables.inspections import inspections_of

    if as_json and as_csv:
        raise InputError("--json and --csv ask for several formats: choose one")
    home = Home.from_environment()
    found = inspections_of(home.root, experiment.replace("/", "_"), stage)
    looked = found.rows["doubtful"].count() > 0
    if by is None:
        by = By.labels if looked else By.captions
    elif by is By.labels and not looked:
        raise InputError(_why_not_looked(found, stage, home))
    rows = most_conspicuous(found.rows, COLUMNS[by])
    if sheet is not None:
        _write_sheet(rows, by, f"{found.experiment}: {TITLES[by]}", home, sheet)
    if as_json:
        print_json({"stages": found.stages.to_dicts(), "samples": found.rows.to_dicts()})
        return
    if as_csv:
        print_csv(found.rows)
        return
    console = Terminal()
    print_frame(found.stages, f"{found.experiment}: what the stages bring", console)
    if rows.is_empty():
        say(console, f"No {TITLES[by]}.")
        return
    print_frame(rows.drop("experiment").head(most), TITLES[by].capitalize(), console, narrow="key")
    if (left := rows.height - most) > 0:
        say(console, f"{left} more samples: --most {rows.height}, or --csv")


def _why_not_looked(found: LookedAt, stage: int | None, home: Home) -> str:
    """Why no label of an experiment, or of one stage, was doubted or not."""
    from fomo_dagster.evaluation.label_noise import FOLDS
    from fomo_dagster.tables.inspections import inspections_of

    needs = f"a classification dataset of which it brings two concepts with {FOLDS} samples each"
    if stage is not None:
        others = inspections_of(home.root, found.experiment).rows.drop_nulls("doubtful")["stage"]
        if not others.is_empty():
            told = ", ".join(map(str, others.unique().sort()))
            return (
                f"wrong labels were not looked for at stage {stage} of {found.experiment!r}, which "
                f"lacks what that takes: {needs}. They were at {told}"
            )
    return (
        f"wrong labels were not looked for in {found.experiment!r}: that takes `inspection: "
        f"{{label_noise: true}}`, and at a stage {needs}"
    )


def _write_sheet(rows: pl.DataFrame, by: By, title: str, home: Home, path: Path) -> None:
    """A contact sheet. Raises `InputError` if no image can be shown, and for a path that is not
    that of a PNG."""
    from fomo_dagster.cli.prediction_errors import check_is_png
    from fomo_dagster.graph.build.builder import build_project
    from fomo_dagster.graph.run.run_context import RunContext
    from fomo_dagster.graph.work.sample_images import SampleImages
    from fomo_dagster.plots.contact_sheet import contact_sheet
    from fomo_dagster.plots.inspection_sheet import inspection_tiles
    from fomo_dagster.store.files import write_bytes

    check_is_png(path, "--sheet")
    image_of = SampleImages(lambda: RunContext(build_project(project_folder()), home))
    write_bytes(
        path, contact_sheet(inspection_tiles(rows, COLUMNS[by], image_of), title), named=True
    )

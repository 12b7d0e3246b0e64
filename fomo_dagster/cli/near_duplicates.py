"""`fomo duplicates`: which samples of the stages are near duplicates of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_csv, print_json, say
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home, project_folder

if TYPE_CHECKING:
    import polars as pl


def duplicates(
    experiment: Annotated[
        str,
        typer.Argument(metavar="EXPERIMENT", help="An experiment with `near_duplicates`."),
    ],
    stage: Annotated[int | None, typer.Option(min=1, help="Of this stage; by default all.")] = None,
    most: Annotated[int, typer.Option(min=1, help="How many pairs to show.")] = 20,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw some of the pairs into this file."),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show which samples of a stage are nearly test images, or nearly ones that came before.

    Of two samples alike that are both trained on, the later one counts. JSON and CSV have each
    pair.
    """
    from fomo_dagster.cli.rows import print_frame
    from fomo_dagster.tables.near_duplicates import near_duplicates_of

    if as_json and as_csv:
        raise InputError("--json and --csv ask for several formats: choose one")
    home = Home.from_environment()
    found = near_duplicates_of(home.root, experiment.replace("/", "_"), stage)
    if sheet is not None:
        _write_sheet(found.rows, f"{found.experiment}: near duplicates", home, sheet)
    if as_json:
        print_json({"stages": found.stages.to_dicts(), "pairs": found.rows.to_dicts()})
        return
    if as_csv:
        print_csv(found.rows)
        return
    console = Terminal()
    print_frame(found.stages, f"{found.experiment}: near duplicates by stage", console)
    if found.rows.is_empty():
        return
    shown = found.rows.drop("experiment").head(most)
    print_frame(shown, "Pairs, test images first", console, narrow="key")
    if (left := found.rows.height - most) > 0:
        say(console, f"{left} more pairs: --most {found.rows.height}, or --csv")


def _write_sheet(pairs: pl.DataFrame, title: str, home: Home, path: Path) -> None:
    """A contact sheet of pairs. Raises `InputError` if no image can be shown, and for a path that
    is not that of a PNG."""
    from fomo_dagster.cli.prediction_errors import check_is_png
    from fomo_dagster.graph.build.builder import build_project
    from fomo_dagster.graph.run.run_context import RunContext
    from fomo_dagster.graph.work.sample_images import SampleImages
    from fomo_dagster.plots.contact_sheet import contact_sheet
    from fomo_dagster.plots.pairs_sheet import pair_tiles
    from fomo_dagster.store.files import write_bytes

    check_is_png(path, "--sheet")
    image_of = SampleImages(lambda: RunContext(build_project(project_folder()), home))
    write_bytes(path, contact_sheet(pair_tiles(pairs, image_of), title), named=True)

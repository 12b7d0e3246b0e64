"""What `fomo errors` shows: which test samples are wrong, and which concepts were hit hardest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console

from fomo_dagster.cli.output import say
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError
from fomo_dagster.evaluation.calibration import reliability
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.sample_images import SampleImages
from fomo_dagster.home import Home, project_folder
from fomo_dagster.plots.errors_sheet import errors_sheet
from fomo_dagster.plots.reliability import reliability_plot
from fomo_dagster.store.files import write_bytes
from fomo_dagster.tables.prediction_changes import NEWLY_WRONG, Errors
from fomo_dagster.tables.predictions import retire_without_predictions


def retire_evaluations(name_or_path: str, overrides: Sequence[str]) -> None:
    """Have a run of an experiment or a sweep evaluate again what has no predictions, of what is up
    to date: it evaluates all else in any case."""
    request = resolve_request(name_or_path, overrides)
    for entry in request.plan():
        head = request.home.heads.read(entry.asset) if entry.current else None
        if head is not None and head.experiment is not None:
            retire_without_predictions(request.home, head)


def print_errors(found: Errors, most: int, console: Console) -> None:
    """The datasets, and the concepts that were hit hardest, `most` of them."""
    print_frame(found.shown(found.changes.by_dataset), found.title, console, narrow="dataset")
    if found.changes.left_out:
        say(console, f"{found.changes.left_out} queries are in one of the two alone, and left out")
    for remark in found.remarks:
        say(console, remark)
    hit = found.changes.by_concept.filter(pl.col(NEWLY_WRONG) > 0)
    if hit.is_empty():
        say(console, "nothing is wrong" if found.before is None else "nothing is newly wrong")
        return
    print_frame(found.shown(hit.head(most)), "Concepts, hardest hit first", console,
                narrow="concept")  # fmt: skip
    if hit.height > most:
        say(console, f"{hit.height - most} more concepts: --most {hit.height}")


def write_sheet(found: Errors, home: Home, path: Path) -> None:
    """A contact sheet of what is (newly) wrong. Raises `InputError` if no image can be shown, and
    for a path that is not that of a PNG."""
    check_is_png(path, "--sheet")
    image_of = SampleImages(lambda: RunContext(build_project(project_folder()), home))
    write_bytes(path, errors_sheet(found.wrong, image_of, found.title), named=True)


def write_reliability(found: Errors, path: Path) -> None:
    """Reliability diagrams of the classification datasets, of both stages where there are two.
    Raises `InputError` if there is none, and for a path that is not that of a PNG."""
    check_is_png(path, "--reliability")
    looked_at = (found.now,) if found.before is None else (found.before, found.now)
    panels: dict[str, dict[str, pl.DataFrame]] = {}
    for predictions in looked_at:
        rows = predictions.rows.filter(task="classification").sort("dataset")
        for (dataset,), of in rows.group_by("dataset", maintain_order=True):
            confidences = of["probability_of_predicted"].cast(pl.Float64).to_numpy()
            label = f"{predictions.experiment}, stage {predictions.stage}"
            curve = reliability(confidences, of["correct"].to_numpy())
            panels.setdefault(str(dataset), {})[label] = curve
    if not panels:
        raise InputError(f"{found.title}: --reliability needs a classification dataset")
    write_bytes(path, reliability_plot(panels, f"Reliability: {found.title}"), named=True)


def check_is_png(path: Path, option: str) -> None:
    """Raise `InputError` for a path that is not that of a PNG."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{option} is {str(path)!r}: it is written as PNG, so name a .png file")

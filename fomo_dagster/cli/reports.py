"""`fomo report`: a page about methods, with everything on it as files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from fomo_dagster.cli.sweeps import replicates_of
from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.home import Home, project_folder
from fomo_dagster.reports.making import report_of
from fomo_dagster.reports.members import Reported, experiments_of_methods
from fomo_dagster.reports.writing import Written, write_report
from fomo_dagster.tables.results import leaderboard

logger = logging.getLogger(__name__)


def make_report(
    home: Home, names: Sequence[str], baseline: str | None, folder: Path, *, common: bool
) -> tuple[Written, Sequence[str]]:
    """Write the report of methods and sweeps; returns what was written, and what to say of it."""
    asked = list(dict.fromkeys([baseline, *names] if baseline is not None else names))
    found = {name: _experiments(name, home) for name in asked}
    experiments = [one for there, _ in found.values() for one in there]
    missing = {name: others for name, (_, others) in found.items() if others}
    if not experiments:
        raise InputError(
            f"nothing of {', '.join(asked)} has scores yet: `fomo run {asked[0]}` computes them"
        )
    if baseline is not None and len(found[baseline][0]) == 0:
        raise InputError(f"--baseline {baseline} has no scores yet: `fomo run {baseline}`")
    members = experiments_of_methods(home, experiments)
    of_baseline = experiments_of_methods(home, found[asked[0]][0])
    if baseline is not None and len(of_baseline) > 1:
        raise InputError(
            f"--baseline {baseline} is {len(of_baseline)} methods: name one of "
            f"{', '.join(of_baseline)}"
        )
    said = [
        f"without scores, failed or not finished: {', '.join(others)} (`fomo run {name}`)"
        for name, others in missing.items()
    ]
    without = [name for name, (there, _) in found.items() if not there]
    reported = Reported(
        home, members, asked, without, common=common, said=said, image_of=_Images(home)
    )
    report = report_of(reported)
    return write_report(report, folder), report.remarks


class _Images:
    """The images of test samples. What they are read from is opened once one is asked for."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._of: dict[str, Callable[[str, str], Image.Image | None]] = {}

    def __call__(self, dataset: str, key: str) -> Image.Image | None:
        """None if the image is no longer there."""
        from fomo_dagster.cli.prediction_errors import images_of  # which loads the graph

        if dataset not in self._of:
            try:
                self._of[dataset] = images_of(self._home, [dataset])
            except FomoError as error:
                logger.warning("no pictures of %s: %s", dataset, error)
                self._of[dataset] = lambda *_: None
        return self._of[dataset](dataset, key)


def _experiments(name: str, home: Home) -> tuple[list[str], list[str]]:
    """The experiments that a name stands for: those with scores, and the others."""
    with_scores = set(leaderboard(home.root)["experiment"])
    own = name.replace("/", "_")
    replicates = replicates_of(home).get(own, [])
    try:
        declared = load_named(name, project_folder()).all_names
    except InputError:  # as of what was run before its file was removed
        if own not in with_scores and not replicates:
            raise
        declared = [] if replicates else [own]
    names = list(dict.fromkeys([*declared, *replicates]))
    there = [one for one in names if one in with_scores]
    return there, [one for one in names if one not in with_scores]

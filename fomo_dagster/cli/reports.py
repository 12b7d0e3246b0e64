"""`fomo report`: a page about methods, with everything on it as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fomo_dagster.cli.comparing import named_comparison
from fomo_dagster.cli.sweeps import replicates_of
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.comparison import LoadedComparison
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.sample_images import SampleImages
from fomo_dagster.home import Home, project_folder
from fomo_dagster.reports.making import report_of
from fomo_dagster.reports.members import Reported, experiments_of_methods
from fomo_dagster.reports.writing import Written, write_report
from fomo_dagster.tables.answers import members_there
from fomo_dagster.tables.results import leaderboard


def make_report(
    home: Home,
    names: Sequence[str],
    baseline: str | None,
    folder: Path,
    *,
    margin: float | None,
    common: bool,
) -> tuple[Written, Sequence[str]]:
    """Write the report of methods and sweeps, or of a comparison, whose margin counts where none is
    given; returns what was written, and what to say of it."""
    asked = list(dict.fromkeys([baseline, *names] if baseline is not None else names))
    declared = named_comparison(names)
    found = {name: _experiments(name, home) for name in asked}
    experiments = [one for there, _ in found.values() for one in there]
    missing = {name: others for name, (_, others) in found.items() if others}
    if not experiments:
        raise InputError(
            f"nothing of {', '.join(asked)} has scores yet: `fomo run {asked[0]}` computes them"
        )
    if baseline is not None and len(found[baseline][0]) == 0:
        raise InputError(f"--baseline {baseline} has no scores yet: `fomo run {baseline}`")
    known = {} if declared is None else _with_scores(declared, experiments)
    methods = {name: _methods(name, there, known, home) for name, (there, _) in found.items()}
    if declared is not None:
        methods |= dict.fromkeys(names, known)
    members: dict[str, list[str]] = {}
    for of_name in methods.values():
        members |= {method: own for method, own in of_name.items() if method not in members}
    for method, own in members.items():
        members_there(home, method, own)  # refuses replicates that were run with other settings
    if baseline is not None and len(methods[baseline]) > 1:
        raise InputError(
            f"--baseline {baseline} is {len(methods[baseline])} methods: name one of "
            f"{', '.join(methods[baseline])}"
        )
    said = [
        f"without scores, failed or not finished: {', '.join(others)} (`fomo run {name}`)"
        for name, others in missing.items()
    ]
    without = [name for name, (there, _) in found.items() if not there]
    reported = Reported(
        home, members, asked if declared is None else names, declared is not None,
        _options(None if declared is None else baseline, margin, common=common), without,
        margin=margin, common=common, said=said, image_of=SampleImages(_context),
    )  # fmt: skip
    if declared is not None:
        reported = replace(
            reported,
            margin=declared.declared.margin if margin is None else margin,
            target=declared.declared.score_to_reach,
            common=declared.declared.common or common,
            metrics=declared.declared.metrics,
        )
    report = report_of(reported)
    return write_report(report, folder), report.remarks


def _options(baseline: str | None, margin: float | None, *, common: bool) -> list[str]:
    """As on the command line. baseline: None where it is the first of the names."""
    return [
        *([] if baseline is None else ["--baseline", baseline]),
        *([] if margin is None else ["--margin", f"{margin:g}"]),
        *(["--common"] if common else []),
    ]


def _context() -> RunContext:
    return RunContext(build_project(project_folder()), Home.from_environment())


def _with_scores(declared: LoadedComparison, there: Sequence[str]) -> dict[str, list[str]]:
    """Method → those of its experiments that are there, of the methods that have any."""
    found = {name: [one for one in of if one in there] for name, of in declared.experiments.items()}
    return {name: of for name, of in found.items() if of}


def _methods(
    name: str, there: Sequence[str], known: Mapping[str, list[str]], home: Home
) -> dict[str, list[str]]:
    """The methods that a name stands for, and their experiments. there: the experiments with
    scores that it names; known: the methods of the comparison that was asked for."""
    own = name.replace("/", "_")
    if own in known:
        return {own: known[own]}
    # A replicate that is named by itself is set against others, as by `fomo compare`.
    return {own: [own]} if [*there] == [own] else experiments_of_methods(home, there)


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

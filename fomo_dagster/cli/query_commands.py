"""`fomo results`, `fomo compare`, `fomo report`, `fomo errors` and `fomo sql`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_csv, print_data, print_json, say
from fomo_dagster.collecting import uncollected
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home

AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Margin = Annotated[
    float | None,
    typer.Option(
        min=0, help="Points within which methods count as equivalent, and one as no worse."
    ),
]
Common = Annotated[
    bool,
    typer.Option(
        "--common", help="Compare what all have in common: replicates, datasets, test samples."
    ),
]
Format = Literal["table", "records", "csv", "json"]


@uncollected()
def results(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(metavar="EXPERIMENT", help="Experiments or sweeps; all by default."),
    ] = None,
    datasets: Annotated[
        bool,
        typer.Option(
            "--datasets",
            help="Show scores by dataset instead: the last stage's, θ₀'s and the published ones.",
        ),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="COST",
            help="Show GM against a cost, summed over the stages so far: samples, flops, seconds, "
            "energy_joules, peak_device_memory_bytes or peak_process_memory_bytes.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="With --against: draw the curves into this file."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Print the scores of every stage, and the leaderboard.

    KA is the mean score over the adaptation datasets, ZS over the held-out ones, and GM is
    √(KA · ZS). A sweep gets one leaderboard, with a column for each value that it varies.
    """
    from fomo_dagster.tables.views import at_one_moment

    if plot is not None and against is None:
        raise InputError("--plot draws scores against a cost: say which with --against")
    home = Home.from_environment()
    with at_one_moment(home.root):
        _print_results(
            home, experiments or (), by_dataset=datasets, against=against, plot=plot,
            as_json=as_json, as_csv=as_csv,
        )  # fmt: skip


def _print_results(
    home: Home,
    experiments: Sequence[str],
    *,
    by_dataset: bool,
    against: str | None,
    plot: Path | None,
    as_json: bool,
    as_csv: bool,
) -> None:
    from fomo_dagster.cli.planning import say_troubles_of_project
    from fomo_dagster.cli.reporting import (
        means_there,
        print_by_cost,
        print_by_dataset,
        print_methods,
        print_scores,
        say_chances,
    )
    from fomo_dagster.cli.sweeps import asked_for, leaderboard_of, print_sweep
    from fomo_dagster.store.files import write_bytes
    from fomo_dagster.tables.results import chances, results_by_dataset, scores_by_cost
    from fomo_dagster.tables.results import results as read_results

    names, sweep = asked_for(experiments, home)
    say_troubles_of_project()
    if by_dataset or against is not None:
        if against is not None:
            frame = scores_by_cost(home.root, names, against)
        else:
            frame = results_by_dataset(home.root, names)
        if plot is not None and against is not None:
            from fomo_dagster.plots.scores import cost_plot
            from fomo_dagster.tables.replicates import methods_by_cost

            by_method, otherwise = methods_by_cost(home.root, names)
            write_bytes(plot, cost_plot(by_method, against), named=True)
            for name, why in otherwise.items():
                say(Terminal(stderr=True), f"no curve of {name}: {why}")
        if as_json:
            print_json(frame.to_dicts())
        elif as_csv:
            print_csv(frame)
        else:
            (print_by_dataset if against is None else print_by_cost)(frame)
        return
    found = read_results(home.root, names)
    board = found.leaderboard if sweep is None else leaderboard_of(home, sweep)
    if as_json:
        guessed = chances(home.root, found.leaderboard["experiment"].to_list())
        print_json(
            {
                "stages": found.stages.to_dicts(),
                "leaderboard": board.to_dicts(),
                "methods": means_there(home, names)[0].to_dicts(),
                "chances": guessed.to_dicts(),
            }
        )
    elif as_csv:
        print_csv(found.stages)
    elif sweep is not None:
        print_sweep(home, sweep, Terminal())
    else:
        print_scores(found)
        say_chances(home, names, Terminal())
        print_methods(home, names, Terminal())


def errors(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="An experiment that was evaluated.")
    ],
    stage: Annotated[
        int | None, typer.Option(min=0, help="Of this stage; by default the last one.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="On this dataset alone.")] = None,
    since: Annotated[
        int | None,
        typer.Option(
            metavar="STAGE",
            min=0,
            help="Show what became wrong or right since then; 0 is θ₀.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="EXPERIMENT",
            help="Show what another experiment gets right and this one wrong, and the reverse; "
            "with --since, by that stage of the other.",
        ),
    ] = None,
    common: Annotated[
        bool,
        typer.Option(
            "--common",
            help="With --against: look at the datasets and test samples that both evaluate alike.",
        ),
    ] = False,
    most: Annotated[int, typer.Option(min=1, help="How many concepts to show.")] = 10,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw a contact sheet of the images into this file."),
    ] = None,
    reliability: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw how often answers are right over how sure the weights are of them.",
        ),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show which test samples are wrong, and which concepts were hit hardest.

    Wrong is what the score counts as wrong: an image of another class, in retrieval an image or a
    caption whose right answer is not among the first five. JSON and CSV have each sample.
    """
    from fomo_dagster.cli.prediction_errors import (
        print_errors,
        write_reliability,
        write_sheet,
    )
    from fomo_dagster.tables.prediction_changes import errors_of

    _chosen(None, as_json=as_json, as_csv=as_csv)
    if common and against is None:
        raise InputError("--common is what two experiments share: say with which, by --against")
    home = Home.from_environment()
    found = errors_of(
        home, _name_of(experiment), stage=stage, dataset=dataset, since=since,
        against=None if against is None else _name_of(against), common=common,
    )  # fmt: skip
    if sheet is not None:
        write_sheet(found, home, sheet)
    if reliability is not None:
        write_reliability(found, reliability)
    if as_json:
        print_json(
            {
                "datasets": found.changes.by_dataset.to_dicts(),
                "concepts": found.changes.by_concept.to_dicts(),
                "samples": found.samples.to_dicts(),
            }
        )
    elif as_csv:
        print_csv(found.samples)
    else:
        print_errors(found, most, Terminal())


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD",
            help="Experiments; the name of a file with replicates is all of them. Or the one "
            "comparison that a file declares, as in comparisons/NAME.",
        ),
    ],
    baseline: Annotated[
        str | None, typer.Option(help="What the others are compared with; by default the first.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="Compare by KA, ZS or GM alone, on its datasets; can be repeated. By default by "
            "all three.",
        ),
    ] = None,
    margin: Margin = None,
    common: Common = False,
    as_json: AsJson = False,
) -> None:
    """Say by how much methods differ, and whether that is more than chance.

    Differences are paired: replicate by replicate and test sample by test sample, at the last
    stages. Intervals are over both.
    """
    from fomo_dagster.cli.comparing import (
        as_data,
        compared_by_name,
        metrics_named,
        named_comparison,
        print_comparisons,
    )

    metrics = metrics_named(metric or ())
    comparison = named_comparison(methods)
    if comparison is not None:
        metrics = metrics or comparison.declared.metrics
        methods = list(comparison.methods)
        margin = comparison.declared.margin if margin is None else margin
        common = comparison.declared.common or common
    named = list(map(_name_of, methods))
    base = None if baseline is None else _name_of(baseline)
    home = Home.from_environment()
    found = compared_by_name(
        home, named, base, margin=margin, common=common, metrics=metrics,
        experiments=None if comparison is None else comparison.experiments,
    )  # fmt: skip
    if as_json:
        print_json(as_data(found))
    else:
        print_comparisons(found, Terminal())


def report(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Experiments and sweeps; a file with replicates is all of them. Or a comparison, "
            "as in comparisons/NAME.",
        ),
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.")] = Path(
        "report"
    ),
    baseline: Annotated[
        str | None, typer.Option(help="What the others are compared with; by default the first.")
    ] = None,
    margin: Margin = None,
    common: Common = False,
) -> None:
    """Write a page about methods, with its tables as CSV and LaTeX, its figures as SVG and PDF.

    The page is one file without scripts. Of the folder's other files none is replaced.
    """
    from fomo_dagster.cli.reports import make_report

    home = Home.from_environment()
    written, remarks = make_report(home, names, baseline, to, margin=margin, common=common)
    console = Terminal()
    for remark in remarks:
        say(console, remark)
    say(console, written.sentence)


@uncollected()
def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            help='Such as "SELECT * FROM scores". The name of a view alone shows what its columns '
            "mean; without a query, the views are listed."
        ),
    ] = None,
    layout: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="How to print the rows. By default a table, or records if the terminal is too "
            "narrow for a table.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Same as --format csv.")] = False,
    external: Annotated[
        bool,
        typer.Option(
            "--external",
            help="Let the query read any file or address; DuckDB installs what it needs for that.",
        ),
    ] = False,
    path: Annotated[
        bool, typer.Option("--path", help="Print the path of the DuckDB file, for other programs.")
    ] = False,
) -> None:
    """Query the tables with DuckDB's SQL.

    A query can read the tables of this project and nothing else, and it cannot write.
    """
    from fomo_dagster.cli.rows import print_rows
    from fomo_dagster.tables.comments import explaining
    from fomo_dagster.tables.database import ensure_database
    from fomo_dagster.tables.views import answer_as_json, answer_as_text

    chosen = _chosen(layout, as_json=as_json, as_csv=as_csv)
    home = Home.from_environment()
    if path:
        print_data(f"{ensure_database(home.root)}\n")
        return
    asked = explaining(query) or query
    assert asked is not None
    if chosen == "json":
        rows = answer_as_json(home.root, asked, external=external)
        print_data("[" + ",".join(f"\n {row}" for row in rows) + "\n]\n")
        return
    frame, numbers = answer_as_text(home.root, asked, external=external)
    if chosen == "csv":
        print_csv(frame)
    else:
        print_rows(frame, chosen or "auto", numbers)


def _name_of(reference: str) -> str:
    """What an experiment in a folder, or one of a sweep, is called by its assets and rows."""
    return reference.replace("/", "_")


def _chosen(layout: Format | None, *, as_json: bool, as_csv: bool) -> Format | None:
    """The one format that is asked for."""
    asked: dict[Format, str] = {}
    if layout is not None:
        asked[layout] = f"--format {layout}"
    if as_json:
        asked.setdefault("json", "--json")
    if as_csv:
        asked.setdefault("csv", "--csv")
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked.values())} ask for several formats: choose one")
    return next(iter(asked), None)

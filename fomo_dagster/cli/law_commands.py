"""`fomo fit` and `fomo target`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_json
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME", help="Experiments, sweeps, files with replicates, folders of experiments."
    ),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        metavar="METRIC",
        help="A metric of stages, such as KA, ZS or GM, which is the default; training_loss; or "
        "with a dataset one of its metrics, by default its score.",
    ),
]
Dataset = Annotated[str | None, typer.Option(metavar="DATASET", help="Of this dataset alone.")]


def fit(
    names: Names,
    metric: MetricName = None,
    dataset: Dataset = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What the error falls with: samples (the default), flops, parameters or stages.",
        ),
    ] = None,
    every_stage: Annotated[
        bool,
        typer.Option(
            "--every-stage", help="A point for each stage; by default for the last ones alone."
        ),
    ] = False,
    law: Annotated[
        str | None,
        typer.Option(
            metavar="LAW", help="M1, M2, M3 or M4; by default whichever extrapolates best."
        ),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many of the largest values to hold out, by which laws are judged; by "
            "default 1.",
        ),
    ] = None,
    joint: Annotated[
        bool,
        typer.Option(
            "--joint",
            help="Fit E + A / N^α + B / D^β to parameters and samples together, and divide compute "
            "between them.",
        ),
    ] = False,
    approach: Annotated[
        Literal["envelope", "isoflop", "parametric"],
        typer.Option(
            help="With --joint, how to divide compute: by the lower envelope of all curves, by the "
            "best size at equal FLOPs, or by that law.",
        ),
    ] = "parametric",
    at: Annotated[
        list[float] | None,
        typer.Option(
            metavar="X",
            help="Where to look ahead, with --joint in FLOPs; can be repeated. By default at twice "
            "the largest.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it into this .png, .svg or .pdf file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a law of how an error falls, and extrapolate it.

    Where more of the metric is better, the error is 100 less it. The law is chosen by how well it
    predicts the largest points from the others.
    """
    from fomo_dagster.cli.laws import extrapolated, law_as_data, print_law, read_points
    from fomo_dagster.store.files import write_bytes

    home = Home.from_environment()
    if joint:
        from fomo_dagster.cli.joint_laws import COLUMNS, joint_as_data, joint_of, print_joint

        given = {"--against": against, "--law": law, "--hold-out": hold_out, "--to": to}
        if unused := [option for option, value in given.items() if value is not None]:
            raise InputError(f"--joint goes without {' and '.join(unused)}")
        points = read_points(home, names, metric, dataset, COLUMNS, every_stage=every_stage)
        if approach != "parametric":
            from fomo_dagster.cli.divisions import divided, divided_as_data, print_divided

            division = divided(points, approach, at or ())
            if as_json:
                print_json(divided_as_data(division))
            else:
                print_divided(division, Terminal())
            return
        found = joint_of(points, at or ())
        if as_json:
            print_json(joint_as_data(found))
        else:
            print_joint(found, Terminal())
        return
    if approach != "parametric":
        raise InputError(f"--approach {approach} divides compute: give it with --joint")
    against = against or "samples"
    points = read_points(home, names, metric, dataset, [against], every_stage=every_stage)
    of_one = extrapolated(points, against, hold_out or 1, law, at or ())
    if to is not None:
        from fomo_dagster.cli.laws import drawing

        write_bytes(to, drawing(of_one, to.suffix), named=True)
    if as_json:
        print_json(law_as_data(of_one))
    else:
        print_law(of_one, Terminal())


def target(
    names: Names,
    metric: MetricName = None,
    value: Annotated[float | None, typer.Option(help="The target.")] = None,
    of: Annotated[
        str | None,
        typer.Option(metavar="BASELINE", help="The target is what this one has at its last stage."),
    ] = None,
    dataset: Dataset = None,
    every_dataset: Annotated[
        bool, typer.Option("--every-dataset", help="Each dataset is a workload of its own.")
    ] = False,
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column of the view experiments, such as method, which tells apart what is "
            "compared; can be repeated. By default experiments, but for their seeds.",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Each method was tuned with N trials, as a sweep has points: for each seed the "
            "fastest counts.",
        ),
    ] = None,
    cost: Annotated[
        str,
        typer.Option("--in", metavar="COST", help="Compare by steps, samples, flops or seconds."),
    ] = "seconds",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the metric over that cost, with the target and where it is reached, into "
            "this .png, .svg or .pdf file.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what experiments take until they reach a target and keep it.

    A target counts as reached at the first stage from which on all are as good. Where it never is,
    what was spent is a lower bound. Performance profiles and scores are those of AlgoPerf; a
    workload is a stream with a backbone.
    """
    from fomo_dagster.cli.targets import (
        print_targets,
        targets_as_data,
        targets_asked,
        write_drawing,
    )

    found = targets_asked(
        Home.from_environment(), names, metric, value=value, of=of, dataset=dataset,
        every_dataset=every_dataset, by=by or (), cost=cost, trials=trials,
    )  # fmt: skip
    if plot is not None:
        write_drawing(found, plot)
    if as_json:
        print_json(targets_as_data(found))
    else:
        print_targets(found, Terminal())

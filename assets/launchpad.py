"""`fomo run` and `fomo plan` from Dagster's launchpad, with `--set`.

The job of an experiment has the assets that its file declares. Other values can mean other assets,
so this job reads the experiment with them and materialises its assets in a run of their own.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl
from pydantic import Field

from assets.commands import Commands
from assets.descriptions import table_of
from assets.failures import engine_failures
from fomo_dagster.graph.build.names import LAUNCH
from fomo_dagster.graph.run.plan import Planned

OP = "run_or_plan"


class Launch(dg.Config):
    """An experiment, and what differs from its file in this run."""

    experiment: str = Field(
        description="An experiment or a sweep: the name of a file in experiments/, or a path to "
        "one; SWEEP/NAME is one experiment of a sweep, comparisons/NAME a comparison, and "
        "galleries/NAME a gallery."
    )
    set: list[str] = Field(
        default=[],
        description="Values of this run that differ from the file, as in `fomo run --set`: "
        '["optimiser.learning_rate=1e-4", "stream.stages=3"].',
    )
    plan_only: bool = Field(
        default=False,
        description="Show what would be computed and why, as `fomo plan` does; compute nothing.",
    )


def launch_job(commands: Commands, example: str) -> dg.JobDefinition:
    """The job. example: the experiment that the launchpad shows at first."""

    @dg.op(name=OP)
    def launch(context: dg.OpExecutionContext, config: Launch) -> None:
        """Bring the experiment up to date, or only plan it."""
        with engine_failures(context):
            if config.plan_only:
                planned = commands.plan(config.experiment, config.set)
                context.add_output_metadata(metadata_of_plan(planned))
                context.log.info(_said(planned))
            else:
                context.log.info("The experiment's assets are materialised in a run of their own.")
                commands.run(config.experiment, config.set, context.instance)

    first = {"experiment": example, "set": [], "plan_only": True}

    @dg.job(
        name=LAUNCH,
        description="Runs or plans an experiment, with changed values: see Launchpad.",
        executor_def=dg.in_process_executor,
        config={"ops": {OP: {"config": first}}},
    )
    def run_experiment() -> None:
        launch()

    return run_experiment


def metadata_of_plan(planned: Sequence[Planned]) -> dict[str, Any]:
    """What would be computed, as a table, and how much of it."""
    computed = [entry for entry in planned if entry.compute]
    rows = pl.DataFrame(
        [
            (one.asset, "; ".join(one.reasons), one.samples or None, one.estimated_seconds)
            for one in computed
        ],
        schema={
            "asset": pl.String, "why": pl.String, "samples": pl.Int64, "seconds": pl.Float64,
        },
        orient="row",
    )  # fmt: skip
    return {
        "to_compute": len(computed),
        "hits": len(planned) - len(computed),
        "computed_assets": table_of(rows),
    }


def _said(planned: Sequence[Planned]) -> str:
    lines = [f"{one.asset}: {'; '.join(one.reasons)}" for one in planned if one.compute]
    return "\n".join([f"{len(lines)} to compute, {len(planned) - len(lines)} hits", *lines])

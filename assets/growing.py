"""Growing streams in Dagster: a sensor that notices what arrived, and the job that computes it.

Dagster loads its assets once, so a stage that arrives later has none at first. The job therefore
reads the project anew and brings the experiment up to date in a run of its own, as `fomo run` does;
then it asks the UI to load the code location again, and the new stage's assets show what they are.
What failed is noted in the home until it is mended: the graph shows it as an asset of trouble.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import dagster as dg

from assets.commands import Commands
from assets.failures import engine_failures
from assets.schedules import run_that_goes_on
from assets.specs import EXPERIMENT_TAG
from assets.troubles import trouble_asset, trouble_key
from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.build.names import ARRIVALS, GROW
from fomo_dagster.home import UI, Home
from fomo_dagster.store.files import skipped_where_refused, write_bytes
from fomo_dagster.streams.growing import arrivals, last_change

SECONDS_BETWEEN_LOOKS = 60
COMPUTED = "arrivals_are_computed"  # a check of the asset of trouble


class Growth(dg.Config):
    """Which experiment to bring up to date."""

    experiment: str


def grow_job(commands: Commands) -> dg.JobDefinition:
    """The job of `arrivals`."""

    @dg.op(name="compute_what_arrived")
    def compute(context: dg.OpExecutionContext, config: Growth) -> None:
        """Compute the stages that arrived since the definitions were loaded."""
        compute_arrivals(config.experiment, commands, context)

    @dg.job(
        name=GROW,
        description="Computes the stages that arrived in a growing stream's folder.",
        executor_def=dg.in_process_executor,
    )
    def grow_streams() -> None:
        compute()

    return grow_streams


def compute_arrivals(
    experiment: str, commands: Commands, context: dg.OpExecutionContext | dg.AssetExecutionContext
) -> None:
    """Compute what arrived, and show it. If that fails, note why, show that, and fail."""
    noted = noted_failure(Home.from_environment(), experiment)
    try:
        with engine_failures(context):
            commands.run(experiment, [], context.instance, command=f"sensor {ARRIVALS}")
    except dg.Failure as failure:
        reason = str(failure.description)
        with skipped_where_refused():  # such as a full disk, which is a reason in itself
            write_bytes(noted, reason.encode())
        context.instance.report_runless_asset_event(  # which makes the asset of trouble red
            dg.AssetCheckEvaluation(
                asset_key=trouble_key(experiment), check_name=COMPUTED, passed=False,
                metadata={"reason": reason},
            )
        )  # fmt: skip
        show_what_arrived(context)
        raise
    if noted.exists():
        noted.unlink()
    show_what_arrived(context)


def noted_failure(home: Home, experiment: str) -> Path:
    """The file that says why an arrival could not be computed; it does not exist otherwise."""
    return home.root / "failed_arrivals" / f"{experiment}.txt"


def failed_arrival_assets(
    graph: Graph, home: Home, commands: Commands
) -> Iterator[dg.AssetsDefinition]:
    """An asset for each experiment whose last arrival failed; materialising it tries again."""
    for experiment in sorted(graph.growing.keys() & graph.experiments.keys()):
        with contextlib.suppress(OSError):  # where there is none
            reason = noted_failure(home, experiment).read_text(errors="replace")
            folder = graph.growing[experiment].resolve()
            sentence = (
                f"What arrived in {folder} was not computed. {reason}\n\n"
                f"Repair or remove what arrived: the sensor `{ARRIVALS}` then tries again. If "
                "nothing is wrong with it, materialise this asset to try again."
            )
            again = partial(compute_arrivals, experiment, commands)
            check = dg.AssetCheckSpec(COMPUTED, asset=trouble_key(experiment))
            yield trouble_asset(experiment, sentence, again, [check])


def arrival_sensor(growing: Mapping[str, Path], job: dg.JobDefinition) -> dg.SensorDefinition:
    """A sensor over the folders (by experiment) in which streams grow.

    It requests a run the first time, and whenever a folder's entries differ from its last look or
    changed since. While a run of the experiment continues, it waits for its end. So a run that
    failed is requested again once its images are repaired; for one that failed for another reason,
    see `failed_arrival_assets`.
    """

    @dg.sensor(
        name=ARRIVALS,
        job=job,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        description="Notices new entries in the folders of growing streams.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen: dict[str, dict[str, int]] = json.loads(context.cursor or "{}")
        requests, waiting = [], []
        for experiment, folder in growing.items():
            try:
                there = {path.name: last_change(path) for path in arrivals(folder)}
            except (InputError, OSError) as error:  # the other streams grow on
                context.log.error(str(error))
                continue
            if there == seen.get(experiment):
                continue
            other = run_that_goes_on(context.instance, experiment=experiment)
            if other is not None:
                waiting.append(f"{experiment} waits for run {other}")
                continue
            seen[experiment] = there
            config = {"ops": {"compute_what_arrived": {"config": {"experiment": experiment}}}}
            tags = {EXPERIMENT_TAG: experiment}
            requests.append(dg.RunRequest(run_config=config, tags=tags))
        said = "; ".join(waiting) or None
        if requests and said:
            context.log.info(said)
        return dg.SensorResult(
            run_requests=requests, cursor=json.dumps(seen),
            skip_reason=said if not requests else None,
        )  # fmt: skip

    return look


def show_what_arrived(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
    """Have the UI load this code location again, where it is known; what was computed is safe."""
    address, origin = os.environ.get(UI), context.run.remote_job_origin
    if address is None or origin is None:
        context.log.info("Reload the code location to see what arrived.")
        return
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

    location = origin.repository_origin.code_location_origin.location_name
    host, _, port = address.rpartition(":")
    try:
        answer = DagsterGraphQLClient(host, port_number=int(port)).reload_repository_location(
            location
        )
    except (DagsterGraphQLClientError, OSError) as error:
        context.log.warning(f"Reload the code location by hand: the UI does not answer ({error}).")
        return
    context.log.info(f"The UI was asked to load {location} again: {answer.status.value}")

"""`fomo run`: plan, materialise through Dagster what the plan says, and show the scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from rich.console import Console

from assets.building import build_assets
from assets.specs import key_of
from fomo_dagster.cli.bars import Bars
from fomo_dagster.cli.dagster_home import prepare, run_tags
from fomo_dagster.cli.planning import Undertaking, undertake
from fomo_dagster.cli.reporting import print_results
from fomo_dagster.errors import FomoError, StoreError
from fomo_dagster.graph.build import Graph
from fomo_dagster.graph.materialise import retire
from fomo_dagster.graph.plan import Planned
from fomo_dagster.graph.workshop import Workshop
from fomo_dagster.home import Home
from fomo_dagster.store.leases import lease

# A run can bring what its plan could not know: images that turn out to be unreadable.
MOST_ROUNDS = 3
DATA_VERSION_TAG = "dagster/data_version"  # where Dagster keeps an observation's data version


def run_experiment(name_or_path: str, overrides: Sequence[str]) -> None:
    """Bring an experiment up to date. Raises what failed."""
    console = Console(highlight=False)
    undertaking = undertake(name_or_path, overrides)
    name = undertaking.experiment.name
    home = undertaking.home

    def waiting(holder: str) -> None:
        console.print(f"process {holder} is running {name}; waiting for it")

    with lease(home.leases / f"experiment_{name}", waiting):
        for _ in range(MOST_ROUNDS):
            planned = undertaking.plan()
            wanted = [entry for entry in planned if not entry.current]
            if not wanted:
                break
            computed = sum(entry.status == "compute" for entry in wanted)
            console.print(f"{name}: {computed} assets to compute, {len(planned) - computed} hits")
            _materialise(undertaking, wanted, console)
        else:
            left = [entry.asset for entry in undertaking.plan() if not entry.current]
            if left:
                raise StoreError(f"{name}: still out of date after {MOST_ROUNDS} rounds: {left}")
        retire(name, Workshop(undertaking.graph, home))
    if not wanted:
        console.print(f"{name} is up to date ({len(planned)} assets)")
    print_results(home, name, undertaking.graph, console)


def _materialise(undertaking: Undertaking, wanted: Sequence[Planned], console: Console) -> None:
    instance = prepare(undertaking.home)
    observe_sources(undertaking, instance)
    keys = [key_of(entry.asset) for entry in wanted]
    assets = build_assets(undertaking.graph)
    with Bars(console, len(wanted)) as bars:
        workshops = _ShownWorkshops(undertaking.home, bars)
        result = dg.materialize(
            assets,
            selection=dg.AssetSelection.assets(*keys),
            instance=instance,
            resources={"workshops": workshops},
            run_config=QUIET,
            tags=run_tags(),
            raise_on_error=False,
        )
    if not result.success:
        raise _failure(result)


@dataclass(frozen=True)
class _ShownWorkshops:
    """The assets' resource of a command: progress goes to its terminal."""

    home: Home
    bars: Bars

    def open(self, graph: Graph, log: Any) -> Workshop:
        return Workshop(
            graph,
            self.home,
            processes=os.cpu_count() or 1,
            progress=self.bars,
            waiting=self.bars.waiting,
            finished=self.bars.finished,
        )


def observe_sources(undertaking: Undertaking, instance: dg.DagsterInstance) -> None:
    """Tell Dagster what the sources hold now, so that its UI calls stale what is."""
    workshop = Workshop(undertaking.graph, undertaking.home)
    needed = {key for node in undertaking.nodes for key in node.inputs}
    for key in sorted(needed & undertaking.graph.sources.keys()):
        tags = {DATA_VERSION_TAG: workshop.look(key).data_version}
        instance.report_runless_asset_event(dg.AssetObservation(key_of(key), tags=tags))


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def _failure(result: dg.ExecuteInProcessResult) -> FomoError:
    """What failed first, as the error that the engine raised where it raised one."""
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause if error is not None and error.cause is not None else error
            message = cause.message.strip() if cause is not None else "no reason was given"
            return StoreError(f"{event.step_key} failed: {message}")
    return StoreError(f"run {result.run_id} failed; see it in the UI")

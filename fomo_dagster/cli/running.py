"""`fomo run`: plan, materialise through Dagster what the plan says, and show the scores."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
from rich.console import Console

from assets.building import build_assets
from assets.specs import key_of
from fomo_dagster.cli.bars import Bars
from fomo_dagster.cli.dagster_home import clearing, prepare, run_tags
from fomo_dagster.cli.failures import failure_of, interruption_of
from fomo_dagster.cli.interruptions import Signals, StoppedError
from fomo_dagster.cli.planning import Undertaking, undertake, warn_once
from fomo_dagster.cli.reporting import print_results
from fomo_dagster.errors import StoreError
from fomo_dagster.graph.build import Graph
from fomo_dagster.graph.materialise import retire
from fomo_dagster.graph.plan import Planned
from fomo_dagster.graph.workshop import Workshop
from fomo_dagster.home import Home
from fomo_dagster.store.leases import lease

# A run can bring what its plan could not know: images that turn out to be unreadable.
MOST_ROUNDS = 3
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
DATA_VERSION_TAG = "dagster/data_version"  # where Dagster keeps an observation's data version


def run_experiment(
    name_or_path: str, overrides: Sequence[str], instance: dg.DagsterInstance | None = None
) -> None:
    """Bring an experiment up to date. Raises what failed; `StoppedError` on SIGINT and SIGTERM.

    instance: where Dagster keeps what happens; by default in the project's home.
    """
    with Signals() as signals:
        try:
            _run(name_or_path, overrides, instance, signals)
        except KeyboardInterrupt as error:
            number = signals.received or signal.SIGINT
            message = f"stopped by {number.name}; the same command goes on from here"
            raise StoppedError(number, message) from error


def _run(
    name_or_path: str,
    overrides: Sequence[str],
    instance: dg.DagsterInstance | None,
    signals: Signals,
) -> None:
    console = Console(highlight=False)
    undertaking = undertake(name_or_path, overrides)
    name = undertaking.experiment.name
    home = undertaking.home

    def waiting(holder: str) -> None:
        console.print(f"process {holder} is running {name}; waiting for it")

    with lease(home.leases / f"experiment_{name}", waiting):
        planned = undertaking.plan()
        rounds = 0
        while wanted := [entry for entry in planned if not entry.current]:
            if rounds == MOST_ROUNDS:
                left = ", ".join(entry.asset for entry in wanted)
                raise StoreError(f"{name}: still out of date after {rounds} rounds: {left}")
            computed = sum(entry.status == "compute" for entry in wanted)
            console.print(f"{name}: {computed} assets to compute, {len(planned) - computed} hits")
            _materialise(
                undertaking, wanted, instance or prepare(home), console=console, signals=signals
            )
            planned = undertaking.plan()
            rounds += 1
        retire(name, Workshop(undertaking.graph, home))
    console.print(f"{name} is up to date ({len(planned)} assets)")
    print_results(home, name, undertaking.graph, console)


def _materialise(
    undertaking: Undertaking,
    wanted: Sequence[Planned],
    instance: dg.DagsterInstance,
    *,
    console: Console,
    signals: Signals,
) -> None:
    observe_sources(undertaking, instance)
    keys = [key_of(entry.asset) for entry in wanted]
    assets = build_assets(undertaking.graph)
    with Bars(console, len(wanted)) as bars, clearing(instance, bars.waiting_for_slot):
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
    if result.success:
        return
    number = signals.received
    if number is not None:
        instance.report_run_canceled(result.dagster_run, f"stopped by {number.name}")
        where = interruption_of(result) or f"stopped by {number.name}"
        raise StoppedError(number, f"{where}; the same command goes on from here")
    raise failure_of(result)


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
            warn=partial(warn_once, say=self.bars.warn),
        )


def observe_sources(undertaking: Undertaking, instance: dg.DagsterInstance) -> None:
    """Tell Dagster what the sources hold now, so that its UI calls stale what is."""
    workshop = Workshop(undertaking.graph, undertaking.home)
    needed = {key for node in undertaking.nodes for key in node.inputs}
    for key in sorted(needed & undertaking.graph.sources.keys()):
        tags = {DATA_VERSION_TAG: workshop.look(key).data_version}
        instance.report_runless_asset_event(dg.AssetObservation(key_of(key), tags=tags))

"""How close to the best schedule a wide graph runs.

    python benchmarks/width.py [--chains 40] [--stages 20] [--slots 64] [--seconds 10]

Chains of trainings, each followed by its evaluation, go through Dagster on slots of the CPU.
Claims, priorities, threads and Dagster's own book-keeping are real; only the work is a sleep. The
wall time stands beside the two bounds that no schedule beats: the longest chain, and all work
divided by the slots.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import dagster as dg

from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.run.devices import Claim, Devices, Lending
from fomo_dagster.graph.run.pending import Place
from resources.dagster_internals import execute
from resources.step_threads import step_threads

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=40)
    parser.add_argument("--stages", type=int, default=20)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a training")
    arguments = parser.parse_args()
    seconds, stages = arguments.seconds, arguments.stages
    with tempfile.TemporaryDirectory() as folder:
        lending = Lending(Devices(cpu=arguments.slots, is_declared=True), Path(folder))
        assets = [
            asset
            for chain in range(arguments.chains)
            for stage in range(stages)
            for asset in stage_assets(chain, stage, stages, seconds, lending)
        ]
        definitions = dg.Definitions(
            assets, jobs=[dg.define_asset_job("wide")], executor=step_threads
        )
        job = definitions.resolve_job_def("wide")
        with dg.instance_for_test(temp_dir=folder) as instance:
            began = time.monotonic()
            result = execute(job, instance.create_run_for_job(job, run_config=QUIET), instance)
            took = time.monotonic() - began
            assert result.success
    chain = stages * seconds + seconds / 2
    work = arguments.chains * stages * seconds * 1.5 / arguments.slots
    print(f"{len(assets)} assets: {took:.1f} s; longest chain {chain:.1f} s, work {work:.1f} s")


def stage_assets(
    chain: int, stage: int, stages: int, seconds: float, lending: Lending
) -> list[dg.AssetsDefinition]:
    """A training and its evaluation, which takes half as long."""

    def sleep(name: str, duration: float, remaining: float) -> None:
        place = Place(name, {name: remaining})
        claim = Claim(Needs(device="cpu", devices=1), lending, name, lambda _: None, place)
        with claim.held():
            time.sleep(duration)

    name, before = f"chain_{chain}_stage_{stage}", f"chain_{chain}_stage_{stage - 1}"

    @dg.asset(name=name, deps=[before] if stage else [])
    def trained() -> None:
        sleep(name, seconds, (stages - stage) * seconds + seconds / 2)

    @dg.asset(name=f"{name}_evaluation", deps=[name])
    def evaluated() -> None:
        sleep(name, seconds / 2, seconds / 2)

    return [trained, evaluated]


if __name__ == "__main__":
    main()

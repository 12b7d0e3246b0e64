"""Materialises one node: finds or makes its artifacts, writes its rows, moves its head.

The head moves last. Until then the tables show the previous rows, whole.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fomo_dagster.graph.core.facts import identity
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.run.cleaned import left_as_it_is
from fomo_dagster.graph.run.devices import Claim
from fomo_dagster.graph.run.installed import installed
from fomo_dagster.graph.run.launching import make, make_side_by_side
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.heads import Head
from fomo_dagster.tables import runs
from fomo_dagster.tables.files import write_table


def materialise(key: str, context: RunContext) -> Outcome:
    """Materialise an asset from what its upstream assets are now. What was cleaned stays so where
    nothing is made from it, and what is packed stays so: the outcome then has no artifacts.

    Raises `InputError` if one of these was never materialised or belongs to another declaration,
    and whatever making raises. Nothing of the asset has changed then.
    """
    node: Node = context.graph.nodes[key]
    started = time.monotonic()
    facts = node.input_facts(context)
    recipes = node.settled(facts, context)
    left = left_as_it_is(node, recipes, context)
    if left is not None:
        context.heads.write(left)
        seconds = time.monotonic() - started
        context.run.finished(left, seconds)
        return Outcome(left, {}, (), seconds)
    claim = context.claim(node)
    made = make_side_by_side(node, recipes, claim, context)
    artifacts: dict[str, Artifact] = {}
    unclaimed = replace(claim, needs=Needs())
    for name, recipe in recipes.items():
        takes_long = node.needs_of(name) is not None
        own = claim if takes_long else unclaimed
        artifact = context.get_or_make(
            recipe,
            lambda folder, name=name, recipe=recipe, own=own: make(  # type: ignore[misc]
                node, name, recipe, folder, own, context
            ),
            own.held,
            takes_long=takes_long,
        )
        execution = node.parallelism
        if execution is not None and execution.resume_remote:
            # Who made it may have been killed before, or have copied another point since.
            copies = context.resume_copies(recipe)
            if copies is not None:
                copies.remove()
        artifacts[name] = replace(artifact, computed=True) if name in made else artifact
    found = node.facts_of_made(recipes, artifacts, context)
    digest = identity(recipes)
    tables = {
        table: digest_of_file(write_table(context.home.root, table, key, digest, rows))
        for table, rows in node.tables(artifacts, facts)
    }
    computed = tuple(name for name, artifact in artifacts.items() if artifact.computed)
    cost = _total_cost(artifacts)
    head = Head(
        asset=key,
        kind=node.kind,
        makes_weights=node.makes_weights,
        experiment=node.experiment,
        stage=node.stage,
        digest=digest,
        data_version=found.data_version,
        code_version=context.graph.code_versions[key],
        recipes={name: recipe.as_data() for name, recipe in recipes.items()},
        artifacts={name: (a.kind, a.digest) for name, a in artifacts.items()},
        facts=found.details.as_data(),
        status="computed" if computed else "hit",
        recorded_at=max(artifact.created_at for artifact in artifacts.values()),
        seconds=cost.get("seconds"),
        cost=cost,
        checked_at=datetime.now(UTC).isoformat(),
        tables=tables,
    )
    context.heads.write(head)
    seconds = time.monotonic() - started - claim.waited
    runs.append(context.home.root, _row(head, node, artifacts, claim, seconds, context))
    context.run.finished(head, seconds)
    context.say(node.warnings(artifacts) if computed else ())
    outcome = Outcome(head, artifacts, computed, seconds)
    context.say(node.follow_up(outcome, context))
    return outcome


def remove_stale_heads(experiment: str, context: RunContext) -> list[str]:
    """Remove the heads of assets that an experiment no longer has, such as stages past its last."""
    stream = context.graph.experiments[experiment].stream_name
    there = [*context.heads.below(experiment), *context.heads.below(f"streams/{stream}")]
    gone = [key for key in there if key not in context.graph.nodes]
    for key in gone:
        context.heads.remove(key)
    return gone


def _row(
    head: Head,
    node: Node,
    artifacts: dict[str, Artifact],
    claim: Claim,
    seconds: float,
    context: RunContext,
) -> dict[str, Any]:
    """What is recorded of a materialisation."""
    computed = {name: artifact for name, artifact in artifacts.items() if artifact.computed}
    cost = _total_cost(computed)
    needs = node.needs if computed else None
    devices = 0 if needs is None else needs.devices * needs.machines
    if node.parallel_over_artifacts:  # each of which one process makes, on a device of its own
        devices = min(devices, 1)
    return {
        "asset": head.asset,
        "kind": head.kind,
        "experiment": head.experiment,
        "stage": head.stage,
        "digest": head.digest,
        "status": head.status,
        "computed": list(computed),
        "began": (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(),
        "seconds": seconds,
        "making_seconds": cost.get("seconds", 0.0),
        "samples": cost.get("samples"),
        "flops": cost.get("flops"),
        "energy_joules": cost.get("energy_joules"),
        "device": None if needs is None else "+".join(sorted(claim.used)) or needs.device,
        "devices": devices,
        "executor": context.run.cluster.executor,
        "run": context.run.id or None,
        "versions": installed(),
    }


def _total_cost(artifacts: dict[str, Artifact]) -> dict[str, float]:
    total: dict[str, float] = {}
    for artifact in artifacts.values():
        for name, value in artifact.cost.items():
            so_far = total.get(name, 0)
            total[name] = max(so_far, value) if name.startswith("peak_") else so_far + value
    return total

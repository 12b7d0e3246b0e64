"""The step of Dagster that makes an asset, or all chunks of a stream.

It is what `dg.multi_asset` gives for the same specs. That resolves the type of every input three
times over, most of what a project of thousands of assets took to load.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import dagster as dg

from assets.checks import check_specs_of, checks_of
from assets.descriptions import metadata_of
from assets.failures import engine_failures
from assets.histories import report_history
from assets.specs import key_of
from fomo_dagster.errors import FomoError
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.keys import step_of
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.materialise import materialise, remove_stale_heads
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.units import duration
from resources.dagster_internals import StepDefinition
from resources.run_contexts import RunContextOpener


def step_asset(
    key: str, nodes: Sequence[Node], specs: Mapping[str, dg.AssetSpec], graph: Graph
) -> dg.AssetsDefinition:
    """The assets of some nodes, none of which is made from another, as one step."""
    made = {specs[node.key].key: specs[node.key] for node in nodes}
    needed = dict.fromkeys(dep.asset_key for spec in made.values() for dep in spec.deps)
    assert needed.keys().isdisjoint(made), key
    inputs = {one.to_python_identifier(): one for one in needed}  # Dagster sorts them by name
    checks = {
        check.get_python_identifier(): check for node in nodes for check in check_specs_of(node)
    }
    is_subset = len(nodes) > 1
    outs = {
        one.to_python_identifier(): dg.Out(
            dg.Nothing, description=spec.description, is_required=not is_subset,
            code_version=spec.code_version,
        )
        for one, spec in made.items()
    }  # fmt: skip
    outs |= {name: dg.Out(is_required=not is_subset) for name in checks}
    return StepDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={one.to_python_identifier(): one for one in made},
        node_def=dg.OpDefinition(
            _compute(key, nodes, graph), step_of(key),
            ins={name: _input(name) for name in inputs}, outs=outs,
            required_resource_keys={"run_contexts"},
        ),
        specs=list(made.values()),
        check_specs_by_output_name=checks,
        can_subset=is_subset,
    )  # fmt: skip


@lru_cache(maxsize=2**15)
def _input(name: str) -> Any:
    """Of this name, with no value; many steps have the same."""
    return dg.In(dg.Nothing).to_definition(name)


def _compute(key: str, nodes: Sequence[Node], graph: Graph) -> Callable[..., Iterator[Any]]:
    """What makes those of the nodes that are selected."""

    def compute(
        context: dg.AssetExecutionContext, inputs: Mapping[str, object]
    ) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
        run_contexts: RunContextOpener = context.resources.run_contexts
        run_context = run_contexts.open(graph, context)
        done = set()
        for node in nodes:
            if key_of(node.key) not in context.selected_asset_keys:
                continue
            with engine_failures(context), told(node.key, run_context):
                outcome = materialise(node.key, run_context)
            if node.ends_experiment and node.experiment is not None:
                remove_stale_heads(node.experiment, run_context)
            head = outcome.head
            context.log.info(
                f"{node.key}: {head.status} {head.digest}, {duration(outcome.seconds)}"
            )
            if outcome.artifacts:
                report_history(node, outcome, run_context, context)
            yield dg.MaterializeResult(
                asset_key=key_of(node.key),
                data_version=dg.DataVersion(head.data_version),
                metadata=metadata_of(node, outcome, run_context),
                check_results=list(checks_of(node, outcome, run_context)),
            )
            done.add(key_of(node.key))
        # Dagster ends in success where a selected output is not yielded, and skips what follows.
        forgotten = context.selected_asset_keys - done
        if forgotten:
            raise dg.Failure(f"these selected assets were not made: {sorted(forgotten)}")

    return compute


@contextmanager
def told(asset: str, run_context: RunContext) -> Iterator[None]:
    """Tells the run of a failure at once, while others may go on for long."""
    try:
        yield
    except FomoError as error:
        run_context.run.failed(asset, error)
        raise

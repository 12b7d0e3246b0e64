"""Numbers over stages as one history that Dagster plots: an asset with a materialisation a stage.

Dagster plots the numbers of one asset's materialisations, and an experiment's stages are assets of
their own. So whoever materialises the scores reports those of each stage to a further asset, whose
partitions are the stages. It is reported, never computed: no job selects it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import dagster as dg

from assets.specs import key_of
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.run.run_context import RunContext


def history_key(node: Node) -> dg.AssetKey:
    """The key of the history of a node's numbers."""
    return key_of(f"{node.key}_over_stages")


def history_specs(graph: Graph) -> Iterator[dg.AssetSpec]:
    """The histories of a graph, one for each node that tells numbers of stages."""
    for node in graph.nodes.values():
        if node.stages_told:
            yield dg.AssetSpec(
                history_key(node),
                deps=[key_of(node.key)],
                group_name=node.group or node.experiment,
                description=f"{node.description} Plots, beside Metadata, draws them over stages.",
                partitions_def=dg.StaticPartitionsDefinition(
                    [_partition(stage) for stage in node.stages_told]
                ),
            )


def report_history(
    node: Node, outcome: Outcome, run_context: RunContext, context: dg.AssetExecutionContext
) -> None:
    """Report what a node tells of its stages. A stage with the numbers that it had last is left
    alone, so that hits add no points."""
    for stage, numbers in node.over_stages(outcome, run_context).items():
        if numbers != _last_reported(history_key(node), _partition(stage), context.instance):
            context.log_event(
                dg.AssetMaterialization(
                    history_key(node), partition=_partition(stage), metadata=dict(numbers)
                )
            )


def _partition(stage: int) -> str:
    return f"stage_{stage:03d}"


def _last_reported(
    key: dg.AssetKey, partition: str, instance: dg.DagsterInstance
) -> Mapping[str, object] | None:
    which = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition])
    for record in instance.fetch_materializations(which, limit=1).records:
        if record.asset_materialization is not None:
            metadata = record.asset_materialization.metadata
            return {name: value.value for name, value in metadata.items()}
    return None

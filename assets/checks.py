"""Asset checks: what must hold before a training uses an asset, and what a person should look
at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from assets.descriptions import LEFT
from assets.specs import key_of
from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome

SEVERITIES = {"warning": dg.AssetCheckSeverity.WARN, "error": dg.AssetCheckSeverity.ERROR}


def check_specs_of(node: Node) -> list[dg.AssetCheckSpec]:
    """The checks of a node's asset; blocking ones stop what would be trained on it."""
    return [
        dg.AssetCheckSpec(
            check.name,
            asset=key_of(node.key),
            description=check.description,
            blocking=check.blocking,
        )
        for check in node.checks
    ]


def checks_of(node: Node, outcome: Outcome, context: NodeContext) -> Iterator[dg.AssetCheckResult]:
    """The results of a node's checks for what was just materialised. What was cleaned or
    packed passed them when it was made."""
    if not outcome.artifacts:
        for check in node.checks:
            yield dg.AssetCheckResult(
                check_name=check.name, passed=True, metadata={"artifacts": LEFT}
            )
        return
    for checked in node.checked(outcome, context):
        yield dg.AssetCheckResult(
            check_name=checked.check,
            passed=checked.passed,
            severity=SEVERITIES[checked.severity],
            metadata=_drawn(checked.details),
        )


def _drawn(details: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: dg.MetadataValue.json(value) if isinstance(value, dict) else value
        for name, value in details.items()
    }

"""Assets whose artifacts were cleaned: what they say of themselves stays, and is kept current."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from fomo_dagster.graph.core.facts import identity
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.store.heads import Head
from fomo_dagster.store.recipes import Recipe


def left_cleaned(node: Node, recipes: Mapping[str, Recipe], context: RunContext) -> Head | None:
    """The head of an asset whose artifacts were cleaned, where nothing is made from them; None
    where they are there, or are to be made."""
    head, store = context.heads.read(node.key), context.store
    if head is None or head.digest != identity(recipes) or node.experiment is None:
        return None
    if not any(store.note(r).day and not store.holds(r) for r in recipes.values()):
        return None
    (planned,) = (
        entry for entry in plan(context.graph.of(node.experiment), context)
        if entry.asset == node.key
    )  # fmt: skip
    if planned.status == "compute" or planned.made_by:
        return None
    return replace(
        head,
        code_version=context.graph.code_versions[node.key],
        status="hit",
        checked_at=datetime.now(UTC).isoformat(),
    )

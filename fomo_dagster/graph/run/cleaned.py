"""Assets whose artifacts were cleaned or packed: what they say of themselves stays, and is kept
current."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from fomo_dagster.graph.core.facts import identity
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.plan import damages_of, plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.store.heads import Head
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.tables.intact import Verified


def left_as_it_is(node: Node, recipes: Mapping[str, Recipe], context: RunContext) -> Head | None:
    """The head of an asset whose artifacts were cleaned, where nothing is made from them, or are
    packed, where only its head is to be written; None where they are there, or are to be made."""
    head = context.heads.read(node.key)
    if head is None or head.digest != identity(recipes) or node.experiment is None:
        return None
    if not (_stays_packed(node, head, recipes, context) or _stays_cleaned(node, recipes, context)):
        return None
    return replace(
        head,
        code_version=context.graph.code_versions[node.key],
        status="hit",
        checked_at=datetime.now(UTC).isoformat(),
    )


def _stays_packed(
    node: Node, head: Head, recipes: Mapping[str, Recipe], context: RunContext
) -> bool:
    """What is made from it unpacks it; its rows, if they are damaged, are written from it."""
    store = context.store
    if not any(store.places.is_packed(r.kind, r.digest) for r in recipes.values()):
        return False
    with Verified(context.home.root) as verified:
        damages = damages_of(head, node, verified)
    return not damages and all(store.holds(recipe) for recipe in recipes.values())


def _stays_cleaned(node: Node, recipes: Mapping[str, Recipe], context: RunContext) -> bool:
    store = context.store
    if not any(store.note(r).day and not store.holds(r) for r in recipes.values()):
        return False
    assert node.experiment is not None
    (planned,) = (
        entry for entry in plan(context.graph.of(node.experiment), context)
        if entry.asset == node.key
    )  # fmt: skip
    return planned.status != "compute" and not planned.made_by

"""Asset checks: what must hold before a training uses it, and what a person should look at."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import polars as pl

from fomo_dagster.data.declarations import Dataset, FomoReleaseSource
from fomo_dagster.graph.core.facts import ONLY, Facts
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.nodes.order import OrderNode
from fomo_dagster.graph.nodes.scores import SCORES
from fomo_dagster.graph.nodes.shards import ShardsNode
from fomo_dagster.graph.run.materialise import Outcome
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS

from assets.specs import key_of  # isort: skip

WEIGHT_KINDS = ("backbone", "trained", "deployed", "start")


def check_specs_of(node: Node) -> list[dg.AssetCheckSpec]:
    """The checks of a node's asset; blocking ones stop what would be trained on it.

    A concept with test images alone is no danger to a training, so that it only warns; one that
    lost all its training images fails in sharding. Where the source itself lists the classes, one
    without training images is as it should be: it is there to choose from.
    """
    key = key_of(node.key)
    if isinstance(node, ShardsNode):
        return [
            *_release_check_specs(node),
            dg.AssetCheckSpec(
                "readable_images", asset=key, blocking=True,
                description="Few enough images were unreadable; a warning where any was.",
            ),
            dg.AssetCheckSpec(
                "no_empty_concepts", asset=key,
                description="Every concept has training samples, where the dataset is trained on "
                "and its source does not list its concepts.",
            ),
        ]  # fmt: skip
    if node.kind in WEIGHT_KINDS:
        return [
            dg.AssetCheckSpec(
                "finite_weights", asset=key, blocking=True,
                description="No weight is infinite or not a number.",
            )
        ]  # fmt: skip
    if node.kind == "evaluation":
        return [
            dg.AssetCheckSpec(
                "classes_told_apart", asset=key,
                description="No two classes of a dataset have prompts of the same tokens, which "
                "no model could tell apart.",
            )
        ]  # fmt: skip
    if isinstance(node, OrderNode) and node.not_as_released is not None:
        return [
            dg.AssetCheckSpec(
                "as_in_the_benchmark", asset=key,
                description="The order is not computed where the benchmark's release ships one.",
            )
        ]  # fmt: skip
    if node.kind == "scores":
        return [
            dg.AssetCheckSpec(
                "zero_shot_retention_holds", asset=key,
                description="ZS falls by no more than the set share in any one stage.",
            )
        ]  # fmt: skip
    return []


def _release_check_specs(node: ShardsNode) -> list[dg.AssetCheckSpec]:
    if not isinstance(node.dataset.source, FomoReleaseSource):
        return []
    return [
        dg.AssetCheckSpec(
            "as_in_the_benchmark", asset=key_of(node.key),
            description="Images, samples and classes are those of the benchmark's registry.",
        )
    ]  # fmt: skip


def checks_of(node: Node, outcome: Outcome, context: RunContext) -> Iterator[dg.AssetCheckResult]:
    """The results of a node's checks for what was just materialised."""
    if isinstance(node, ShardsNode):
        yield _readable_images(node.dataset, outcome)
        source = context.observe(node.inputs[0])
        yield _no_empty_concepts(outcome, source)
        for spec in _release_check_specs(node):
            yield _says_nothing(spec.name, source)
    elif node.kind in WEIGHT_KINDS:
        yield _finite_weights(outcome)
    elif isinstance(node, EvaluationNode) and node.kind == "evaluation":
        yield _classes_told_apart(node, context)
    elif isinstance(node, OrderNode) and node.not_as_released is not None:
        yield dg.AssetCheckResult(
            check_name="as_in_the_benchmark",
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"differences": node.not_as_released},
        )
    elif node.kind == "scores" and node.experiment is not None:
        experiment = context.graph.experiments[node.experiment]
        yield _retention_holds(outcome, experiment.evaluation.retention_warning)


def _readable_images(dataset: Dataset, outcome: Outcome) -> dg.AssetCheckResult:
    facts = outcome.head.facts
    unreadable = facts["counts"]["unreadable"]
    total = unreadable + facts["test_samples"] + sum(facts["train_samples"].values())
    share = unreadable / total
    return dg.AssetCheckResult(
        check_name="readable_images",
        passed=unreadable == 0,
        severity=(
            dg.AssetCheckSeverity.ERROR
            if share > dataset.unreadable_limit
            else dg.AssetCheckSeverity.WARN
        ),
        metadata={"unreadable": unreadable, "share": share, "limit": dataset.unreadable_limit},
    )


def _no_empty_concepts(outcome: Outcome, source: Facts) -> dg.AssetCheckResult:
    facts = outcome.head.facts
    expected = set(facts["train_samples"]) | set(source.details["classes"])
    empty = sorted(set(facts["concepts"]) - expected) if facts["train_samples"] else []
    return dg.AssetCheckResult(
        check_name="no_empty_concepts",
        passed=not empty,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"without_training_samples": ", ".join(empty[:20]) or "none"},
    )


def _says_nothing(name: str, source: Facts) -> dg.AssetCheckResult:
    said = source.details["warnings"]
    return dg.AssetCheckResult(
        check_name=name,
        passed=not said,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"differences": "\n".join(said) or "none"},
    )


def _classes_told_apart(node: EvaluationNode, context: RunContext) -> dg.AssetCheckResult:
    alike = node.alike(context.facts_for(node), context, may_fetch=True)
    return dg.AssetCheckResult(
        check_name="classes_told_apart",
        passed=not alike,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "alike": dg.MetadataValue.json({name: list(map(list, g)) for name, g in alike.items()})
        },
    )


def _finite_weights(outcome: Outcome) -> dg.AssetCheckResult:
    from fomo_dagster.models.finite import not_finite

    bad = not_finite(outcome.artifacts[ONLY].path(WEIGHTS))
    return dg.AssetCheckResult(
        check_name="finite_weights",
        passed=not bad,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"not_finite": ", ".join(bad[:20]) or "none"},
    )


def _retention_holds(outcome: Outcome, limit: float) -> dg.AssetCheckResult:
    scores = pl.read_parquet(outcome.artifacts[ONLY].path(SCORES)).sort("stage")
    retention = pl.col("zero_shot_retention")
    before = retention.shift(1)
    falls = scores.select(
        "stage",
        fall=pl.when(before > 0).then(1 - retention / before),  # from 0 there is no falling
    ).filter(pl.col("fall") > limit)
    stages = ", ".join(f"stage {stage}: {fall:.1%}" for stage, fall in falls.rows())
    return dg.AssetCheckResult(
        check_name="zero_shot_retention_holds",
        passed=falls.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"falls": stages or "none", "limit": limit},
    )

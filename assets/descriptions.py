"""What a person sees of a materialised asset in Dagster: figures, tables and pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from statistics import median
from typing import Any

import dagster as dg
import polars as pl
import polars.selectors as cs

from fomo_dagster.evaluation.results import SCORE
from fomo_dagster.evaluation.scores import accumulation_and_retention
from fomo_dagster.graph.core.facts import ONLY, Facts
from fomo_dagster.graph.core.files import LISTING, MANIFEST, STREAMED
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.budget import BUDGET
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode
from fomo_dagster.graph.nodes.merged import DeployedNode
from fomo_dagster.graph.nodes.order import ORDER, ORDER_PLOT, OrderNode
from fomo_dagster.graph.nodes.scores import HEAT_MAP, PATHS, SCORES
from fomo_dagster.graph.nodes.shards import CONTACT_SHEET, QUARANTINE
from fomo_dagster.graph.run.materialise import Outcome
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import CURVES, STEPS, steps_of
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.tables.results import results

ROWS_SHOWN = 200
STREAMING_FIGURES = ("streamed_shards", "skipped_members")
COST_FIGURES = (
    "flops", "peak_device_memory_bytes", "peak_process_memory_bytes", "energy_joules",
)  # fmt: skip
MAIN_SCORES = ("knowledge_accumulation", "zero_shot_retention", "geometric_mean")


def metadata_of(node: Node, outcome: Outcome, context: RunContext) -> dict[str, Any]:
    """The metadata of a materialisation: what its kind has to show, then where it comes from."""
    describe = {
        "shards": _shards,
        "validation": _validation,
        "probe": _evaluation,
        "order": _order,
        "chunk": _manifest,
        "listing": _listing,
        "pool": _pool,
        "budget": _budget,
        "backbone": _training,
        "trained": _training,
        "deployed": _merge,
        "start": _merge,
        "evaluation": _evaluation,
        "scores": _scores,
        "leaderboard": _leaderboard,
    }[node.kind]
    return {
        **describe(node, outcome, context),
        "status": outcome.head.status,
        "digest": outcome.head.digest,
        "folders": dg.MetadataValue.md(
            "\n".join(f"- `{artifact.folder}`" for artifact in outcome.artifacts.values())
        ),
    }


def metadata_of_source(facts: Facts) -> dict[str, Any]:
    """The metadata of an observation: counts, where the source is a dataset's."""
    if "tars" in facts.details:
        tars = facts.details["tars"]
        return {
            "tars": len(tars),
            "samples": sum(tar.samples for tar in tars),
            "skipped": sum(tar.broken for tar in tars),
            **_warnings(facts),
        }
    if "files" in facts.details:
        return {"shards": len(facts.details["files"]), **_warnings(facts)}
    if "scan" not in facts.details:
        return {}
    scan: pl.DataFrame = facts.details["scan"]
    return {
        "concepts": scan["concept"].n_unique(),
        "train_samples": int((scan["split"] == "train").sum()),
        "test_samples": int((scan["split"] == "test").sum()),
        **_warnings(facts),
    }


def _warnings(source: Facts) -> dict[str, Any]:
    """What the look at a dataset's source had to say, where it had."""
    said = source.details["warnings"]
    return (
        {"warnings": dg.MetadataValue.md("\n".join(f"- {text}" for text in said))} if said else {}
    )


def _shards(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    artifact = outcome.artifacts[ONLY]
    facts = outcome.head.facts
    quarantined = pl.read_parquet(artifact.path(QUARANTINE))
    metadata: dict[str, Any] = {
        **_picture("contact_sheet", artifact, CONTACT_SHEET),
        "concepts": len(facts["concepts"]),
        "train_samples": sum(facts["train_samples"].values()),
        "test_samples": facts["test_samples"],
        **{f"{name}_images": count for name, count in facts["counts"].items()},
        **_warnings(context.observe(node.inputs[0])),
    }
    if quarantined.height:
        metadata["unreadable"] = _table(quarantined.select("split", "key", "reason"))
    return metadata


def _validation(node: Node, outcome: Outcome, context: RunContext) -> dict[str, Any]:
    facts = outcome.head.facts
    return {
        "training_samples": sum(facts["train_samples"].values()),
        "validation_samples": facts["test_samples"],
    }


def _order(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    assert isinstance(node, OrderNode)
    order = pl.read_parquet(outcome.artifacts[ONLY].path(ORDER))
    figure = node.shown_name
    return {
        **_picture("stream", outcome.artifacts[ONLY], ORDER_PLOT),
        "concepts": order.height,
        "datasets": order["dataset"].n_unique(),
        **({} if figure is None else {"figure": figure}),
        "order": _table(order if figure is not None else order.drop("figure")),
    }


def _listing(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    shards = pl.read_parquet(outcome.artifacts[ONLY].path(LISTING))
    return {
        "shards": shards.height,
        "gibibytes": round(sum(size or 0 for size in shards["size"]) / 2**30, 2),
        "first_shards": _table(shards.head(5)),
    }


def _pool(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    """Samples are counted where they are known, which those of streamed datasets are not."""
    artifact = outcome.artifacts[ONLY]
    metadata = dict(_manifest(node, outcome, context))
    parameters = artifact.manifest["recipe"]["parameters"]
    if "streamed" in parameters:
        shards = pl.read_parquet(artifact.path(STREAMED)).group_by("dataset").len("shards")
        metadata["streamed"] = _table(shards.sort("dataset"))
    if "weights" in parameters:
        weights = parameters["weights"]
        total = sum(weights.values())
        metadata["shares"] = _table(
            pl.DataFrame(
                [(name, 100 * weight / total) for name, weight in weights.items()],
                schema=["dataset", "percent"],
                orient="row",
            )
        )
    return metadata


def _manifest(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    manifest = pl.read_parquet(outcome.artifacts[ONLY].path(MANIFEST))
    concepts = manifest.group_by("dataset", "concept", maintain_order=True).len("samples")
    return {
        "samples": manifest.height,
        "concepts": concepts.height,
        "brings": _table(concepts),
    }


def _budget(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    rows = pl.DataFrame(json.loads(outcome.artifacts[ONLY].path(BUDGET).read_text()))
    own = rows.row(0, named=True)
    return {
        **{name: own[name] for name in ("steps_per_stage", "samples_per_stage")},
        **{name: round(own[name], 4) for name in ("gigaflops_per_step", "memory_multiplier")},
        "methods": _table(rows[[c.name for c in rows if c.null_count() < rows.height]]),
    }


def _training(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    artifact = outcome.artifacts[ONLY]
    if STEPS not in artifact.manifest["files"]:
        return {}
    steps = steps_of(artifact)
    speed = steps["samples_per_second"].drop_nulls().to_list()
    figures = {
        "samples_per_second": (median(speed) if speed else None, 1),
        "seconds": (artifact.cost.get("seconds"), 2),
    }
    return {
        **_picture("loss_curve", artifact, CURVES),
        "final_loss": round(float(steps["loss"][-1]), 4),
        "steps": steps.height,
        "processes": int(artifact.cost.get("processes", 1)),
        **{name: round(v, places) for name, (v, places) in figures.items() if v is not None},
        **{name: artifact.cost[name] for name in COST_FIGURES if name in artifact.cost},
        **{name: int(artifact.cost[name]) for name in STREAMING_FIGURES if name in artifact.cost},
    }


def _merge(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    assert isinstance(node, DeployedNode)
    technique = node.effective_technique
    coefficients = getattr(technique, "coefficients", None)
    merges = pl.DataFrame({"model": node.model_keys})
    if coefficients is not None:
        merges = merges.with_columns(coefficient=pl.Series([f"{c:.3g}" for c in coefficients]))
    return {
        **node.declared,
        **({"base": node.base_key} if technique.needs_base else {}),
        "merges": _table(merges),
    }


def _evaluation(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    assert isinstance(node, EvaluationNode)
    # By the names they have here: who made one may call the same images otherwise.
    rows = pl.concat(
        pl.read_parquet(artifact.path(METRICS)).with_columns(dataset=pl.lit(name))
        for name, artifact in outcome.artifacts.items()
    )
    scores = dict(rows.filter(pl.col("metric") == SCORE).select("dataset", "value").iter_rows())
    adaptation, held_out = (
        [scores[name] for name, of_role in node.roles.items() if of_role == role]
        for role in ("adaptation", "held_out")
    )
    means = accumulation_and_retention(adaptation, held_out)
    return {
        **_percentages(dict(zip(MAIN_SCORES, means, strict=True))),
        **_percentages({f"score_{name}": value for name, value in sorted(scores.items())}),
        "metrics": _table(rows),
        "computed_now": ", ".join(outcome.computed) or "none",
    }


def _scores(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    artifact = outcome.artifacts[ONLY]
    scores = pl.read_parquet(artifact.path(SCORES))
    last = scores.row(-1, named=True)
    return {
        **_percentages({name: value for name, value in last.items() if name != "stage"}),
        **_picture("accumulation_and_retention", artifact, PATHS),
        **_picture("heat_map", artifact, HEAT_MAP),
        "stages": _table(scores),
    }


def _leaderboard(node: Node, outcome: Outcome, context: RunContext) -> Mapping[str, Any]:
    return {
        **_picture("accumulation_and_retention", outcome.artifacts[ONLY], PATHS),
        "leaderboard": _table(results(context.home.root).leaderboard),
    }


def _percentages(values: Mapping[str, float | None]) -> dict[str, float]:
    """Percentages to two places, which is what Dagster plots over time; what is undefined is not
    there. The tables hold every digit."""
    return {name: round(value, 2) for name, value in values.items() if value is not None}


def _picture(title: str, artifact: Artifact, name: str) -> dict[str, dg.MarkdownMetadataValue]:
    """A picture of an artifact's record, where that is here."""
    path = artifact.record(name)
    if path is None:
        return {}
    data = base64.b64encode(path.read_bytes()).decode()
    return {title: dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{data})")}


def _table(frame: pl.DataFrame) -> dg.TableMetadataValue:
    """The first rows of a table; figures to two places."""
    shown = frame.head(ROWS_SHOWN).with_columns(cs.float().round(2))
    records = [
        dg.TableRecord({k: "" if v is None else v for k, v in row.items()})
        for row in shown.to_dicts()
    ]
    columns = [
        dg.TableColumn(
            name, "float" if dtype.is_float() else "int" if dtype.is_integer() else "string"
        )
        for name, dtype in frame.schema.items()
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))

"""What a person sees of a materialised asset in Dagster: figures, tables and pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from fomo_dagster.graph.data_nodes import CONTACT_SHEET, MANIFEST, QUARANTINE
from fomo_dagster.graph.evaluation_nodes import HEAT_MAP, METRICS, PATHS, SCORES
from fomo_dagster.graph.materialise import Outcome
from fomo_dagster.graph.model_nodes import CURVES, STEPS
from fomo_dagster.graph.node import ONLY, Node
from fomo_dagster.graph.workshop import Workshop
from fomo_dagster.tables.results import results

ROWS_SHOWN = 200


def metadata_of(node: Node, outcome: Outcome, workshop: Workshop) -> dict[str, Any]:
    """The metadata of a materialisation, by the node's kind."""
    describe = {
        "shards": _shards,
        "chunk": _manifest,
        "pool": _manifest,
        "backbone": _training,
        "trained": _training,
        "evaluation": _evaluation,
        "scores": _scores,
        "leaderboard": _leaderboard,
    }.get(node.kind)
    specific = describe(node, outcome, workshop) if describe is not None else {}
    return {"status": outcome.head.status, "digest": outcome.head.digest, **specific}


def _shards(node: Node, outcome: Outcome, workshop: Workshop) -> Mapping[str, Any]:
    artifact = outcome.artifacts[ONLY]
    facts = outcome.head.facts
    quarantined = pl.read_parquet(artifact.path(QUARANTINE))
    metadata: dict[str, Any] = {
        "concepts": len(facts["concepts"]),
        "train_samples": sum(facts["train_samples"].values()),
        "test_samples": facts["test_samples"],
        "unreadable_images": quarantined.height,
        "contact_sheet": _picture(artifact.path(CONTACT_SHEET)),
        "folder": dg.MetadataValue.path(str(artifact.folder)),
    }
    if quarantined.height:
        metadata["unreadable"] = _table(quarantined.select("split", "key", "reason"))
    return metadata


def _manifest(node: Node, outcome: Outcome, workshop: Workshop) -> Mapping[str, Any]:
    manifest = pl.read_parquet(outcome.artifacts[ONLY].path(MANIFEST))
    concepts = manifest.group_by("dataset", "concept", maintain_order=True).len("samples")
    return {
        "samples": manifest.height,
        "concepts": concepts.height,
        "brings": _table(concepts),
    }


def _training(node: Node, outcome: Outcome, workshop: Workshop) -> Mapping[str, Any]:
    artifact = outcome.artifacts[ONLY]
    if STEPS not in artifact.manifest["files"]:
        return {"folder": dg.MetadataValue.path(str(artifact.folder))}
    steps = pl.read_parquet(artifact.path(STEPS))
    return {
        "steps": steps.height,
        "final_loss": float(steps["loss"][-1]),
        "samples_per_second": float(steps["samples_per_second"].median() or 0.0),  # type: ignore[arg-type]
        "seconds": float(artifact.cost["seconds"]),
        "training": _picture(artifact.path(CURVES)),
        "folder": dg.MetadataValue.path(str(artifact.folder)),
    }


def _evaluation(node: Node, outcome: Outcome, workshop: Workshop) -> Mapping[str, Any]:
    rows = pl.concat(pl.read_parquet(a.path(METRICS)) for a in outcome.artifacts.values())
    scores = rows.filter(pl.col("metric") == "score")
    figures = {
        f"score_{name}": float(value) for name, value in scores.select("dataset", "value").rows()
    }
    computed = ", ".join(outcome.computed) or "none"
    return {**figures, "computed_now": computed, "metrics": _table(rows)}


def _scores(node: Node, outcome: Outcome, workshop: Workshop) -> Mapping[str, Any]:
    artifact = outcome.artifacts[ONLY]
    scores = pl.read_parquet(artifact.path(SCORES))
    last = scores.row(-1, named=True)
    figures = {name: value for name, value in last.items() if name != "stage" and value is not None}
    return {
        **figures,
        "paths": _picture(artifact.path(PATHS)),
        "heat_map": _picture(artifact.path(HEAT_MAP)),
        "stages": _table(scores),
    }


def _leaderboard(node: Node, outcome: Outcome, workshop: Workshop) -> Mapping[str, Any]:
    return {
        "paths": _picture(outcome.artifacts[ONLY].path(PATHS)),
        "leaderboard": _table(results(workshop.home.root).leaderboard),
    }


def _picture(path: Path) -> dg.MarkdownMetadataValue:
    data = base64.b64encode(path.read_bytes()).decode()
    return dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{data})")


def _table(frame: pl.DataFrame) -> dg.TableMetadataValue:
    """The first rows of a table."""
    records = [
        dg.TableRecord(
            {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in row.items()}
        )
        for row in frame.head(ROWS_SHOWN).to_dicts()
    ]
    columns = [
        dg.TableColumn(
            name, "float" if dtype.is_float() else "int" if dtype.is_integer() else "string"
        )
        for name, dtype in frame.schema.items()
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))

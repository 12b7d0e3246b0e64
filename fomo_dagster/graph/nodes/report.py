"""The node of a comparison's report: the page that `fomo report` writes, with its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.keys import COMPARISONS
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.comparison import OfComparison
from fomo_dagster.graph.nodes.summaries.scores import ScoresNode
from fomo_dagster.home import Home
from fomo_dagster.parquet import read_parquet
from fomo_dagster.reports.names import FINAL_SCORES, PAGE
from fomo_dagster.store.artifacts import Artifact, record_path
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    from fomo_dagster.graph.core.context import NodeContext

FINAL = "final_scores.parquet"
FOLDER = "report"


@dataclass(frozen=True, kw_only=True)
class ReportNode(OfComparison):
    """The page of a comparison, made when the comparison is there.

    What a page says of costs is another wherever its weights were trained. So the whole folder is
    in the artifact's record, and its content is the final table alone.
    """

    kind: ClassVar[str] = "report"
    tools: ClassVar[frozenset[str]] = frozenset({"html", "duckdb"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "comparison": "the comparison changed",
        "scores": "scores changed",
    }
    comparison_key: str
    scores_keys: Mapping[str, str]
    """Experiment → its scores, which are made from all of its evaluations."""
    overviews: Mapping[str, Mapping[str, Any]]
    """Experiment → its row of the table `experiments`, as far as a page can show it."""

    @classmethod
    def of(cls, comparison: OfComparison, scores: Mapping[str, ScoresNode]) -> ReportNode | None:
        """None for a comparison that asks for no page. scores: of each experiment."""
        loaded = comparison.loaded
        if not loaded.declared.report:
            return None
        overviews = {
            name: {key: value for key, value in node.overview.items() if key != "file"}
            for name, node in scores.items()
        }
        return cls(
            key=f"{COMPARISONS}/{loaded.name}/report",
            loaded=loaded,
            comparison_key=comparison.key,
            scores_keys={name: node.key for name, node in scores.items()},
            overviews=overviews,
        )

    @property
    def description(self) -> str:
        return f"The page of `fomo report {self.loaded.reference}`, with its tables and figures."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.comparison_key, *self.scores_keys.values())

    @property
    def declared(self) -> Mapping[str, Any]:
        declared = {"name": self.loaded.reference, "experiments": self.overviews}
        target = self.loaded.declared.score_to_reach
        return declared if target is None else declared | {"target": target.identity}

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        scores = {name: facts[key].data_version for name, key in self.scores_keys.items()}
        inputs = {"comparison": facts[self.comparison_key].data_version, "scores": scores}
        return {ONLY: Recipe(self.kind, self.version, self.declared, inputs)}

    def make(self, name: str, recipe: Recipe, folder: Path, context: NodeContext) -> None:
        from fomo_dagster.graph.work.sample_images import SampleImages
        from fomo_dagster.reports.content import Table
        from fomo_dagster.reports.making import report_of
        from fomo_dagster.reports.members import Reported
        from fomo_dagster.reports.writing import write_report

        declared = self.loaded.declared
        report = report_of(
            Reported(
                context.home,
                self.loaded.experiments,
                [self.loaded.reference],
                of_comparison=True,
                margin=declared.margin,
                target=declared.score_to_reach,
                common=declared.common,
                metrics=declared.metrics,
                image_of=SampleImages(lambda: context),
            )
        )
        write_report(report, record_path(folder, FOLDER))
        (final,) = (table for table in report.all_of(Table) if table.name == FINAL_SCORES)
        final.shown.write_parquet(folder / FINAL)

    def page(self, home: Home) -> Path | None:
        """The page that was made last; None where there is none here."""
        head = home.heads.read(self.key)
        artifact = home.store.open(*head.artifacts[ONLY]) if head is not None else None
        return None if artifact is None else _page(artifact)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        artifact = outcome.artifacts[ONLY]
        page = _page(artifact)
        return {
            **({} if page is None else {"page": page}),
            "final_scores": read_parquet(artifact.path(FINAL)),
        }


def _page(artifact: Artifact) -> Path | None:
    return artifact.record(f"{FOLDER}/{PAGE}")

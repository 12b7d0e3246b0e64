"""What comparisons declare, in the graph of the experiments that they are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fomo_dagster.errors import FomoError, InputError
from fomo_dagster.experiment.comparison import LoadedComparison
from fomo_dagster.experiment.experiment_sets import Trouble
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.comparison import ComparisonNode, OfComparison
from fomo_dagster.graph.nodes.report import ReportNode
from fomo_dagster.graph.nodes.summaries.scores import ScoresNode


def comparison_nodes(
    comparison: LoadedComparison, nodes: Mapping[str, Node], troubles: Sequence[Trouble]
) -> list[OfComparison]:
    """The nodes of a comparison. Raises the error of an experiment that is not among the nodes, of
    which `troubles` say why."""
    scores: dict[str, ScoresNode] = {}
    for member in comparison.members:
        name = member.experiment.name
        node = nodes.get(f"{name}/scores")
        if not isinstance(node, ScoresNode):
            raise needs(comparison, name, next((one for one in troubles if one.name == name), None))
        scores[name] = node
    node = ComparisonNode.of(comparison, scores)
    report = ReportNode.of(node, scores)
    return [node] if report is None else [node, report]


def needs(comparison: LoadedComparison, experiment: str, why: Trouble | None) -> FomoError:
    """That an experiment of a comparison cannot be used, and why."""
    said = f"{comparison.path}: {experiment}, which it compares, cannot be used"
    return InputError(said) if why is None else type(why.error)(f"{said}: {why.sentence}")

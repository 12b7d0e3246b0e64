"""What experiments declare about releases: names that several may give, and forms to be written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.exporting.registry import forms_named
from fomo_dagster.graph.core.keys import release_files_key, release_key
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.candidate import CandidateNode
from fomo_dagster.graph.nodes.release import ReleaseNode
from fomo_dagster.graph.nodes.release_files import ReleaseFilesNode


def check_forms(experiment: Experiment) -> None:
    """Raises `InputError` for a form that there is not."""
    if experiment.release is not None:
        try:
            forms_named(experiment.release.forms)
        except InputError as error:
            raise InputError(f"{experiment.name}: release.forms: {error}") from error


def release_nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    """What is live under each name that stages may go live under and, where any of the experiments
    of the name asks for forms, its files. nodes: all others."""
    candidates: dict[str, list[CandidateNode]] = {}
    for node in nodes:
        if isinstance(node, CandidateNode):
            candidates.setdefault(node.release.name, []).append(node)
    for name, of_name in candidates.items():
        yield ReleaseNode.of(name, tuple(node.key for node in of_name))
        last = [node for node in of_name if node.is_last]
        forms = {str(node.experiment): node.release.forms for node in last}
        if any(forms.values()):
            yield ReleaseFilesNode.of(name, forms, [node.evaluation for node in last])


def release_keys(experiments: Iterable[Experiment]) -> Iterator[str]:
    """The keys that these nodes have of some experiments' names, where there are such."""
    for experiment in experiments:
        if experiment.release is not None:
            yield release_key(experiment.release.name)
            yield release_files_key(experiment.release.name)

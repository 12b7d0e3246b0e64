"""`fomo export`: a stage's deployed weights as files that other libraries load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fomo_dagster.cli.bars import Bars
from fomo_dagster.cli.output import Terminal
from fomo_dagster.cli.planning import say_troubles_of_project, warn_once
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import WEIGHTS_SUFFIXES, Backbone
from fomo_dagster.experiment.experiment_sets import load_experiment_set
from fomo_dagster.experiment.weights_folder import described
from fomo_dagster.exporting.licences import said_of
from fomo_dagster.exporting.registry import forms_named
from fomo_dagster.exporting.subject import DataUse
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.home import Home, project_folder
from fomo_dagster.progress import Callbacks
from fomo_dagster.releases.live import weights_of
from fomo_dagster.releases.records import History
from fomo_dagster.store.files import check_free

if TYPE_CHECKING:
    from fomo_dagster.models.backbones import Architecture


def export(
    name_or_path: str,
    overrides: Sequence[str],
    stage: int | None,
    path: Path | None,
    forms: Sequence[str],
) -> Iterator[str]:
    """Write what is asked for; yields what to tell, line by line.

    path: without forms, or with openclip alone, it may be a file for OpenCLIP; else a folder, by
    default named after experiment and stage.
    """
    is_file = path is not None and path.suffix in WEIGHTS_SUFFIXES
    if path is not None and (not forms or (is_file and list(forms) == ["openclip"])):
        yield from export_weights(name_or_path, overrides, stage, path)
        return
    if not forms:
        raise InputError(
            "nothing says what to write: give a file, such as model.safetensors, or --form"
        )
    if is_file:
        raise InputError(
            f"{path} is named as a file of weights, and {', '.join(forms)} are written into a "
            "folder: give a name without such a suffix"
        )
    yield from export_forms(name_or_path, overrides, stage, path, forms)


def export_weights(
    name_or_path: str, overrides: Sequence[str], stage: int | None, path: Path
) -> list[str]:
    """Write the weights that `stage` (the last by default) deploys; returns the lines to tell."""
    from fomo_dagster.graph.nodes.provenance import data_of

    graph, node = _evaluation(name_or_path, overrides, stage)
    context = RunContext(graph, Home.from_environment())
    context.facts(node.checkpoint_key)
    weights = context.artifact(node.checkpoint_key).path(WEIGHTS)
    how = _write_weights(weights, described(node.backbone).architecture, path)
    experiment = graph.experiments[node.experiment or ""]
    data = data_of(node.checkpoint_key, experiment, graph.nodes, context)
    return [f"{node.experiment}, stage {node.stage}: {how}", *_notes(data)]


def export_release(home: Home, history: History, number: int | None, path: Path) -> list[str]:
    """Write the weights of a release, by default of what is live, though its experiment changed
    since; returns the lines to tell. Raises `InputError` where they are no longer in the store."""
    number = history.live if number is None else number
    if number is None:
        raise InputError(f"nothing is live as {history.name}, so there are no weights to write")
    candidate = history.release(number).candidate
    if candidate is None:
        raise InputError(f"release {number} of {history.name} does not say which weights it has")
    weights = weights_of(home, history.name, number, candidate, str(path)).path(WEIGHTS)
    backbone = Backbone.model_validate(dict(candidate.backbone))
    how = _write_weights(weights, described(backbone).architecture, path)
    data = () if candidate.provenance is None else candidate.provenance.data
    return [f"{history.shown(number)} of {history.name}: {how}", *_notes(data)]


def _write_weights(weights: Path, architecture: Architecture, path: Path) -> str:
    """Write them for OpenCLIP; how to load them."""
    from safetensors.torch import load_file

    from fomo_dagster.models.backbones import export as write_openclip

    write_openclip(load_file(weights), architecture, path)
    shown = repr(architecture) if isinstance(architecture, str) else repr(path.stem)
    first = (
        "" if isinstance(architecture, str)
        else f"open_clip.add_model_config({str(path.with_suffix('.json'))!r}); "
    )  # fmt: skip
    return f"{first}open_clip.create_model({shown}, pretrained={str(path)!r})"


def export_forms(
    name_or_path: str,
    overrides: Sequence[str],
    stage: int | None,
    folder: Path | None,
    forms: Sequence[str],
) -> Iterator[str]:
    """Write forms of the model that `stage` deploys into a new folder; yields what to tell."""
    for form in forms_named(forms):
        form.check_packages()
    if folder is not None:
        check_free(folder)
    from fomo_dagster.exporting.telling import told_of
    from fomo_dagster.exporting.writing import write_forms
    from fomo_dagster.graph.nodes.export_subject import subject_of

    graph, node = _evaluation(name_or_path, overrides, stage)
    with Bars(Terminal(stderr=True)) as bars:
        callbacks = Callbacks(progress=bars, warn=warn_once)
        context = RunContext(graph, Home.from_environment(), callbacks=callbacks)
        experiment = graph.experiments[node.experiment or ""]
        subject = subject_of(node, experiment, graph.nodes, context)
        place = folder or Path(subject.provenance.file_name)
        written = write_forms(forms, subject, place)
    yield f"{subject.provenance.title}: {place}"
    yield from (f"  {line}" for line in told_of(written))
    yield from _notes(subject.provenance.data)


def _notes(data: Iterable[DataUse]) -> Iterator[str]:
    """What the licences of the data ask of who passes weights on."""
    for sentence in said_of(data):
        yield f"Note: {sentence}."


def _evaluation(
    name_or_path: str, overrides: Sequence[str], stage: int | None
) -> tuple[Graph, EvaluationNode]:
    """The graph, and the evaluation of the stage; of the last one by default."""
    loaded = load_experiment_set(name_or_path, project_folder(), overrides).only()
    graph = build_graph([loaded])
    say_troubles_of_project()
    experiment = loaded.experiment
    evaluated = (n for n in graph.nodes.values() if isinstance(n, EvaluationNode))
    last = max(node.stage for node in evaluated)
    number = last if stage is None else stage
    if number > last:
        released = "" if experiment.release is None else (
            "; of what was released, `fomo releases "
            f"{experiment.release.name} --number N --files model.safetensors` writes the weights"
        )  # fmt: skip
        raise InputError(
            f"{experiment.name} has stages 0 to {last}, and no stage {number}{released}"
        )
    node = graph.nodes[f"{experiment.name}/evaluation_{number:03d}"]
    assert isinstance(node, EvaluationNode)
    return graph, node

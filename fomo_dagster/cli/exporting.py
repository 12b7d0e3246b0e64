"""`fomo export`: a stage's deployed weights as a file for OpenCLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fomo_dagster.cli.planning import say_troubles_of_project
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.experiment_sets import load_experiment_set
from fomo_dagster.experiment.weights_folder import described
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.home import Home, project_folder


def export_weights(
    name_or_path: str, overrides: Sequence[str], stage: int | None, path: Path
) -> str:
    """Write the weights that `stage` (the last by default) deploys; returns what to tell."""
    from safetensors.torch import load_file

    from fomo_dagster.models.backbones import export

    loaded = load_experiment_set(name_or_path, project_folder(), overrides).only()
    graph = build_graph([loaded])
    say_troubles_of_project()
    experiment = loaded.experiment
    evaluated = (n for n in graph.nodes.values() if isinstance(n, EvaluationNode))
    last = max(node.stage for node in evaluated)
    number = last if stage is None else stage
    if number > last:
        raise InputError(f"{experiment.name} has stages 0 to {last}, and no stage {number}")
    node = graph.nodes[f"{experiment.name}/evaluation_{number:03d}"]
    assert isinstance(node, EvaluationNode)
    context = RunContext(graph, Home.from_environment())
    context.facts(node.checkpoint_key)
    weights = context.artifact(node.checkpoint_key).path(WEIGHTS)
    architecture = described(node.backbone).architecture
    export(load_file(weights), architecture, path)
    shown = repr(architecture) if isinstance(architecture, str) else repr(path.stem)
    first = (
        "" if isinstance(architecture, str)
        else f"open_clip.add_model_config({str(path.with_suffix('.json'))!r}); "
    )  # fmt: skip
    return (
        f"{experiment.name}, stage {number}: {first}"
        f"open_clip.create_model({shown}, pretrained={str(path)!r})"
    )

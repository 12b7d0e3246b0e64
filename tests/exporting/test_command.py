"""`fomo export` of a stage that was run: forms, what is known of the data, what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fomo_dagster.cli.exporting import export
from fomo_dagster.errors import InputError
from fomo_dagster.graph.nodes.evaluation import EvaluationNode
from fomo_dagster.graph.nodes.export_subject import subject_of
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.tables.views import query


def test_forms_of_a_stage_are_written_and_told(finished_project, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    told = list(export("toy", [], 2, folder, ["card", "transformers", "openclip"]))
    assert told[0] == f"toy, stage 2: {folder}"
    written = [line.partition(":")[0].strip() for line in told[1:] if line[2] != " "]
    assert written[:3] == ["openclip", "transformers", "card"]
    assert any("features within" in line for line in told)
    (note,) = (line for line in told if line.startswith("Note: "))
    assert "old (not declared)" in note
    assert note.endswith("does not say what is allowed.")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "openclip", "transformers"
    ]  # fmt: skip
    with pytest.raises(InputError, match="not empty"):
        list(export("toy", [], 2, folder, ["card"]))


def test_a_file_of_weights_names_the_licences_that_a_folder_names(
    finished_project, tmp_path: Path
) -> None:
    told = list(export("toy", [], 2, tmp_path / "model", ["openclip"]))
    notes = [line for line in told if line.startswith("Note: ")]
    assert "old (not declared)" in notes[0]
    assert list(export("toy", [], 2, tmp_path / "model.safetensors", []))[1:] == notes


def test_an_export_knows_what_its_weights_were_trained_and_measured_on(finished_project) -> None:
    graph, home = finished_project.graph(), finished_project.home
    for stage in (0, 2):
        node = graph.nodes[f"toy/evaluation_{stage:03d}"]
        assert isinstance(node, EvaluationNode)
        context = RunContext(graph, home)
        subject = subject_of(node, graph.experiments["toy"], graph.nodes, context)
        brought = query(
            home.root,
            "SELECT dataset, sum(samples) AS samples FROM chunks "
            f"WHERE stream = 'toy' AND stage <= {stage} GROUP BY dataset ORDER BY dataset",
        )
        updates = [one for one in subject.provenance.data if one.use == "update"]
        assert [(one.dataset, one.samples) for one in updates] == brought.rows()
        others = [one for one in subject.provenance.data if one.use == "pretraining"]
        assert [one.dataset for one in others] == ["old"]
        assert others[0].samples == 3 * 4
        scores = query(
            home.root,
            "SELECT dataset, value FROM evaluations WHERE experiment = 'toy' "
            f"AND stage = {stage} AND metric = 'score' ORDER BY dataset",
        )
        assert sorted((one.name, one.score) for one in subject.evaluated) == scores.rows()
        digest = subject.provenance.digests[f"weights ({node.checkpoint_key})"]
        assert digest == context.artifact(node.checkpoint_key).digest
        weights = context.artifact(node.checkpoint_key).path("weights.safetensors")
        own = subject.model.module.state_dict()
        assert all(torch.equal(own[name], value) for name, value in load_file(weights).items())


@pytest.mark.parametrize(
    ("path", "forms", "why"),
    [
        (None, [], "nothing says what to write"),
        (Path("model.safetensors"), ["onnx"], "named as a file of weights"),
        (Path("model"), [], "OpenCLIP takes its weights from"),
        (Path("model"), ["onxx"], "did you mean 'onnx'"),
    ],
)
def test_what_cannot_be_meant_is_refused(finished_project, path, forms, why: str) -> None:
    with pytest.raises(InputError, match=why):
        list(export("toy", [], None, path, forms))

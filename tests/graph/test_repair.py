"""Merges with a repair: what they depend on, what a changed one computes again, and the numbers."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pools import Sample
from fomo_dagster.data.transforms import evaluate_transform
from fomo_dagster.graph.core.files import MANIFEST
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.graph.work.merge_repair import calibration_samples
from fomo_dagster.merging.technique import Repair
from fomo_dagster.models import backbones
from fomo_dagster.models.operations import of_encoding

THETA = "backbones/toy"
TRAINED = [f"toy/trained_{stage:03d}" for stage in (1, 2, 3)]
DEPLOYED = [f"toy/deployed_{stage:03d}" for stage in (1, 2, 3)]
CHUNKS = [f"streams/toy/chunk_{stage:03d}" for stage in (1, 2, 3)]
KINDS = ("trained", "deployed", "start")


def method(repair, technique="technique: interpolation", rules=""):
    return f"method={{{rules} merge: {{{technique}, repair: {repair}}}}}"


def make(graph, home):
    context = RunContext(graph, home)
    nodes = [node for node in graph.nodes.values() if node.kind in KINDS]
    return {node.key for node in nodes if materialise(node.key, context).computed}


def foreseen(graph, home):
    entries = plan(graph.nodes.values(), RunContext(graph, home))
    return {e.asset: e for e in entries if e.compute and graph.nodes[e.asset].kind in KINDS}


def weights(graph, home, key):
    return load_file(RunContext(graph, home).artifact(key).path(WEIGHTS))


def test_the_chunk_of_the_newest_weights_is_an_input_where_a_repair_is_asked_for(project):
    nodes = project.graph("toy", method("{samples: 4}")).nodes
    assert nodes[DEPLOYED[0]].inputs == (THETA, TRAINED[0], CHUNKS[0])
    assert nodes[DEPLOYED[1]].inputs == (DEPLOYED[0], TRAINED[1], CHUNKS[1])
    nodes = project.graph("toy", method("null")).nodes
    assert nodes[DEPLOYED[1]].inputs == (DEPLOYED[0], TRAINED[1])
    joint = method("{samples: 4}", rules="start_from: joint, deploy: trained,")
    nodes = project.graph("toy", joint).nodes
    # What stage 3 starts from is merged, and repaired, after stage 2.
    assert nodes["toy/start_003"].inputs == (TRAINED[0], TRAINED[1], CHUNKS[1])


def test_a_repair_trains_nothing_and_its_samples_decide_the_weights(finished_project):
    home = finished_project.home
    plain = finished_project.graph("toy", method("null"))
    assert make(plain, home) == set(DEPLOYED)
    before = weights(plain, home, DEPLOYED[0])
    graph = finished_project.graph("toy", method("{samples: 6}"))
    entries = foreseen(graph, home)
    assert entries.keys() == set(DEPLOYED)
    assert "repair (none) → {'samples': 6, 'seed': 0}" in " ".join(entries[DEPLOYED[0]].reasons)
    assert make(graph, home) == set(DEPLOYED)
    assert make(graph, home) == set()
    after = weights(graph, home, DEPLOYED[0])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    layers = ("visual.transformer.resblocks.0.mlp.c_fc", "transformer.resblocks.0.mlp.c_fc")
    assert changed == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}

    other = finished_project.graph("toy", method("{samples: 6, seed: 1}"))
    entries = foreseen(other, home)
    assert entries.keys() == set(DEPLOYED)
    assert "repair.seed 0 → 1" in " ".join(entries[DEPLOYED[0]].reasons)
    make(other, home)
    again = weights(other, home, DEPLOYED[0])
    assert not torch.equal(again[f"{layers[0]}.bias"], after[f"{layers[0]}.bias"])


def test_the_repaired_layer_has_the_mean_of_the_models_moments(finished_project):
    """By hand: all images of the chunk, the first layer of the image tower, an 0.2 / 0.8 merge."""
    home = finished_project.home
    graph = finished_project.graph("toy", method("{}", "technique: interpolation, weight: 0.8"))
    make(graph, home)
    context = RunContext(graph, home)
    manifest = pl.read_parquet(context.artifact(CHUNKS[0]).path(MANIFEST))
    paths = [
        finished_project.root / "images" / row["dataset"] / "train" / row["key"]
        for row in manifest.iter_rows(named=True)
    ]
    backbone = finished_project.load().experiment.backbone

    def moments(key):
        model = load_weights(backbone, context.artifact(key).path(WEIGHTS))
        transform = evaluate_transform(16, model.mean, model.std)
        images = torch.stack([transform(Image.open(path)) for path in paths])
        found = []
        layer = model.module.visual.transformer.resblocks[0].mlp.c_fc
        layer.register_forward_hook(lambda _, __, output: found.append(output.double()))
        model.module.eval().encode_image(images)
        rows = found[0].detach().flatten(0, 1).numpy()
        return np.stack([rows.mean(0), rows.std(0)])

    expected = 0.2 * moments(THETA) + 0.8 * moments(TRAINED[0])
    np.testing.assert_allclose(moments(DEPLOYED[0]), expected, rtol=1e-4, atol=1e-5)


def test_a_merge_records_the_operations_of_its_repair(finished_project):
    home = finished_project.home
    graph = finished_project.graph("toy", method("{samples: 6}"))
    make(graph, home)
    encoding = of_encoding(finished_project.load().experiment.backbone.architecture)
    of_pair = encoding.flops_per_image + encoding.flops_per_text
    assert home.heads.read(DEPLOYED[0]).cost["flops"] == (2 + 1) * 6 * of_pair
    make(finished_project.graph("toy", method("null")), home)
    assert "flops" not in home.heads.read(DEPLOYED[0]).cost


def test_a_changed_repair_trains_again_where_stages_start_from_merged_weights(finished_project):
    rules = "start_from: deployed,"
    home = finished_project.home
    graph = finished_project.graph("toy", method("null", rules=rules))
    assert make(graph, home) == {*DEPLOYED, *TRAINED[1:]}
    changed = finished_project.graph("toy", method("{samples: 6}", rules=rules))
    assert foreseen(changed, home).keys() == {*DEPLOYED, *TRAINED[1:]}


class Pool:
    """Each position's sample says where it was drawn."""

    size = 5

    def sample(self, seed, stage, position):
        colour = (10 * seed, 20 * stage, 30 * position)
        return Sample(
            (f"first {seed} {stage} {position}", "second"), Image.new("RGB", (20, 30), colour)
        )


@pytest.mark.parametrize(("asked", "there"), [(3, 3), (256, 5)])
def test_samples_are_drawn_by_seed_with_the_first_caption_and_seen_as_at_evaluation(asked, there):
    model = backbones.create(
        {
            "embed_dim": 8,
            "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16,
                           "head_width": 8},
            "text_cfg": {"context_length": 7, "layers": 1, "width": 12, "heads": 2},
        },
        0,
    )  # fmt: skip
    found = calibration_samples(model, Pool(), Repair(samples=asked, seed=2), Pixels.PILLOW)
    texts = [f"first 2 0 {position}" for position in range(there)]
    assert torch.equal(found.tokens, model.tokenize(texts))
    assert found.images.shape == (there, 3, 16, 16)
    for position, image in enumerate(found.images):
        colour = torch.tensor([20, 0, 30 * position]) / 255
        expected = (colour - torch.tensor(model.mean)) / torch.tensor(model.std)
        torch.testing.assert_close(image, expected[:, None, None].expand(3, 16, 16))

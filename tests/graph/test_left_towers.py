"""Towers that a method leaves as they are: what they encode is encoded once for all stages."""

import shutil
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.graph.work.left_towers import LeftTowers
from fomo_dagster.methods.adapters.declaration import Scaled
from fomo_dagster.methods.declaration import Finetune
from fomo_dagster.tables.views import query

SCORES = "SELECT dataset, stage, metric, value FROM evaluations ORDER BY ALL"


@pytest.mark.parametrize(
    ("method", "left"),
    [
        (Finetune(), set()),
        (Finetune(train="locked_image"), {"image"}),
        (Finetune(train="locked_text"), {"text"}),
        (Finetune(train={"include": ["visual.*"]}), set()),
        (Scaled(name="lora"), set()),
        (Scaled(name="lora", targets=["visual.*.c_fc", "visual.proj"]), {"text"}),
        (Scaled(name="lora", targets=["transformer.*.c_fc"]), {"image"}),
        (Scaled(name="lora", targets=["transformer.*.c_fc", "visual.*.c_fc"]), set()),
        (Scaled(name="lora", targets=["transformer.*", "c_fc"]), set()),
        (Scaled(name="lora", targets=["*.c_fc"]), set()),
    ],
)
def test_what_is_left_follows_from_the_declaration(method, left):
    assert method.left_towers == left


CHANGES = (
    "evaluation.temperature={}",
    "evaluation.few_shot={shots: [1], regularisation: {per_decade: 1}}",
)
MADE_AGAIN = ("evaluation", "few_shot", "temperature", "text_embeddings", "image_features")


def run(project, locked):
    """Materialise the experiment with a locked tower; its context."""
    changes = (f"method.train=locked_{locked}", *CHANGES)
    context = RunContext(build_graph([project.load("toy", *changes)]), project.home)
    for node in context.graph.of("toy"):
        materialise(node.key, context)
    return context


def counting(monkeypatch):
    """What is encoded from now on: images of a dataset by their keys, and sets of texts."""
    seen = {"images": [], "texts": []}
    images, texts = Encoder.images, Encoder.texts

    def count_images(encoder, dataset, samples, *others, **options):
        seen["images"].append((dataset, *samples["key"]))
        return images(encoder, dataset, samples, *others, **options)

    def count_texts(encoder, of):
        seen["texts"].append(tuple(of))
        return texts(encoder, of)

    monkeypatch.setattr(Encoder, "images", count_images)
    monkeypatch.setattr(Encoder, "texts", count_texts)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("locked", "once"), [("image", "images"), ("text", "texts")])
def test_a_left_tower_encodes_once_and_every_score_is_the_same(
    finished_project, monkeypatch, locked, once
):
    with monkeypatch.context() as patch:
        patch.setattr(Finetune, "left_towers", frozenset())
        run(finished_project, locked)
    usual = query(finished_project.home.root, SCORES)
    for kind in MADE_AGAIN:
        shutil.rmtree(finished_project.home.root / "store" / kind)
    seen = counting(monkeypatch)
    run(finished_project, locked)
    assert query(finished_project.home.root, SCORES).equals(usual)
    for kind, encoded in seen.items():
        times = Counter(encoded)
        if kind == once:
            assert max(times.values()) == 1
        else:
            assert min(times.values()) == 4


@pytest.mark.slow
def test_a_tower_that_differs_by_one_bit_is_no_longer_that_of_the_base(finished_project, tmp_path):
    context = run(finished_project, "image")
    left = LeftTowers("backbones/toy", frozenset({"image"}))
    base, trained = (context.artifact(key) for key in ("backbones/toy", "toy/trained_003"))
    assert trained.digest != base.digest
    for checkpoint in (base, trained):
        assert left.owner("image", checkpoint, context).digest == base.digest
        assert left.owner("text", checkpoint, context) is None
    weights = load_file(trained.path(WEIGHTS))
    name = next(name for name in weights if name.startswith("visual."))
    weights[name].view(-1).view(torch.int32)[0] ^= 1
    save_file(weights, tmp_path / WEIGHTS)
    altered = SimpleNamespace(digest="0" * 32, path=lambda name: tmp_path / name)
    assert left.owner("image", altered, context) is None

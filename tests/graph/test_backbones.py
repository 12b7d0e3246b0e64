"""Where θ₀ comes from, through the stages of an experiment."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast as FastTokenizer

from fomo_dagster.cli.budgets import bought
from fomo_dagster.cli.exporting import export_weights
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.graph.nodes.backbone import BackboneNode
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.models import backbones

pytestmark = pytest.mark.slow

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "photo", "of", "robin", "lion", "red"]
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {
        "context_length": 9, "vocab_size": len(WORDS), "width": 16, "heads": 2, "layers": 1,
        "hf_tokenizer_name": "someone/words", "pool_type": "last",
    },
    "custom_text": True,
}  # fmt: skip


def write_folder(folder: Path) -> Path:
    """An OpenCLIP folder whose tokeniser is its own, with random weights."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    FastTokenizer(tokenizer_object=words, pad_token="[PAD]").save_pretrained(folder)
    tell(folder)
    text = {**ARCHITECTURE["text_cfg"]}
    del text["hf_tokenizer_name"]
    text["vocab_size"] = 49408  # of the tokeniser without a folder; cut below
    weights = backbones.create(ARCHITECTURE | {"text_cfg": text}, 0).module.state_dict()
    embedding = weights["text.token_embedding.weight"]
    weights["text.token_embedding.weight"] = embedding[: len(WORDS)].clone()
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def tell(folder: Path, **images: object) -> None:
    told = {"model_cfg": ARCHITECTURE, "preprocess_cfg": {"interpolation": "bilinear", **images}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))


def to_compute() -> set[str]:
    return {entry.asset for entry in resolve_request("toy", []).plan() if entry.compute}


def test_stages_over_a_folder_of_weights_follow_what_is_in_it(finished_project) -> None:
    project = finished_project

    def write(folder: str, **backbone: object) -> None:
        backbone = {"name": "mine", "weights": f"../{folder}", **backbone}
        pool = {"name": "toy", "datasets": ["old"]}
        project.write("toy", backbone=backbone, pretraining_pool=pool)

    folder = write_folder(project.root / "model")
    write("model")
    run_experiment("toy", [])
    request = resolve_request("toy", [])
    node = request.graph.nodes["toy/evaluation_003"]
    head = project.home.heads.read("toy/trained_003")
    trained = project.home.store.open(*head.artifacts["only"]).path(WEIGHTS)
    model = load_weights(node.backbone, trained)
    assert model.interpolation == "bilinear"
    assert model.tokenize(["a photo of a robin"]).tolist() == [[1, 4, 5, 6, 4, 7, 2, 0, 0]]
    before = load_file(folder / "open_clip_model.safetensors")
    assert not torch.equal(model.module.state_dict()["visual.proj"], before["visual.proj"])
    head = project.home.heads.read("toy/trained_001")
    assert head.cost["flops"] > 0
    planned = resolve_request("toy", ["budget.mafs=0.05"]).plan()
    assert {entry.asset for entry in planned if entry.compute} >= {"toy/budget"}
    assert bought("toy", [], [], None).rows["gigaflops_per_step"].min() > 0
    exported = project.root / "exported.safetensors"
    export_weights("toy", [], None, exported)
    assert json.loads(exported.with_suffix(".json").read_text()) == ARCHITECTURE

    assert to_compute() == set()
    (folder / "README.md").write_text("nothing of what it computes")
    folder = folder.rename(project.root / "elsewhere")
    write("elsewhere")
    assert to_compute() == set()
    whole = {"backbones/mine", "toy/scores", "leaderboard", "toy/evaluation_000"}
    whole |= {f"toy/{kind}_{s:03d}" for kind in ("trained", "evaluation") for s in (1, 2, 3)}
    write("elsewhere", preprocessing={"resize_mode": "squash"})
    assert to_compute() == whole
    write("elsewhere")
    tell(folder, resize_mode="squash")
    assert to_compute() == whole
    tell(folder)
    assert to_compute() == set()

    write("elsewhere", architecture="ViT-B-32")
    with pytest.raises(InputError, match=r"leave out backbone\.architecture"):
        resolve_request("toy", []).plan()
    write("nowhere")
    with pytest.raises(
        InputError, match=r"weights of backbone 'mine': there is no file or folder .*nowhere"
    ):
        resolve_request("toy", [])


def test_what_is_made_of_weights_can_be_exported_when_their_file_is_gone(finished_project) -> None:
    project = finished_project
    before = project.root / "before.pt"
    export_weights("toy", [], 0, before)
    shutil.copy(before, project.root / "mine.pt")
    architecture = project.load().experiment.backbone.architecture
    backbone = {"name": "mine", "architecture": architecture, "weights": "../mine.pt"}
    project.write("toy", backbone=backbone, pretraining_pool={"name": "toy", "datasets": ["old"]})
    materialise("backbones/mine", RunContext(project.graph(), project.home))
    (project.root / "mine.pt").unlink()
    export_weights("toy", [], 0, project.root / "exported.pt")
    exported = torch.load(project.root / "exported.pt")
    assert exported.keys() == torch.load(before).keys()
    assert all(torch.equal(exported[name], value) for name, value in torch.load(before).items())


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (
            {"name": "b", "architecture": "ViT-B-32", "pretrained": "openai"},
            {"architecture": "ViT-B-32", "pretrained": "openai"},
        ),
        ("clip_vit_b32", {"architecture": "ViT-B-32-quickgelu", "pretrained": "openai"}),
        (
            {"name": "b", "architecture": "ViT-B-32", "weights": "b.pt"},
            {"architecture": "ViT-B-32"},
        ),
        (
            {
                "name": "b", "architecture": "ViT-B-32", "pretrained": "laion2b_s34b_b79k",
                "preprocessing": {"mean": [0, 0, 0]},
            },
            {
                "architecture": "ViT-B-32", "pretrained": "laion2b_s34b_b79k",
                "preprocessing": {"mean": [0, 0, 0]},
            },
        ),
    ],
)  # fmt: skip
def test_only_what_is_declared_of_images_is_told_of_a_backbone(declared, expected) -> None:
    backbone = Backbone.model_validate(declared)
    node = BackboneNode(key="backbones/b", backbone=backbone, pool_key=None, execution=None)
    assert dict(node.declared) == expected
    assert ("preprocessing" in backbone.model_dump()) == ("preprocessing" in expected)

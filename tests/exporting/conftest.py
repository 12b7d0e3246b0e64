"""Tiny models that were evaluated on real images behind real indexes, ready to be exported."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import polars as pl
import pytest
import timm
import torch
from PIL import Image
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.index import INDEX_FILE, Index
from fomo_dagster.data.samples import INDEX
from fomo_dagster.data.sources.generated import GeneratedSource
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.evaluation.evaluate import EvaluationSet, evaluate
from fomo_dagster.evaluation.prompts import mean_embeddings
from fomo_dagster.experiment.evaluation import Evaluation
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.exporting.form import Written
from fomo_dagster.exporting.subject import DataUse, Evaluated, Provenance, Subject
from fomo_dagster.exporting.writing import write_forms
from fomo_dagster.metrics import SCORE
from fomo_dagster.models import backbones
from fomo_dagster.models.backbones import Model
from fomo_dagster.store.digests import digest_of_bytes

CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 24, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16},
    "text_cfg": {
        "context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1,
        "norm_kwargs": {"eps": 1e-6},
    },
}  # fmt: skip
WORDS = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "wren", "robin", "crane", "scene"]
SIGLIP: dict[str, Any] = {
    "embed_dim": 32,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 24, "timm_model_name": "fomo_test_siglip", "timm_model_pretrained": False,
        "timm_pool": "map", "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 12, "vocab_size": len(WORDS), "width": 32, "heads": 2, "layers": 1,
        "hf_tokenizer_name": "someone/words", "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True, "proj_bias": True, "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
    },
}  # fmt: skip
NAMES = ["wren", "robin", "crane"]
SOURCE = GeneratedSource(generator="unused")
MakeClip = Callable[..., Model]
ONNX_FORMS = ("onnx", "onnx_fp16", "onnx_int8")


if not timm.is_model("fomo_test_siglip"):

    @register_model
    def fomo_test_siglip(pretrained: bool = False, **settings: Any) -> VisionTransformer:
        """A SigLIP image tower of two small blocks."""
        settings = {k: v for k, v in settings.items() if k in ("num_classes", "global_pool")}
        return VisionTransformer(
            img_size=24, patch_size=8, embed_dim=32, depth=2, num_heads=2, class_token=False,
            **settings,
        )  # fmt: skip


def with_large_weights(model: Model) -> Model:
    """Weights so large that different images and texts have quite different features."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.ndim:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def clip_model(**changes: Any) -> Model:
    """A CLIP of OpenCLIP's, with parts of its configuration changed."""
    architecture = json.loads(json.dumps(CLIP))
    for key, value in changes.items():
        if isinstance(value, Mapping):
            architecture[key] |= value
        else:
            architecture[key] = value
    return with_large_weights(backbones.create(architecture, seed=0))


def siglip_model(folder: Path) -> Model:
    """A SigLIP of OpenCLIP's, with the tokeniser that lies in `folder`."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    images = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    told = {"model_cfg": SIGLIP, "preprocess_cfg": images}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    module = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.save(module.state_dict(), folder / "open_clip_pytorch_model.bin")
    return with_large_weights(backbones.load_folder(folder))


def picture(number: int) -> bytes:
    """A small picture of noise, wider than it is high."""
    pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).resize((60, 44), Image.Resampling.BICUBIC).save(written, "PNG")
    return written.getvalue()


def index_in(folder: Path, samples: Sequence[tuple[str, str, list[str], bytes]]) -> Index:
    """Test samples (key, concept, captions, image) in shards."""
    folder.mkdir()
    rows = []
    with (folder / "test-000000.tar").open("wb") as shard:
        for key, concept, captions, data in samples:
            place = ("test-000000.tar", shard.tell(), len(data))
            rows.append(("test", key, concept, captions, digest_of_bytes(data), *place))
            shard.write(data)
    pl.DataFrame(rows, schema=INDEX, orient="row").write_parquet(folder / INDEX_FILE)
    return Index(folder)


def subject_of(model: Model, folder: Path) -> Subject:
    """The model, evaluated on a dataset of each kind."""
    birds = index_in(
        folder / "birds", [(f"{i:03}", NAMES[i % 3], [], picture(i)) for i in range(60)]
    )
    scenes = index_in(
        folder / "scenes",
        [(f"{i:03}", "scenes", [f"scene {i} of a {NAMES[i % 3]}"], picture(i)) for i in range(40)],
    )
    sets = {
        "adaptation": EvaluationSet(
            "birds", Dataset(source=SOURCE, prompt="a photo of a {}"), birds, NAMES
        ),
        "held_out": EvaluationSet(
            "scenes", Dataset(source=SOURCE, task="retrieval"), scenes, ["scenes"]
        ),
    }
    encoder = Encoder(model=model, batch_size=16, precision="fp32", device="cpu")
    evaluated = []
    for role, one in sets.items():
        found = evaluate(
            encoder, one, Evaluation(),
            lambda texts, each: mean_embeddings(encoder.texts(texts), each),
        )  # fmt: skip
        (score,) = found.metrics.filter(metric=SCORE)["value"]
        evaluated.append(
            Evaluated(evaluation_set=one, role=role, score=score, predictions=found.predictions)  # type: ignore[arg-type]
        )
    provenance = Provenance(
        experiment="sweeps/toy", stage=2, backbone="a configuration", method="finetune",
        data=(
            DataUse(dataset="birds", use="update", samples=60, licence="CC BY-NC-SA 4.0"),
            DataUse(dataset="old", use="pretraining", samples=None),
        ),
        digests={"weights": "0123"},
    )  # fmt: skip
    return Subject(
        model=model, provenance=provenance, evaluated=tuple(evaluated), settings=Evaluation(),
        execution=Execution(device="cpu"),
    )  # fmt: skip


@pytest.fixture
def make_clip() -> MakeClip:
    """Makes a CLIP of OpenCLIP's, with parts of its configuration changed."""
    return clip_model


@pytest.fixture(scope="module")
def clip_subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A CLIP with QuickGELU."""
    return subject_of(clip_model(), tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip_subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A SigLIP with a tokeniser of its own."""
    folder = tmp_path_factory.mktemp("siglip")
    return subject_of(siglip_model(folder), folder)


@dataclass(frozen=True)
class OnnxExport:
    """folder: of the forms of ONNX of `clip_subject`'s model, and a card. written: by form."""

    folder: Path
    written: Mapping[str, Written]


@pytest.fixture(scope="session")
def onnx_export(tmp_path_factory: pytest.TempPathFactory) -> OnnxExport:
    """The first process that asks for it makes it for all."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, told = base / "onnx_export", base / "onnx_export.pickle"
    with (base / "onnx_export.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            shutil.rmtree(folder, ignore_errors=True)
            subject = subject_of(clip_model(), tmp_path_factory.mktemp("exported"))
            written = write_forms([*ONNX_FORMS, "card"], subject, folder)
            told.write_bytes(pickle.dumps(written))
    return OnnxExport(folder, pickle.loads(told.read_bytes()))

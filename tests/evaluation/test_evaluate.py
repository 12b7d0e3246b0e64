"""Whole evaluations against a plain computation with OpenCLIP, one sample at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import open_clip
import pytest
import torch
from open_clip.zero_shot_metadata import SIMPLE_IMAGENET_TEMPLATES
from PIL import Image
from torch import Tensor

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.index import Index
from fomo_dagster.data.sources.generated import GeneratedSource
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.evaluation.evaluate import EvaluationSet, evaluate
from fomo_dagster.evaluation.prompts import mean_embeddings
from fomo_dagster.evaluation.results import EvaluationResult
from fomo_dagster.experiment.evaluation import Evaluation
from fomo_dagster.models.backbones import Model

StoreImages = Callable[[Sequence[tuple[str, str, list[str], bytes]]], Index]
Picture = Callable[[int], bytes]

SOURCE = GeneratedSource(generator="unused")
BIRDS = Dataset(source=SOURCE, prompt="A photo of the bird {}.")
SCENES = Dataset(source=SOURCE, task="retrieval")
NAMES = ["wren", "robin", "crane", "heron", "egret", "finch"]


def evaluated(
    model: Model,
    dataset: Dataset,
    index: Index,
    settings: Evaluation,
    asked: list[tuple[str, ...]] | None = None,
) -> EvaluationResult:
    def text_embeddings(texts: tuple[str, ...], each: int) -> Tensor:
        if asked is not None:
            asked.append(texts)
        return mean_embeddings(replace(encoder, batch_size=50).texts(texts), each)

    encoder = Encoder(model=model, batch_size=16, precision=settings.precision, device="cpu")
    return evaluate(encoder, EvaluationSet("set", dataset, index, NAMES), settings, text_embeddings)


def values_of(result: EvaluationResult) -> dict[str, float]:
    return dict(result.metrics.select("metric", "value").rows())


def image_features(model: Model, index: Index) -> Tensor:
    """(N, D) fp64, L2-normalised, by key: OpenCLIP's transform and a forward pass an image."""
    transform = open_clip.image_transform(
        model.image_size, is_train=False, mean=model.mean, std=model.std
    )
    places = index.rows("test").sort("key").select("shard", "offset", "size").rows()
    with torch.no_grad():
        features = [
            model.module.eval().encode_image(
                transform(Image.open(io.BytesIO(index.read(*place))))[None]
            )
            for place in places
        ]
    return torch.nn.functional.normalize(torch.cat(features).double(), dim=-1)


def test_classification_is_openclips_zero_shot_classification(
    tiny_model: Model, store_images: StoreImages, picture: Picture
) -> None:
    concepts = [NAMES[i * i % 5] for i in range(60)]  # no finch
    index = store_images([(f"{i:02}", concepts[i], [], picture(i)) for i in range(60)])
    module = tiny_model.module.eval()
    weights = open_clip.build_zero_shot_classifier(
        module, tiny_model.tokenize, NAMES, SIMPLE_IMAGENET_TEMPLATES
    ).double()
    logits = image_features(tiny_model, index) @ weights  # (N, C)
    predicted = [NAMES[i] for i in logits.argmax(dim=1)]
    top = [[NAMES[i] for i in row] for row in logits.topk(5).indices]
    assert len(set(predicted)) >= 4  # else the features would hardly matter
    hits = [a == b for a, b in zip(predicted, concepts, strict=True)]
    per_concept = {
        name: 100 * fmean(hit for hit, c in zip(hits, concepts, strict=True) if c == name)
        for name in sorted(set(concepts))
    }
    asked: list[tuple[str, ...]] = []
    result = evaluated(tiny_model, BIRDS, index, Evaluation(prompts="simple"), asked)
    expected = {
        "score": 100 * fmean(hits),
        "accuracy": 100 * fmean(hits),
        "mean_per_class_accuracy": fmean(per_concept.values()),
        "top_5_accuracy": 100 * fmean(c in names for c, names in zip(concepts, top, strict=True)),
    }
    values = values_of(result)
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert dict(result.concepts.select("concept", "value").rows()) == pytest.approx(per_concept)
    assert [len(texts) for texts in asked] == [len(NAMES) * 7]


def test_the_datasets_own_prompt_is_the_default(
    tiny_model: Model, store_images: StoreImages, picture: Picture
) -> None:
    index = store_images([("a", "wren", [], picture(0))])
    asked: list[tuple[str, ...]] = []
    evaluated(tiny_model, BIRDS, index, Evaluation(), asked)
    assert asked == [tuple(f"A photo of the bird {name}." for name in NAMES)]


def test_retrieval_matches_captions_to_their_images(
    tiny_model: Model, store_images: StoreImages, picture: Picture
) -> None:
    count = 40
    captions = [[f"picture {i} seen {j} times" for j in range(1 + i % 3)] for i in range(count)]
    index = store_images([(f"{i:02}", "set", captions[i], picture(i)) for i in range(count)])
    images = image_features(tiny_model, index)
    owners = [i for i in range(count) for _ in captions[i]]
    with torch.no_grad():
        texts = [
            tiny_model.module.encode_text(tiny_model.tokenize([text]))
            for of_image in captions
            for text in of_image
        ]
    similarity = images @ torch.nn.functional.normalize(torch.cat(texts).double(), dim=-1).T
    expected = {}
    for k in (1, 5, 10):
        nearest_texts = similarity.topk(k, dim=1).indices.tolist()
        nearest_images = similarity.topk(k, dim=0).indices.T.tolist()
        to_text = fmean(any(owners[t] == i for t in row) for i, row in enumerate(nearest_texts))
        to_image = fmean(owners[t] in row for t, row in enumerate(nearest_images))
        expected[f"image_to_text_recall@{k}"] = 100 * to_text
        expected[f"text_to_image_recall@{k}"] = 100 * to_image
        expected[f"recall@{k}"] = 50 * (to_text + to_image)
    expected["score"] = expected["recall@5"]
    asked: list[tuple[str, ...]] = []
    result = evaluated(tiny_model, SCENES, index, Evaluation(), asked)
    values = values_of(result)
    assert values.pop("chance") < 100
    assert values == pytest.approx(expected)
    assert asked == [tuple(text for of_image in captions for text in of_image)]


def test_a_subset_is_what_is_encoded_and_the_seed_chooses_it(
    tiny_model: Model, store_images: StoreImages, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [picture(i) for i in range(30)]
    index = store_images([(f"{i:03}", NAMES[i % 6], [], data[i % 30]) for i in range(330)])
    reads: list[int] = []
    plain = index.read

    def counted(shard: str, offset: int, size: int) -> bytes:
        reads.append(offset)
        return plain(shard, offset, size)

    monkeypatch.setattr(index, "read", counted)
    chosen = []
    for seed in (0, 0, 1):
        result = evaluated(tiny_model, BIRDS, index, Evaluation(subset=0.5, seed=seed))
        assert result.metrics["samples"].unique().to_list() == [300]
        assert result.concepts["samples"].to_list() == [50] * 6
        assert len(reads) == len(set(reads)) == 300
        chosen.append(set(reads))
        reads.clear()
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize(
    ("images", "each", "concepts"),
    [(1000, 5, 1), (640, 1, 115)],
    ids=["as Flickr30k, of one concept", "as FSCOCO, with classes"],
)
def test_a_retrieval_gallery_is_never_cut(
    store_images: StoreImages,
    tiny_model: Model,
    monkeypatch: pytest.MonkeyPatch,
    images: int,
    each: int,
    concepts: int,
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(images, 8, generator=generator)
    noise = torch.randn(images, each, 8, generator=generator)
    of_captions = (features[:, None] + 0.35 * noise).flatten(0, 1)  # (N · each, 8)
    names = [f"{i:04}" for i in range(images)]
    captions = [[f"{name} {n}" for n in range(each)] for name in names]
    index = store_images(
        [
            (name, f"class {i % concepts}", texts, name.encode())
            for i, (name, texts) in enumerate(zip(names, captions, strict=True))
        ]
    )
    monkeypatch.setattr(
        Encoder,
        "images",
        lambda encoder, name, samples, index: features[list(map(int, samples["key"]))],
    )
    encoder = Encoder(model=tiny_model, batch_size=16, precision="fp32", device="cpu")

    def text_embeddings(texts: tuple[str, ...], each_text: int) -> Tensor:
        places = [each * int(name) + int(n) for name, n in map(str.split, texts)]
        return of_captions[places]

    def result(subset: float) -> EvaluationResult:
        evaluation_set = EvaluationSet("set", SCENES, index, ())
        return evaluate(encoder, evaluation_set, Evaluation(subset=subset), text_embeddings)

    def recall(chosen: Tensor) -> float:
        """Mean recall@5 both ways among these images and their captions, by lists of the best."""
        own = (each * chosen[:, None] + torch.arange(each)).flatten()
        similarity = features[chosen].double() @ of_captions[own].double().T
        owner = torch.arange(len(chosen)).repeat_interleave(each)
        best_captions = owner[similarity.topk(5, dim=1).indices]  # (N, 5)
        best_images = similarity.topk(5, dim=0).indices  # (5, M)
        found = (best_captions == torch.arange(len(chosen))[:, None]).any(dim=1)
        placed = (best_images == owner).any(dim=0)
        return 50 * float(found.double().mean() + placed.double().mean())

    cut, whole = recall(torch.arange(300)), recall(torch.arange(images))
    assert cut > whole + 3  # percent: what an evaluation on a cut gallery would pretend
    assert values_of(result(0.1))["score"] == pytest.approx(whole)
    assert result(0.1).metrics.equals(result(1.0).metrics)
    assert result(0.1).concepts["samples"].sum() == images

"""Features against one plain forward pass a sample."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence

import open_clip
import polars as pl
import pytest
import torch
from PIL import Image
from torch import Tensor

from fomo_dagster.data.index import Index
from fomo_dagster.errors import DataError
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.models.backbones import Model

StoreImages = Callable[[Sequence[tuple[str, str, list[str], bytes]]], Index]
Picture = Callable[[int], bytes]


@pytest.fixture
def index(store_images: StoreImages, picture: Picture) -> Index:
    return store_images([(f"{i:02}.png", "any", [], picture(i)) for i in range(23)])


def images(
    model: Model,
    index: Index,
    batch_size: int = 8,
    precision: str = "fp32",
    rows: pl.DataFrame | None = None,
) -> Tensor:
    encoder = Encoder(model=model, batch_size=batch_size, precision=precision, device="cpu")
    return encoder.images("birds", index.rows("test") if rows is None else rows, index)


def texts(
    model: Model, values: Sequence[str], batch_size: int = 8, precision: str = "fp32"
) -> Tensor:
    encoder = Encoder(model=model, batch_size=batch_size, precision=precision, device="cpu")
    return encoder.texts(values)


def reference_features(model: Model, index: Index, rows: pl.DataFrame) -> Tensor:
    """OpenCLIP's transform and one fp64 forward pass an image."""
    transform = open_clip.image_transform(
        model.image_size, is_train=False, mean=model.mean, std=model.std
    )
    module = model.module.eval().double()
    features = []
    with torch.no_grad():
        for shard, offset, size in rows.select("shard", "offset", "size").rows():
            image = Image.open(io.BytesIO(index.read(shard, offset, size)))
            feature = module.encode_image(transform(image)[None].double())
            features.append(feature / feature.norm())
    module.float()
    return torch.cat(features)


def test_image_features_are_those_of_one_pass_an_image_in_the_rows_order(
    tiny_model: Model, index: Index
) -> None:
    rows = index.rows("test").sample(fraction=1, shuffle=True, seed=1)
    found = images(tiny_model, index, rows=rows)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    expected = reference_features(tiny_model, index, rows)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_the_last_layer_gives_the_image_features_and_others_are_normalised_too(
    tiny_model: Model, index: Index
) -> None:
    encoder = Encoder(model=tiny_model, batch_size=8, precision="fp32", device="cpu")
    layers = encoder.image_layers("birds", index.rows("test"), index)
    assert layers.shape == (2, 23, 16)
    assert torch.equal(layers[-1], images(tiny_model, index))
    torch.testing.assert_close(layers.norm(dim=-1), torch.ones(2, 23))
    assert not torch.allclose(layers[0], layers[1])


def test_text_features_equal_one_pass_per_text_and_encode_equal_texts_once(
    tiny_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [f"a photo of number {i % 7}" for i in range(20)]
    module = tiny_model.module.double()
    with torch.no_grad():
        single = [module.eval().encode_text(tiny_model.tokenize([value])) for value in values]
    expected = torch.cat([feature / feature.norm() for feature in single])
    plain = module.float().encode_text
    encoded: list[int] = []

    def counted(tokens: Tensor) -> Tensor:
        encoded.append(len(tokens))
        return plain(tokens)

    monkeypatch.setattr(module, "encode_text", counted)
    found = texts(tiny_model, values, batch_size=3)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert encoded == [3, 3, 1]
    assert torch.equal(found[0], found[14])


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_batch_size_changes_nothing_beyond_rounding(
    tiny_model: Model, index: Index, batch_size: int
) -> None:
    torch.testing.assert_close(
        images(tiny_model, index, batch_size), images(tiny_model, index, 7), rtol=0, atol=1e-5
    )
    values = [f"text {i}" for i in range(11)]
    torch.testing.assert_close(
        texts(tiny_model, values, batch_size), texts(tiny_model, values, 7), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(("precision", "least_cosine"), [("bf16", 0.98), ("fp16", 0.999)])
def test_lower_precision_is_used_and_near_the_full_one(
    tiny_model: Model, index: Index, precision: str, least_cosine: float
) -> None:
    values = [f"text {i}" for i in range(11)]
    for low, full in (
        (images(tiny_model, index, precision=precision), images(tiny_model, index)),
        (texts(tiny_model, values, precision=precision), texts(tiny_model, values)),
    ):
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.norm(dim=1), torch.ones(len(low)), rtol=0, atol=1e-6)
        assert not torch.equal(low, full)
        assert (low * full).sum(dim=1).min() > least_cosine


def test_the_model_encodes_in_evaluation_mode_and_keeps_its_own(
    tiny_model: Model, index: Index
) -> None:
    expected = images(tiny_model, index)  # `create` gives a model in some mode
    tiny_model.module.train()
    tiny_model.module.visual.eval()  # as a locked tower would be
    modes = [part.training for part in tiny_model.module.modules()]
    assert torch.equal(images(tiny_model, index), expected)
    assert [part.training for part in tiny_model.module.modules()] == modes
    tiny_model.module.train()
    assert torch.equal(images(tiny_model, index), expected)


def test_each_image_is_read_once_and_only_the_next_batch_ahead(
    tiny_model: Model, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[int] = Counter()
    ahead = []
    plain_read, plain_encode = index.read, tiny_model.module.encode_image

    def counted_read(shard: str, offset: int, size: int) -> bytes:
        reads[offset] += 1
        return plain_read(shard, offset, size)

    done = 0

    def counted_encode(batch: Tensor) -> Tensor:
        nonlocal done
        done += len(batch)
        ahead.append(reads.total() - done)
        return plain_encode(batch)

    monkeypatch.setattr(index, "read", counted_read)
    monkeypatch.setattr(tiny_model.module, "encode_image", counted_encode)
    images(tiny_model, index, batch_size=4)
    assert list(reads.values()) == [1] * 23
    assert max(ahead) <= 4


def test_progress_tells_every_batch_up_to_the_whole(tiny_model: Model, index: Index) -> None:
    told: list[tuple[str, int, int]] = []
    encoder = Encoder(
        model=tiny_model,
        batch_size=10,
        precision="fp32",
        device="cpu",
        progress=lambda what, done, total, detail="": told.append((what, done, total)),
    )
    encoder.images("birds", index.rows("test"), index)
    assert told == [("images of birds", done, 23) for done in (10, 20, 23)]


@pytest.mark.parametrize("damage", ["truncated", "not an image"])
def test_an_image_that_cannot_be_decoded_is_named(
    tiny_model: Model, store_images: StoreImages, picture: Picture, damage: str
) -> None:
    whole = picture(3)
    bad = whole[: len(whole) // 2] if damage == "truncated" else b"not an image"
    samples = [(f"{i}.png", "any", [""], picture(i)) for i in range(3)]
    index = store_images([*samples, ("x/bad.png", "any", [""], bad)])
    with pytest.raises(DataError, match=r"image 'x/bad.png' of dataset 'birds' cannot be decoded"):
        images(tiny_model, index)


def test_features_that_are_not_finite_are_an_error_that_names_the_sample(
    tiny_model: Model, index: Index
) -> None:
    with torch.no_grad():
        tiny_model.module.token_embedding.weight[tiny_model.tokenize(["rose"])[0, 1]] = torch.nan
    with pytest.raises(DataError, match=r"the text 'a rose' are not finite in fp32"):
        texts(tiny_model, ["a tulip", "a rose", "a lily"])
    with torch.no_grad():
        tiny_model.module.visual.proj.fill_(torch.nan)
    with pytest.raises(DataError, match=r"image '00.png' of dataset 'birds' are not finite"):
        images(tiny_model, index)


def test_groups_have_the_features_of_their_images_whatever_comes_with_them(
    tiny_model: Model, index: Index
) -> None:
    encoder = Encoder(model=tiny_model, batch_size=4, precision="fp32", device="cpu")
    rows = index.rows("test")
    groups = [rows.slice(0, 3), rows.slice(3, 11), rows.slice(14, 4), rows.slice(18, 5)]
    found = list(encoder.image_groups("birds", groups, index))
    assert [len(features) for features in found] == [3, 11, 4, 5]
    torch.testing.assert_close(torch.cat(found), encoder.images("birds", rows, index))
    # Bit for bit, since no batch crosses a group.
    alone = list(encoder.image_groups("birds", [groups[2]], index))
    assert torch.equal(alone[0], found[2])
    assert not torch.is_inference_mode_enabled()
    assert list(encoder.image_groups("birds", [], index)) == []


def test_a_picture_has_the_features_that_it_has_among_others(
    tiny_model: Model, index: Index
) -> None:
    encoder = Encoder(model=tiny_model, batch_size=4, precision="fp32", device="cpu")
    rows = index.rows("test")
    picture = index.picture(*rows.select("shard", "offset", "size").row(5))
    features = encoder.picture(picture, "a picture")
    torch.testing.assert_close(features, encoder.images("birds", rows, index)[5])

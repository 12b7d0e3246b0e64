"""Batches hold the right images beside the right texts, whatever makes them, and from any step.

Every image is of one colour that is its sample's own, so that a row tells which sample it is.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import polars as pl
import pytest
import torch
from PIL import Image

from fomo_dagster.data.batches import Batch, Batches, Tokenize, Tokens, Transform
from fomo_dagster.data.decoded_cache import DecodedCache
from fomo_dagster.data.decoders import decoded_array
from fomo_dagster.data.index import Index
from fomo_dagster.data.mixture import StepSizes
from fomo_dagster.data.pixel_rules import Pixels
from fomo_dagster.data.pools import ManifestPool, Pool
from fomo_dagster.data.samples import INDEX, MANIFEST
from fomo_dagster.data.sampling import positions
from fomo_dagster.data.transforms import augment
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.streams.manifests import with_prompts

PROMPTS = {"birds": "A photo of the bird {}.", "cars": "A {}, a type of car."}
CONCEPTS = {"birds": ("robin", "wren"), "cars": ("van",)}
PER_CONCEPT = 4
WITH_A_WORKER = pytest.param(1, marks=pytest.mark.slow)  # a process that imports PyTorch


def colour(dataset: str, concept: str, number: int) -> tuple[int, int, int]:
    return (10 * sorted(CONCEPTS).index(dataset), 20 * CONCEPTS[dataset].index(concept), number)


def captions(concept: str, number: int) -> list[str]:
    """None, one, two or three."""
    return [f"caption {place} of {concept} {number}" for place in range(number)]


def write_dataset(folder: Path, dataset: str) -> Index:
    """An index over one file of PNGs; every image also stands in the test split, in white."""
    folder.mkdir(parents=True)
    rows = []
    with (folder / "shard.tar").open("wb") as shard:
        for concept in CONCEPTS[dataset]:
            for number in range(PER_CONCEPT):
                for split in ("train", "test"):
                    shade = colour(dataset, concept, number) if split == "train" else (255,) * 3
                    data = BytesIO()
                    Image.new("RGB", (12, 10), shade).save(data, "PNG")
                    key, digest = f"{concept}/{number}", f"{dataset}/{concept}/{number}"
                    text = captions(concept, number)
                    place = (shard.tell(), len(data.getvalue()))
                    rows.append((split, key, concept, text, digest, "shard.tar", *place))
                    shard.write(data.getvalue())
    pl.DataFrame(rows, schema=INDEX, orient="row").write_parquet(folder / "index.parquet")
    return Index(folder)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Index]:
    folder = tmp_path_factory.mktemp("shards")
    return {dataset: write_dataset(folder / dataset, dataset) for dataset in CONCEPTS}


def manifest(*concepts: str) -> pl.DataFrame:
    dataset_of = {concept: name for name, concepts in CONCEPTS.items() for concept in concepts}
    table = pl.DataFrame(
        [
            (
                dataset_of[concept],
                concept,
                f"{concept}/{number}",
                captions(concept, number),
                f"{dataset_of[concept]}/{concept}/{number}",
            )
            for concept in concepts
            for number in range(PER_CONCEPT)
        ],
        schema=MANIFEST,
        orient="row",
    )
    return with_prompts(table, PROMPTS)


@pytest.fixture
def pools(indexes: dict[str, Index]) -> dict[str, Pool]:
    return {
        name: ManifestPool(name, manifest(*concepts), indexes)
        for name, concepts in {
            "pretraining": ["van"],
            "update": ["robin", "van"],
            "buffer": ["wren"],
        }.items()
    }


def pixel(image: Image.Image, rng: np.random.Generator) -> torch.Tensor:
    """The image's colour, and bits of its generator."""
    shade = np.asarray(image)[0, 0].tolist()
    return torch.tensor([*shade, rng.random()]).reshape(4, 1, 1)


def characters(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[ord(letter) for letter in text.ljust(40)] for text in texts])


def texts_of(batch: Batch) -> list[str]:
    return ["".join(map(chr, row)).rstrip() for row in batch.tokens.tolist()]


def make(
    pools: Mapping[str, Pool],
    sizes: Mapping[str, int],
    transform: Transform = pixel,
    tokenize: Tokenize = characters,
    *,
    seed: int = 0,
    stage: int = 2,
    steps: int = 6,
    workers: int = 0,
) -> Batches:
    return Batches(
        pools,
        StepSizes.constant(sizes, steps),
        seed=seed,
        stage=stage,
        transform=transform,
        tokenize=tokenize,
        workers=workers,
    )


def like_training(pools: Mapping[str, Pool], steps: int = 6, workers: int = 0) -> Batches:
    """As a stage makes them; all of it can be sent to worker processes."""
    transform = partial(augment, size=8, crop_scale=(0.3, 0.9))
    tokenize = open_clip.get_tokenizer("ViT-B-32", context_length=16)
    sizes = {"update": 3, "buffer": 2, "pretraining": 1}
    return make(pools, sizes, transform, tokenize, steps=steps, workers=workers)


def equal(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.images, other.images)
        and torch.equal(one.tokens, other.tokens)
        and torch.equal(one.drawn, other.drawn)
        and one.texts == other.texts
        and one.counts == other.counts
    )


def test_every_row_has_the_image_and_a_text_of_the_sample_that_its_position_draws(
    pools: dict[str, Pool],
) -> None:
    sizes = {"pretraining": 1, "update": 3, "buffer": 2}
    of_pool = {
        "update": manifest("robin", "van"),
        "buffer": manifest("wren"),
        "pretraining": manifest("van"),
    }
    batches = make(pools, sizes, seed=5, stage=3)
    for step in range(len(batches)):
        batch = batches[step]
        assert list(batch.counts.items()) == [("update", 3), ("buffer", 2), ("pretraining", 1)]
        texts, row = texts_of(batch), 0
        for name, table in of_pool.items():
            count = sizes[name]
            drawn = positions(5, 3, name, len(table), step * count, count)
            for dataset, concept, key, given, _ in table[drawn].iter_rows():
                number = int(key.split("/")[1])
                expected = torch.tensor(colour(dataset, concept, number))
                assert torch.equal(batch.images[row, :3, 0, 0], expected.float())
                place, caption = batch.drawn[row].tolist()
                assert table["key"][place] == key
                assert batch.texts[row] == texts[row]
                assert texts[row] == (given or [PROMPTS[dataset].format(concept)])[caption]
                row += 1
        assert row == len(texts) == len(batch.images)


def test_every_caption_of_a_sample_is_equally_likely(pools: dict[str, Pool]) -> None:
    batches = make(pools, {"buffer": 4}, steps=600)  # each step draws each of the four samples
    texts = Counter(text for step in range(600) for text in texts_of(batches[step]))
    assert texts["A photo of the bird wren."] == 600  # the sample without captions
    assert texts["caption 0 of wren 1"] == 600
    for number, count in ((2, 300), (3, 200)):
        for place in range(number):
            assert texts[f"caption {place} of wren {number}"] == pytest.approx(count, abs=50)


def test_a_sample_has_other_random_bits_every_time_it_is_drawn(pools: dict[str, Pool]) -> None:
    batches = make(pools, {"update": 8, "buffer": 4}, steps=20)
    bits = [value for step in range(20) for value in batches[step].images[:, 3, 0, 0].tolist()]
    assert len(set(bits)) == len(bits) == 240


@pytest.mark.parametrize("change", [{"seed": 1}, {"stage": 3}])
def test_seed_and_stage_change_the_batches(pools: dict[str, Pool], change: dict[str, int]) -> None:
    start = {"seed": 0, "stage": 2}
    one, other = (
        make(pools, {"update": 6}, seed=parts["seed"], stage=parts["stage"])[0]
        for parts in (start, start | change)
    )
    assert not torch.equal(one.images[:, :3], other.images[:, :3])
    assert set(one.images[:, 3, 0, 0].tolist()).isdisjoint(other.images[:, 3, 0, 0].tolist())


def test_another_size_of_one_pool_leaves_the_samples_of_the_others(pools: dict[str, Pool]) -> None:
    small, large = make(pools, {"update": 2, "buffer": 2}), make(pools, {"update": 5, "buffer": 2})
    for step in range(6):
        assert torch.equal(small[step].images[2:], large[step].images[5:])


def test_a_prompt_may_hold_other_braces(indexes: dict[str, Index]) -> None:
    given = with_prompts(
        manifest("van").with_columns(captions=pl.lit([], pl.List(pl.String))),
        {"cars": "{a} {} of {b}"},
    )
    texts = texts_of(make({"update": ManifestPool("update", given, indexes)}, {"update": 4})[0])
    assert set(texts) == {"{a} van of {b}"}


@pytest.mark.parametrize("step", [-1, 6])
def test_there_is_no_batch_outside_of_the_stage(pools: dict[str, Pool], step: int) -> None:
    with pytest.raises(IndexError, match=f"step {step} is not one of the 6"):
        make(pools, {"update": 2})[step]


@pytest.mark.parametrize("start", [0, 4, 6])
def test_iteration_from_a_step_on_gives_the_batches_from_there(
    pools: dict[str, Pool], start: int
) -> None:
    batches = like_training(pools)
    seen = list(batches.iterate(start))
    assert len(seen) == 6 - start
    assert all(equal(batch, batches[start + place]) for place, batch in enumerate(seen))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_and_survive_an_interrupt(
    pools: dict[str, Pool], workers: int
) -> None:
    batches = like_training(pools, steps=12, workers=workers)
    before = torch.random.get_rng_state()
    iterator = batches.iterate(1)
    seen = [next(iterator)]
    processes = multiprocessing.active_children()
    assert len(processes) == workers
    for process in processes:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGINT)
    seen += iterator
    assert len(seen) == 11
    assert all(equal(batch, batches[step]) for step, batch in enumerate(seen, 1))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, WITH_A_WORKER])
def test_an_undecodable_image_is_named_after_the_batches_before_it(
    tmp_path: Path, workers: int
) -> None:
    index = write_dataset(tmp_path / "cars", "cars")
    table = manifest("van")
    drawn = positions(0, 2, "update", PER_CONCEPT, 0, 2)
    key = table["key"][int(drawn[1])]
    _, offset, size = index.rows("train").filter(key=key).select("shard", "offset", "size").row(0)
    with (tmp_path / "cars" / "shard.tar").open("r+b") as shard:
        shard.seek(offset)
        shard.write(b"\0" * size)
    pool = ManifestPool("update", table, {"cars": index})
    sizes = {"update": 1}
    transform = partial(augment, size=8, crop_scale=(1, 1))
    tokenize = open_clip.get_tokenizer("ViT-B-32", context_length=16)
    batches = make({"update": pool}, sizes, transform, tokenize, workers=workers)
    iterator = batches.iterate(0)
    next(iterator)
    with pytest.raises(DataError, match=f"^the image '{key}' of dataset 'cars' cannot be decoded"):
        next(iterator)


def test_a_row_names_the_sample_that_took_the_place_of_an_undecodable_one(tmp_path: Path) -> None:
    class Unchecked(Index):
        is_checked = False

    write_dataset(tmp_path / "cars", "cars")
    index = Unchecked(tmp_path / "cars")
    _, offset, size = index.rows("train").select("shard", "offset", "size").row(2)
    with (tmp_path / "cars" / "shard.tar").open("r+b") as shard:
        shard.seek(offset)
        shard.write(b"\0" * size)
    pool = ManifestPool("update", manifest("van"), {"cars": index})
    batches = make({"update": pool}, {"update": PER_CONCEPT}, steps=4)
    for step in range(4):
        rows = batches[step].drawn[:, 0]
        assert 2 not in rows
        assert batches[step].images[:, 2, 0, 0].tolist() == rows.tolist()  # the colour's last part


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_broken_bytes_of_any_kind_are_a_data_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cars").mkdir()
    (tmp_path / "cars" / "shard.tar").write_bytes(data)
    captions: list[str] = []
    row = ("train", "van/0", "van", captions, "cars/van/0", "shard.tar", 0, len(data))
    pl.DataFrame([row], schema=INDEX, orient="row").write_parquet(tmp_path / "cars/index.parquet")
    pool = ManifestPool("update", manifest("van").head(1), {"cars": Index(tmp_path / "cars")})
    with pytest.raises(DataError, match="'van/0' of dataset 'cars' cannot be decoded"):
        make({"update": pool}, {"update": 1})[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda table: table.with_columns(digest=pl.lit("other")), "4 of the 4 samples"),
        (lambda table: table.with_columns(key=pl.col("key") + "x"), "4 of the 4 samples"),
        (lambda table: table[[0, 0]].with_columns(key=pl.Series(["van/0", "x"])), "1 of the 2"),
    ],
)
def test_a_manifest_of_images_that_the_shards_do_not_hold_is_refused(
    indexes: dict[str, Index], change: Callable[[pl.DataFrame], pl.DataFrame], named: str
) -> None:
    with pytest.raises(DataError, match=named):
        ManifestPool("update", change(manifest("van")), indexes)


def test_a_dataset_without_shards_or_a_sample_without_caption_is_named(
    indexes: dict[str, Index],
) -> None:
    with pytest.raises(DataError, match=r"'cars'.*no shards"):
        ManifestPool("update", manifest("van"), {"birds": indexes["birds"]})
    wordless = manifest("van").with_columns(captions=pl.lit([], pl.List(pl.String)))
    with pytest.raises(DataError, match=r"4 of the 4 .* no caption: cars/"):
        ManifestPool("update", wordless, indexes)


def test_batches_that_need_an_empty_or_missing_pool_are_refused(
    indexes: dict[str, Index], pools: dict[str, Pool]
) -> None:
    empty = ManifestPool("buffer", pl.DataFrame(schema=MANIFEST), indexes)
    assert empty.size == 0
    for given in ({**pools, "buffer": empty}, {"update": pools["update"]}):
        with pytest.raises(InputError, match="need 2 samples of the buffer pool"):
            make(given, {"update": 2, "buffer": 2})
    make({**pools, "buffer": empty}, {"update": 2, "buffer": 0})


CHANGING = [
    (0, {"pretraining": 4}),
    (2, {"update": 3, "buffer": 1}),
    (5, {"update": 1, "buffer": 1, "pretraining": 2}),
]


@pytest.mark.parametrize("workers", [0, WITH_A_WORKER])
def test_batches_that_change_leave_no_position_out_and_repeat_none(
    pools: dict[str, Pool], workers: int
) -> None:
    transform = partial(augment, size=8, crop_scale=(0.3, 0.9))
    tokenize = open_clip.get_tokenizer("ViT-B-32", context_length=16)
    batches = Batches(
        pools, StepSizes(CHANGING, 8), seed=3, stage=2, transform=transform, tokenize=tokenize,
        workers=workers,
    )  # fmt: skip
    rows: dict[str, list[int]] = {"update": [], "buffer": [], "pretraining": []}
    for step, batch in enumerate(batches.iterate(0)):
        assert equal(batch, batches[step])
        start = 0
        for name, count in batch.counts.items():
            rows[name] += batch.drawn[start : start + count, 0].tolist()
            start += count
        assert start == len(batch.texts) == 4
    assert {name: len(drawn) for name, drawn in rows.items()} == {
        "update": 12, "buffer": 6, "pretraining": 14
    }  # fmt: skip
    for name, drawn in rows.items():
        size = pools[name].size
        assert size is not None
        assert drawn == positions(3, 2, name, size, 0, len(drawn)).tolist()
    late = list(batches.iterate(4))
    assert len(late) == 4
    assert all(equal(batch, batches[step]) for step, batch in enumerate(late, 4))


def test_each_text_is_tokenised_once_while_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fomo_dagster.data.batches.TOKENISED", 3)
    asked: list[str] = []

    def tokenize(texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return characters(texts)

    tokens = Tokens(tokenize)
    for texts in (["a", "b", "a"], ["b", "c"], ["b", "d"], ["a", "d"], ["a", "b", "c", "d"]):
        assert torch.equal(tokens.of(texts), characters(texts))
    assert asked == ["a", "b", "c", "d", "a", "c"]


def test_workers_are_sent_the_tokeniser_without_what_it_was_asked() -> None:
    tokens = Tokens(characters)
    tokens.of(["a", "b"])
    assert len(pickle.dumps(tokens)) == len(pickle.dumps(Tokens(characters)))


@pytest.mark.parametrize("workers", [0, WITH_A_WORKER])
def test_batches_for_a_cuda_device_are_copied_to_pinned_memory(
    monkeypatch: pytest.MonkeyPatch, pools: dict[str, Pool], workers: int
) -> None:
    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone() + 1

    batches = like_training(pools, steps=4, workers=workers)
    expected = [(b.images + 1, b.tokens + 1) for b in batches.iterate(0)]
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    batches._pinned = True
    for batch, (images, tokens) in zip(batches.iterate(0), expected, strict=True):
        assert torch.equal(batch.images, images)
        assert torch.equal(batch.tokens, tokens)


def test_less_shared_memory_than_the_batches_take_is_said_before_a_worker_begins(
    monkeypatch: pytest.MonkeyPatch, pools: dict[str, Pool]
) -> None:
    usage = SimpleNamespace(free=2**10)
    monkeypatch.setattr("fomo_dagster.data.batches.shutil.disk_usage", lambda _: usage)
    taken = 5 * 6 * 3 * 8 * 8  # of two workers, two batches each, and the one that is used
    said = rf"batches of 2 workers take {taken / 1024:.2f} KiB of .* has 1.00 KiB free: use fewer "
    with pytest.raises(InputError, match=said):
        next(like_training(pools, workers=2).iterate(0))
    assert len([*like_training(pools).iterate(0)]) == 6


@pytest.mark.slow
def test_batches_that_are_held_stay_what_they_are_whatever_workers_do_after(
    pools: dict[str, Pool],
) -> None:
    expected = [*like_training(pools, steps=20).iterate(0)]
    held = [*like_training(pools, steps=20, workers=2).iterate(0)]
    for one, other in zip(held, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.drawn, other.drawn)
        assert (one.texts, one.counts) == (other.texts, other.counts)


@pytest.mark.parametrize("workers", [0, WITH_A_WORKER])
def test_decoded_images_that_are_kept_make_the_same_batches(
    tmp_path: Path, indexes: dict[str, Index], workers: int
) -> None:
    def batches(index: Index) -> list[torch.Tensor]:
        pool = ManifestPool("update", manifest("van"), {"cars": index}, decoded_array)
        transform = partial(augment, size=8, crop_scale=(0.3, 0.9), pixels=Pixels.TORCH)
        made = make({"update": pool}, {"update": 4}, transform, steps=3, workers=workers)
        return [batch.images for batch in made.iterate(0)]

    index = indexes["cars"]
    keeping = index.keeping(DecodedCache(tmp_path, "cars", 10**8))
    expected = batches(index)
    for _ in range(2):
        assert all(map(torch.equal, batches(keeping), expected))
    assert len([*tmp_path.glob("cars/*/*")]) == len(manifest("van"))

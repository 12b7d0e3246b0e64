"""What a stage leaves of its samples for DER, from the file to the rows of a batch."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import polars as pl
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import run_experiment
from fomo_dagster.data.buffer import select
from fomo_dagster.data.index import Index
from fomo_dagster.data.samples import INDEX, MANIFEST
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.graph.work.replay_features import read_replay_features, write_replay_features
from fomo_dagster.models import backbones
from fomo_dagster.progress import no_progress

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("uncounted")]

DATASETS = ("cats", "birds")
PER_DATASET = 5
ARCHITECTURE = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class Unchecked(Index):
    is_checked = False


class Shelf:
    """As much of a context as is asked for: a folder of indexes, and no bars."""

    progress = staticmethod(no_progress)

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def captions(dataset: str, number: int) -> list[str]:
    """One to three, the first common to all of the dataset."""
    return [f"one of the {dataset}", *(f"{dataset} {number}, {n}" for n in range(number % 3))]


def picture(dataset: str, number: int) -> Image.Image:
    noise = np.random.default_rng([number, len(dataset)]).integers(0, 256, (20, 26, 3))
    return Image.fromarray(noise.astype(np.uint8))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Datasets whose fourth image cannot be decoded."""

    def index_of(dataset: str, shelf: Shelf) -> Index:
        return Unchecked(shelf.folder / dataset)

    monkeypatch.setattr("fomo_dagster.graph.work.manifest_features.index_of", index_of)
    for dataset in DATASETS:
        (tmp_path / dataset).mkdir()
        rows = []
        with (tmp_path / dataset / "shard.tar").open("wb") as shard:
            for number in range(PER_DATASET):
                data = BytesIO()
                picture(dataset, number).save(data, "PNG")
                content = data.getvalue() if number != 3 else b"no picture"
                text = captions(dataset, number)
                place = (shard.tell(), len(content))
                rows.append(("train", str(number), "all", text, "x", "shard.tar", *place))
                shard.write(content)
        table = pl.DataFrame(rows, schema=INDEX, orient="row")
        table.write_parquet(tmp_path / dataset / "index.parquet")
    return Shelf(tmp_path)


def chunk(*samples: tuple[str, int]) -> pl.DataFrame:
    rows = [(d, "all", str(number), captions(d, number), "x") for d, number in samples]
    return pl.DataFrame(rows, schema=MANIFEST, orient="row")


def model_of(seed: int, **changes: float) -> Any:
    model = backbones.create(ARCHITECTURE | changes, seed)
    with torch.no_grad():
        model.module.logit_scale.fill_(1.0 + seed)
    return model


@torch.no_grad()
def expected(model: Any, dataset: str, number: int, caption: int) -> list[torch.Tensor]:
    """Through OpenCLIP's own preprocessing."""
    image = open_clip.transform.image_transform(16, is_train=False, mean=model.mean, std=model.std)(
        picture(dataset, number)
    )
    features = model.module.encode_image(image[None], normalize=True)[0]
    text = captions(dataset, number)[caption]
    return [
        model.module.logit_scale.exp() * features,
        model.module.encode_text(model.tokenize([text]), normalize=True)[0],
    ]


def test_every_row_finds_what_the_stage_that_brought_it_computed(
    shelf: Shelf, tmp_path: Path
) -> None:
    chunks = [
        chunk(("cats", 2), ("birds", 0), ("cats", 0), ("birds", 2), ("birds", 3)),
        chunk(("cats", 4), ("cats", 1), ("birds", 1), ("birds", 4)),
    ]
    models = [model_of(0, init_logit_bias=-7.5), model_of(1)]
    # Of the first chunk a later buffer may hold three samples, of the second all.
    kept = [chunks[0][[0, 2, 3]], pl.concat(chunks)]
    paths = [tmp_path / f"{number}.safetensors" for number in (0, 1)]
    for number, path in enumerate(paths):
        encoder = Encoder(model=models[number], batch_size=3, precision="fp32", device="cpu")
        write_replay_features(encoder, chunks[number], kept[number], path, shelf)
    stored = [load_file(path) for path in paths]
    assert stored[0]["rows"].tolist() == [0, 2, 3]
    assert (len(stored[1]["images"]), len(stored[1]["texts"])) == (4, 6)  # of 8 captions
    buffer = pl.concat([chunks[1][[3, 0]], chunks[0][[3, 0]], chunks[1][[1]]])
    of_rows = [(1, "birds", 4), (1, "cats", 4), (0, "birds", 2), (0, "cats", 2), (1, "cats", 1)]
    features = read_replay_features(paths, chunks, buffer)
    drawn = [(row, c) for row, (_, d, n) in enumerate(of_rows) for c in range(len(captions(d, n)))]
    images, texts, biases = features(torch.tensor(drawn))
    assert biases.tolist() == [(-7.5, 0.0)[of_rows[row][0]] for row, _ in drawn]
    assert images.dtype == texts.dtype == torch.float32
    for (row, caption), *found in zip(drawn, images, texts, strict=True):
        number, dataset, key = of_rows[row]
        for one, other in zip(found, expected(models[number], dataset, key, caption), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_an_image_that_cannot_be_decoded_hinders_nothing(shelf: Shelf, tmp_path: Path) -> None:
    for name, samples in (("broken", [("birds", 3), ("birds", 1)]), ("none", [])):
        path = tmp_path / f"{name}.safetensors"
        here = chunk(*samples)
        encoder = Encoder(model=model_of(0), batch_size=64, precision="fp32", device="cpu")
        write_replay_features(encoder, here, here, path, shelf)
        stored = load_file(path)
        assert stored["rows"].tolist() == list(range(len(samples)))
        assert bool(stored["images"].isfinite().all())


def test_stages_leave_what_a_later_buffer_may_hold_and_later_ones_depend_on_it(
    finished_project: Any,
) -> None:
    project = finished_project
    method = {"preserve": {"name": "derpp"}}
    buffer = {"capacity": 20, "selection": "reservoir"}
    project.write("derpp", method=method, buffer=buffer)
    project.write("er", method={"preserve": {"name": "er"}}, buffer=buffer)
    trained = {
        name: [project.graph(name).nodes[f"{name}/trained_{stage:03d}"] for stage in (1, 2, 3)]
        for name in ("derpp", "er")
    }
    for stage in (1, 2, 3):
        own = {key.replace("er/", "derpp/") for key in trained["er"][stage - 1].inputs}
        earlier = {f"derpp/trained_{s:03d}" for s in range(1, stage)}
        assert set(trained["derpp"][stage - 1].inputs) == own | earlier
        if stage == 3:
            assert "er/trained_001" not in trained["er"][2].inputs
    run_experiment("derpp", [])

    def artifact(key: str) -> Any:
        return project.home.store.open(*project.home.heads.read(key).artifacts["only"])

    chunks = [
        pl.read_parquet(artifact(f"streams/toy/chunk_{stage:03d}").path("manifest.parquet"))
        for stage in (1, 2, 3)
    ]
    for stage in (1, 2, 3):
        stored = load_file(artifact(f"derpp/trained_{stage:03d}").path("remembered.safetensors"))
        selectable = select(chunks[:stage], 20, "reservoir", 0)
        mine = chunks[stage - 1].with_row_index("row").join(
            selectable, on=["dataset", "key"], how="semi", maintain_order="left"
        )  # fmt: skip
        assert stored["rows"].tolist() == mine["row"].to_list()
        if stage == 3:
            assert 0 < len(mine) < len(chunks[2])
        recipe = artifact(f"derpp/trained_{stage:03d}").manifest["recipe"]
        of_stages = [artifact(f"derpp/trained_{s:03d}").digest for s in range(1, stage)]
        assert recipe["inputs"].get("remembered", []) == of_stages
    steps = artifact("derpp/trained_003").path("training_steps.parquet")
    assert (pl.read_parquet(steps)["preservation_loss"] > 0).all()

    project.write("derpp", method={"preserve": {"name": "derpp", "alpha": 0.2}}, buffer=buffer)
    changed = {entry.asset for entry in resolve_request("derpp", []).plan() if entry.compute}
    following = {f"derpp/{kind}_{s:03d}" for kind in ("trained", "evaluation") for s in (1, 2, 3)}
    assert changed == following | {"derpp/scores", "leaderboard"}


@pytest.mark.parametrize("name", ["er", "der", "derpp"])
def test_replay_without_a_buffer_is_refused(project: Any, name: str) -> None:
    project.write(
        "unfed",
        method={"preserve": {"name": name}},
        mixture={"update": 1, "buffer": 0, "pretraining": 0},
    )
    with pytest.raises(Exception, match=rf"{name} needs .* buffer pool .* is 0"):
        project.load("unfed")

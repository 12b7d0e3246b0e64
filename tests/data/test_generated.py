"""Generated sets: identified by how they are made, rendered alike in every process."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.data.samples import SCAN
from fomo_dagster.data.sources import generated
from fomo_dagster.data.sources.generated import GeneratedImages, GeneratedSource
from fomo_dagster.data.suite.generator import GeneratedSample
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.store.digests import digest_of


@dataclass
class Greys:
    """Squares of one grey each, a sample a level."""

    levels: int
    seed: int
    version: int = 3
    keys: tuple[str, ...] = ()
    rendered: list[str] = field(default_factory=list)

    def samples(self, split: str) -> list[GeneratedSample]:
        keys = self.keys or [f"{split}/{level}" for level in range(self.levels)]
        return [GeneratedSample(key, "dark", (f"level {key}", "grey")) for key in keys]

    def render(self, split: str, key: str) -> Image.Image:
        self.rendered.append(key)
        return Image.new("RGB", (4, 4), (int(key.split("/")[1]), self.seed, len(split)))


def create(name: str, parameters: Mapping[str, Any], seed: int) -> Greys:
    return Greys(seed=seed, **parameters)


def digests(**changes: Any) -> list[str]:
    settings = {"generator": "greys", "parameters": {"levels": 2}, "seed": 1, **changes}
    return GeneratedImages(**settings, create=create).scan()["digest"].to_list()


def test_a_scan_lists_the_samples_and_renders_none() -> None:
    source = GeneratedImages("greys", {"levels": 2}, 1, create)
    frame = source.scan()
    assert dict(frame.schema) == SCAN
    assert frame.drop("digest", "reference").rows() == [
        (split, f"{split}/{level}", "dark", [f"level {split}/{level}", "grey"])
        for split in ("test", "train")
        for level in range(2)
    ]
    assert source.generator.rendered == []  # type: ignore[attr-defined]
    recipe = {"generator": "greys", "version": 3, "parameters": {"levels": 2}, "seed": 1}
    assert frame["digest"][0] == digest_of({**recipe, "split": "test", "key": "test/0"})


def test_a_digest_changes_with_everything_that_makes_the_image() -> None:
    same, other = {"levels": 2}, {"levels": 2, "version": 4}
    assert digests(parameters=same) == digests()
    for changed in (
        digests(generator="grays"), digests(seed=2), digests(parameters=other)
    ):  # fmt: skip
        assert set(changed).isdisjoint(digests())
    assert len(set(digests())) == 4


def test_a_scan_is_kept_until_the_generator_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(**changes: Any) -> list[str]:
        monkeypatch.setattr(generated, "_scanned", {})  # as in another process
        parameters = {"levels": 2, **changes}
        return GeneratedImages("greys", parameters, 1, create, tmp_path).scan()["digest"].to_list()

    first = scan()
    (kept,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(Greys, "samples", None)
        assert scan() == first
    assert set(scan(version=4)).isdisjoint(first)
    kept.write_bytes(b"cut short")
    assert scan() == first
    with monkeypatch.context() as patch:
        patch.setattr(Greys, "samples", None)
        assert scan() == first  # what was damaged was written again


def test_an_image_is_stored_without_loss_and_alike_by_a_pickled_source() -> None:
    source = GeneratedImages("greys", {"levels": 9}, 5, create)
    references = source.scan()["reference"].to_list()
    sent = pickle.loads(pickle.dumps(source))
    assert "generator" not in vars(sent)
    for reference in references:
        data = source.read(reference)
        split, _, key = reference.split("/")
        with Image.open(io.BytesIO(data)) as image:
            assert image.format == "PNG"
            assert (np.asarray(image) == [int(key), 5, len(split)]).all()
        assert sent.read(reference) == data


def test_two_samples_with_one_key_are_refused() -> None:
    source = GeneratedImages("greys", {"levels": 1, "keys": ("a/1", "a/1")}, 0, create)
    with pytest.raises(DataError, match="'greys' gives the key 'a/1' to two samples"):
        source.scan()


def test_a_declared_generator_is_opened_by_name(tmp_path: Any) -> None:
    declared = GeneratedSource(generator="nothing_like_it")
    source = Dataset(source=declared).open("set", tmp_path, tmp_path)
    with pytest.raises(InputError, match="nothing_like_it"):
        source.scan()

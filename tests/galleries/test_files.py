"""Embeddings are written and read a part at a time, and that leaves no trace in the file."""

import numpy as np
import polars as pl
import pytest

from fomo_dagster.errors import StoreError
from fomo_dagster.galleries import files
from fomo_dagster.galleries.embedding import Embedded, embed
from fomo_dagster.galleries.files import EMBEDDINGS, GROUPS, EmbeddingsReader, EmbeddingsWriter
from fomo_dagster.galleries.rows import COLUMNS
from fomo_dagster.store.recipes import Recipe

SIZE = 6


def rows(numbers):
    return pl.DataFrame(
        [
            {
                "split": "train", "key": f"{number:05d}", "concept": f"c{number % 3}",
                "digest": f"{number:032x}", "text": None if number % 2 else f"text {number}",
            }
            for number in numbers
        ],
        schema=COLUMNS,
    )  # fmt: skip


def embeddings(part):
    """What a model gives, which depends on who is encoded together, as rounding does."""
    numbers = np.array([int(digest, 16) for digest in part["digest"]])
    found = np.stack([np.random.default_rng(number).normal(size=SIZE) for number in numbers])
    found = found + numbers.sum() * 1e-7
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def small(monkeypatch):
    """Row groups and groups of few rows."""
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 16)
    monkeypatch.setattr("fomo_dagster.galleries.groups.MEAN_ROWS", 8)


def written(path, whole, vectors, step):
    with EmbeddingsWriter(path) as writer:
        for start in range(0, whole.height, step):
            writer.add(whole.slice(start, step), vectors[start : start + step])
    return path.read_bytes()


def test_a_file_is_the_same_however_its_rows_come(small, tmp_path):
    whole = rows(range(50))
    vectors = embeddings(whole)
    first = written(tmp_path / "first", whole, vectors, 50)
    assert {written(tmp_path / f"{n}", whole, vectors, n) for n in (1, 7, 16, 17)} == {first}
    read = pl.read_parquet(tmp_path / "first")
    assert read.drop("embedding").equals(whole)
    assert (read["embedding"].to_numpy() == vectors).all()


def test_embeddings_are_read_by_place_across_row_groups(small, tmp_path):
    whole = rows(range(50))
    vectors = embeddings(whole)
    written(tmp_path / "file", whole, vectors, 50)
    reader = EmbeddingsReader(tmp_path / "file")
    assert (reader.rows, reader.dimensions) == (50, SIZE)
    for start, count in ((0, 50), (15, 2), (16, 16), (49, 1), (3, 40)):
        assert (reader.read(start, count) == vectors[start : start + count]).all()
    for places in ([], [49, 0, 17, 16, 15, 17]):
        found = reader.columns(places)
        assert found.equals(whole[places] if places else whole.clear())
    with pytest.raises(StoreError, match="has 50 rows, and 2 from 49 on were expected"):
        reader.read(49, 2)


def test_a_gallery_of_nothing_is_a_file_without_rows(tmp_path):
    with EmbeddingsWriter(tmp_path / "file"):
        pass
    reader = EmbeddingsReader(tmp_path / "file")
    assert (reader.rows, reader.dimensions) == (0, 0)


class Made:
    """Galleries in a store, one after the other."""

    def __init__(self, home):
        self.home = home
        self.encoded = []
        self.count = 0

    def encode(self, groups):
        for part in groups:
            self.encoded += part["key"].to_list()
            yield embeddings(part)

    def embed(self, numbers, *before):
        """The gallery of some numbers, and what was said of it."""
        self.encoded.clear()
        self.count += 1
        said = []

        def make(folder):
            told = lambda done, total: said.append((done, total))  # noqa: E731
            said.append(embed(rows(numbers), folder, self.encode, before, told))

        recipe = Recipe("gallery", 1, {"number": self.count})
        return self.home.store.get_or_make(recipe, make), said


@pytest.fixture
def made(small, tmp_path):
    from fomo_dagster.home import Home

    return Made(Home(tmp_path / "home"))


def content(artifact):
    return [artifact.path(name).read_bytes() for name in (EMBEDDINGS, GROUPS)]


def test_what_is_copied_is_what_would_have_been_encoded(made):
    first, said = made.embed(range(0, 200, 2))
    assert said[-1] == Embedded(encoded=100, copied=0)
    assert said[-2] == (100, 100)
    more = sorted({*range(0, 200, 2), 41})
    second, said = made.embed(more, first)
    encoded = made.encoded.copy()
    assert "00041" in encoded
    assert said[-1] == Embedded(encoded=len(encoded), copied=101 - len(encoded))
    assert len(encoded) < 40
    anew, said = made.embed(more)
    assert said[-1] == Embedded(encoded=101, copied=0)
    assert content(second) == content(anew)


def test_nothing_is_encoded_where_all_of_it_was_there(made):
    first, _ = made.embed(range(100))
    part, said = made.embed(range(100), first)
    assert made.encoded == []
    assert said[-1] == Embedded(encoded=0, copied=100)
    assert content(part) == content(first)


def test_groups_are_copied_from_several_galleries(made):
    first, _ = made.embed(range(100))
    second, _ = made.embed(range(100, 200))
    both, said = made.embed(range(200), first, second)
    assert said[-1].copied > 150
    anew, _ = made.embed(range(200))
    assert content(both) == content(anew)

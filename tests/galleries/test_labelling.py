"""What to label first, against plain computations, and the command over a gallery."""

import csv
import io
import json
import math

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.data.representatives import k_centre
from fomo_dagster.errors import InputError
from fomo_dagster.galleries import labelling
from fomo_dagster.galleries.files import EMBEDDINGS, EmbeddingsReader, EmbeddingsWriter
from fomo_dagster.galleries.labelling import to_label

CLASSES, SCALE = ("kite", "heron", "swan"), 9.0


def unit(count, seed, size=6):
    numbers = np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)
    return numbers / np.linalg.norm(numbers, axis=1, keepdims=True)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """40 rows in row groups of 16, every third of the concept `new`; two are the same picture."""
    monkeypatch.setattr(labelling, "ROWS_AT_ONCE", 16)
    features = unit(40, seed=0)
    features[7] = features[3]
    rows = pl.DataFrame(
        {
            "split": ["train"] * 40,
            "key": [f"{number:03d}.png" for number in range(40)],
            "concept": ["new" if number % 3 == 0 else "old" for number in range(40)],
            "digest": [f"{number:032x}" for number in range(40)],
            "text": [None] * 40,
        },
        schema_overrides={"text": pl.String},
    )
    with EmbeddingsWriter(tmp_path / EMBEDDINGS) as writer:
        writer.add(rows, features)
    return EmbeddingsReader(tmp_path / EMBEDDINGS), features


def guessed_by_hand(features, of_classes):
    """(margin, suggested, probability, second) of each row, one number after the other."""
    found = []
    for one in features.astype(np.float64):
        logits = [SCALE * math.fsum(one * text) for text in of_classes.astype(np.float64)]
        exponents = [math.exp(logit - max(logits)) for logit in logits]
        shares = [exponent / math.fsum(exponents) for exponent in exponents]
        first, second, *_ = sorted(range(len(shares)), key=lambda c: -shares[c])
        found.append(
            (shares[first] - shares[second], CLASSES[first], shares[first], CLASSES[second])
        )
    return found


@pytest.mark.parametrize("concept", [None, "new"])
def test_the_smallest_margins_come_first(reader, concept):
    embeddings, features = reader
    texts = unit(3, seed=1)
    rows = to_label(
        embeddings,
        "uncertainty",
        5,
        concept=concept,
        classes=CLASSES,
        of_classes=texts,
        scale=SCALE,
    )
    expected = guessed_by_hand(features, texts)
    there = [n for n in range(40) if concept is None or n % 3 == 0]
    order = sorted(there, key=lambda number: (expected[number][0], number))[:5]
    assert rows["key"].to_list() == [f"{number:03d}.png" for number in order]
    assert rows["rank"].to_list() == [1, 2, 3, 4, 5]
    for row, number in zip(rows.to_dicts(), order, strict=True):
        margin, suggested, probability, second = expected[number]
        assert (row["suggested"], row["second"]) == (suggested, second)
        assert row["margin"] == pytest.approx(margin, abs=1e-9)
        assert row["probability"] == pytest.approx(probability, abs=1e-9)


def test_coverage_spreads_over_all_and_needs_no_classes(reader):
    embeddings, features = reader
    rows = to_label(embeddings, "coverage", 6)
    assert rows["key"].to_list() == [f"{number:03d}.png" for number in k_centre(features, 6)]
    assert rows["suggested"].null_count() == 6
    assert to_label(embeddings, "coverage", 100).height == 40


def test_both_spreads_over_the_least_sure(reader, monkeypatch):
    monkeypatch.setattr(labelling, "DOUBTED", 4)
    embeddings, features = reader
    texts = unit(3, seed=1)
    rows = to_label(embeddings, "both", 3, classes=CLASSES, of_classes=texts, scale=SCALE)
    margins = [margin for margin, *_ in guessed_by_hand(features, texts)]
    least = sorted(sorted(range(40), key=lambda number: (margins[number], number))[:12])
    expected = [least[place] for place in k_centre(features[least], 3)]
    assert rows["key"].to_list() == [f"{number:03d}.png" for number in expected]
    assert rows["margin"].to_list() == pytest.approx([margins[number] for number in expected])


def test_what_cannot_be_chosen_from_is_refused_with_the_way_out(reader, monkeypatch):
    embeddings, _ = reader
    with pytest.raises(
        InputError, match=r"both needs at least two classes .* 1 are named.*--class"
    ):
        to_label(embeddings, "both", 3, classes=CLASSES[:1])
    with pytest.raises(InputError, match=r"coverage needs at least two classes .* or none"):
        to_label(embeddings, "coverage", 3, classes=CLASSES[:1])
    with pytest.raises(InputError, match="no rows of the concept 'newer'"):
        to_label(embeddings, "coverage", 3, concept="newer")
    monkeypatch.setattr(labelling, "MOST_SPREAD", 39)
    with pytest.raises(InputError, match=r"40 rows at once, and 39 are .*: take --by both, or"):
        to_label(embeddings, "coverage", 3)


def fomo(*arguments):
    ran = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.mark.slow
def test_the_command_asks_the_release_that_embedded_the_gallery(shop, monkeypatch, tmp_path):
    monkeypatch.setenv("FOMO_PROJECT", str(shop.project.root))
    monkeypatch.setenv("FOMO_HOME", str(shop.home.root))
    shop.put_live(1)
    shop.make()
    classes = tmp_path / "classes.txt"
    classes.write_text("crow\n\nrobin\n")
    rows = json.loads(fomo("label", "pets", "--classes", str(classes), "--most", "4", "--json"))
    assert (rows["gallery"], rows["number"], len(rows["images"])) == ("pets", 1, 4)
    assert {row["suggested"] for row in rows["images"]} <= {"crow", "robin"}
    printed = fomo("label", "pets", "--class", "crow", "--class", "robin", "--most", "4", "--csv")
    assert [row["key"] for row in csv.DictReader(io.StringIO(printed))] == [
        row["key"] for row in rows["images"]
    ]
    assert "What to label first" in fomo("label", "pets", "--by", "coverage")
    with pytest.raises(InputError, match=r"has no \{\} for the class"):
        fomo("label", "pets", "--class", "a", "--class", "b", "--prompt", "a photo")
    with pytest.raises(InputError, match="'crow' is named twice"):
        fomo("label", "pets", "--class", "crow", "--class", "crow")
    with pytest.raises(InputError, match="cannot be read as text"):
        fomo("label", "pets", "--classes", str(tmp_path))
    shop.declare("words", of="texts")
    shop.make("words")
    with pytest.raises(InputError, match="is of texts"):
        fomo("label", "words", "--by", "coverage")

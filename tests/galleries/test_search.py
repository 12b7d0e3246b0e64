"""`fomo search`: with the weights that embedded the gallery, and with no others."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.galleries.declaration import DeclaredGallery
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.cleaning import clean
from tests.galleries.test_galleries import EMBEDDINGS, encoder_of


def fomo(*arguments):
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def found(*arguments):
    return json.loads(fomo("search", *arguments, "--gallery", "pets", "--json"))


@pytest.fixture
def live(shop):
    """A shop whose stage 1 embedded the gallery."""
    shop.put_live(1)
    shop.made = shop.make()
    return shop


def nearest(shop, outcome, stage, text):
    """The keys by a plain product, the nearest first, and the similarities."""
    rows = read_parquet(outcome.artifacts[ONLY].path(EMBEDDINGS))
    query = encoder_of(shop, stage).texts([text])[0].numpy()
    similarities = rows["embedding"].to_numpy() @ query
    order = np.argsort(-similarities, kind="stable")
    return [rows["key"][int(place)] for place in order], similarities[order]


def test_a_text_finds_what_is_nearest_to_it(live):
    keys, similarities = nearest(live, live.made, 1, "a swan")
    told = found("a swan", "--top", "5")
    assert (told["gallery"], told["number"], told["followed"]) == ("pets", 1, 1)
    assert [row["key"] for row in told["found"]] == keys[:5]
    assert [row["rank"] for row in told["found"]] == [1, 2, 3, 4, 5]
    shown = [row["similarity"] for row in told["found"]]
    assert np.abs(np.array(shown) - similarities[:5]).max() < 1e-6
    printed = fomo("search", "a swan", "--gallery", "galleries/pets", "--top", "2")
    assert keys[0] in printed
    assert f"{similarities[0]:.4f}" in printed


def test_an_image_of_the_gallery_finds_itself(live):
    path = live.project.root / "images/birds/train/wren/2.png"
    first, second = found("--image", str(path), "--top", "2")["found"]
    assert (first["key"], first["split"]) == ("wren/2.png", "train")
    assert first["similarity"] == pytest.approx(1, abs=1e-6)
    assert second["similarity"] < first["similarity"]


def test_what_embedded_the_gallery_embeds_the_query_whatever_is_live(live):
    _, similarities = nearest(live, live.made, 1, "a swan")
    live.put_live(2)
    told = found("a swan")
    assert (told["number"], told["followed"]) == (1, 2)
    assert told["found"][0]["similarity"] == pytest.approx(float(similarities[0]), abs=1e-6)
    result = CliRunner().invoke(app, ["search", "a swan", "--gallery", "pets"])
    assert "embedded by release 1 of shop (toy, stage 1)" in result.stderr
    assert (
        "release 2 is live now: `fomo run galleries/pets` embeds the gallery by it" in result.stderr
    )


def test_a_gallery_of_an_earlier_release_is_searched_by_its_number(live):
    live.put_live(2)
    second = live.make()
    assert (
        found("a swan", "--release", "2")["found"][0]["key"]
        == nearest(live, second, 2, "a swan")[0][0]
    )
    told = found("a swan", "--release", "1")
    expected, similarities = nearest(live, live.made, 1, "a swan")
    assert (told["number"], told["found"][0]["key"]) == (1, expected[0])
    assert told["found"][0]["similarity"] == pytest.approx(float(similarities[0]), abs=1e-6)


def test_what_was_cleaned_or_never_made_is_refused_with_the_way_out(live):
    for stage in (2, 3):
        live.put_live(stage)
    live.make()
    with pytest.raises(
        InputError, match=r"release 2 \(toy, stage 2\) of shop embedded it was never"
    ):
        found("a swan", "--release", "2")
    live.put_live(0)
    live.make()
    clean(live.home.root, live.home.store)
    with pytest.raises(InputError, match=r"was cleaned on .*`fomo rollback shop --to 1` and `fomo"):
        found("a swan", "--release", "1")
    with pytest.raises(InputError, match="shop has no release 9: there are 1 to 4"):
        found("a swan", "--release", "9")


def test_weights_that_are_gone_are_named(live):
    live.home.store.retire(*live.candidate(1).weights)
    with pytest.raises(InputError, match="takes the weights of release 1 of shop"):
        found("a swan")


def test_texts_can_be_searched_by_an_image(shop):
    shop.declare(of="texts")
    shop.put_live(1)
    shop.make()
    path = shop.project.root / "images/birds/train/wren/2.png"
    texts = [row["text"] for row in found("--image", str(path))["found"]]
    assert sorted(texts) == [f"a photo of a {c}" for c in ("crow", "robin", "swan", "wren")]


def test_what_is_found_is_drawn(live, tmp_path):
    fomo("search", "a swan", "--gallery", "pets", "--to", str(tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 500


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gallery", "pets"], "give either a text to look for, or --image"),
        (["a swan", "--gallery", "pets", "--image", "x.png"], "give either a text"),
        (["a swan"], "--gallery is missing"),
        ([" ", "--gallery", "pets"], "the text to look for is empty"),
        (
            ["a swan", "--gallery", "pet"],
            r"the gallery 'pet' was never made .*: did you mean 'pets'",
        ),
        (["--image", "nowhere.png", "--gallery", "pets"], "there is no file"),
        (["a swan", "--gallery", "pets", "--to", "sheet.jpg"], "--to is 'sheet.jpg'.*name a .png"),
    ],
)
def test_what_cannot_be_searched_is_said(shop, arguments, said):
    shop.put_live(1)
    shop.make()
    with pytest.raises(InputError, match=said):
        CliRunner().invoke(app, ["search", *arguments], catch_exceptions=False)


def test_a_gallerys_index_is_no_gallery(live):
    live.declare(index={"type": "hnsw"})
    materialise("galleries/pets/index", live.context())
    with pytest.raises(InputError, match=r"'pets/index' was never made .*did you mean 'pets'"):
        CliRunner().invoke(
            app, ["search", "a swan", "--gallery", "pets/index"], catch_exceptions=False
        )


def test_an_empty_gallery_says_how_it_is_filled(shop):
    shop.make()
    with pytest.raises(InputError, match="nothing was live as shop when galleries/pets was"):
        found("a swan")


def test_what_is_no_image_is_refused(live, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png cannot be decoded"):
        found("--image", str(tmp_path / "text.png"))


def test_a_run_of_a_gallery_makes_it_and_says_what_it_is(shop):
    shop.put_live(1)
    assert "galleries/pets" in fomo("plan", "galleries/pets")
    printed = fomo("run", "galleries/pets")
    assert "galleries/pets is up to date: 24 images, embedded by release 1 of shop" in printed
    assert "galleries/pets: 1 asset to compute" in printed
    again = fomo("run", "galleries/pets")
    assert "to compute" not in again
    with pytest.raises(InputError, match="galleries/pets is a gallery, which has no scores"):
        CliRunner().invoke(app, ["results", "galleries/pets"], catch_exceptions=False)
    keys = json.loads(fomo("schema", "--galleries"))["properties"].keys()
    assert keys == set(DeclaredGallery.model_fields)

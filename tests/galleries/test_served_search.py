"""Galleries over HTTP: each is searched by the release that embedded it."""

import io
import time

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from fomo_dagster.errors import StoreError
from fomo_dagster.galleries import groups
from fomo_dagster.galleries.finding import embedded_gallery
from fomo_dagster.graph.run.gallery_search import GallerySearch
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.work import sample_images
from fomo_dagster.releases.promoting import give_alias
from fomo_dagster.releases.records import ReleaseLog
from fomo_dagster.serving.app import create_app
from fomo_dagster.serving.counters import Counters
from fomo_dagster.serving.limits import Limits
from fomo_dagster.serving.loaded import Batching
from fomo_dagster.serving.loading import Loader
from fomo_dagster.serving.releases import ServedReleases
from tests.serving.conftest import in_base64

pytestmark = pytest.mark.slow


@pytest.fixture
def client(shop, monkeypatch):
    """A server whose gallery release 1 embedded, while release 2 is live. It looks for another when
    it is told to."""
    monkeypatch.setattr("fomo_dagster.serving.releases.SECONDS_BETWEEN_LOOKS", 1e6)
    shop.put_live(1)
    shop.make()
    shop.put_live(2)
    counters = Counters()
    loader = Loader(
        home=shop.home, name="shop", engine="torch", batching=Batching(4, 0.001),
        on_batch=counters.on_batch,
    )  # fmt: skip
    releases = ServedReleases(loader, counters, None)
    app = create_app(loader, releases, counters, limits=Limits(), hosts=None)
    with TestClient(app, base_url="http://localhost") as opened:
        opened.releases = releases
        yield opened


def test_a_query_is_embedded_by_what_embedded_the_gallery(shop, client):
    answer = client.post("/v1/search", json={"gallery": "pets", "text": "a robin", "top": 3})
    assert (answer.status_code, answer.headers["X-Release"]) == (200, "1")
    expected = GallerySearch(embedded_gallery(shop.home, "pets")).by_text("a robin", 3)
    found = answer.json()["found"]
    assert [one["key"] for one in found] == expected["key"].to_list()
    nearest = [one["similarity"] for one in found]
    assert nearest == pytest.approx(expected["similarity"].to_list(), abs=1e-5)
    assert answer.json()["exact"]
    shop.make()  # by release 2
    asked = {"gallery": "pets", "text": "a robin", "top": 1}
    assert client.post("/v1/search", json=asked).headers["X-Release"] == "2"
    assert client.post("/v1/search", json={**asked, "release": 1}).headers["X-Release"] == "1"


def test_a_gallery_that_is_being_refreshed_is_searched_by_both(shop, client, monkeypatch):
    monkeypatch.setattr(groups, "MEAN_ROWS", 4)
    shop.declare(refresh={"rows": 8})
    shop.make()
    found = embedded_gallery(shop.home, "pets")
    assert [one.number for one in (found, *found.rest)] == [2, 1]
    asked = {"gallery": "pets", "text": "a robin", "top": 24}
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, answer.headers["X-Release"]) == (200, "2")
    assert answer.json()["rest_by"] == [1]
    expected = GallerySearch.of(shop.home, found).by_text("a robin", 24)
    rows = answer.json()["found"]
    assert [row["key"] for row in rows] == expected["key"].to_list()
    nearest = [row["similarity"] for row in rows]
    assert nearest == pytest.approx(expected["similarity"].to_list(), abs=1e-5)


def test_a_search_reads_neither_the_log_nor_weights_that_are_in_memory(shop, client, monkeypatch):
    monkeypatch.setattr(groups, "MEAN_ROWS", 4)
    shop.declare(refresh={"rows": 8})
    shop.make()
    asked = {"gallery": "pets", "text": "a robin", "top": 24}
    before = client.post("/v1/search", json=asked)
    assert (before.status_code, before.json()["rest_by"]) == (200, [1])
    for stage in (1, 2):
        shop.home.store.retire(*shop.candidate(stage).weights)
    tried = []

    def read(*of):
        tried.append(of)
        raise StoreError("the remote does not answer")

    monkeypatch.setattr(ReleaseLog, "read", read)
    monkeypatch.setattr(ReleaseLog, "read_after", read)
    after = client.post("/v1/search", json=asked)
    assert (after.status_code, after.json()) == (200, before.json())
    image = {"split": "test", "key": "crow/0.png"}
    assert client.get("/v1/galleries/pets/thumbnail", params=image).status_code == 200
    assert not tried


def test_a_gallery_by_a_release_that_is_not_known_yet_is_searched_by_the_one_before(shop, client):
    shop.put_live(3)
    shop.make()
    asked = {"gallery": "pets", "text": "a robin"}
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, answer.headers["X-Release"]) == (200, "1")
    client.portal.call(client.releases.look)
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, answer.headers["X-Release"]) == (200, "3")


def test_a_gallery_that_nothing_known_embedded_is_to_be_asked_again(shop, client):
    before = embedded_gallery(shop.home, "pets").artifact
    shop.put_live(3)
    shop.make()
    shop.home.store.retire(before.kind, before.digest)
    answer = client.post("/v1/search", json={"gallery": "pets", "text": "a robin"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "'pets' is embedded by a release that came just now" in answer.json()["error"]


@pytest.fixture
def missing(monkeypatch):
    """Numbers of releases whose files are not there."""
    numbers, load, is_there = set(), Loader.load, Loader.is_there

    def loaded(loader, number, history):
        return None if number in numbers else load(loader, number, history)

    def looked(loader, number, history):
        return number not in numbers and is_there(loader, number, history)

    monkeypatch.setattr(Loader, "load", loaded)
    monkeypatch.setattr(Loader, "is_there", looked)
    return numbers


def test_a_search_goes_on_by_what_answers_until_the_new_release_has_its_files(
    shop, client, missing
):
    shop.make()  # by release 2, which answers
    before = GallerySearch(embedded_gallery(shop.home, "pets")).by_text("a robin", 3)
    shop.put_live(3)
    shop.make()
    missing.add(3)
    client.portal.call(client.releases.look)
    asked = {"gallery": "pets", "text": "a robin", "top": 3}
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, answer.headers["X-Release"]) == (200, "2")
    found = answer.json()["found"]
    assert [one["key"] for one in found] == before["key"].to_list()
    nearest = [one["similarity"] for one in found]
    assert nearest == pytest.approx(before["similarity"].to_list(), abs=1e-5)
    missing.clear()  # there, and not loaded yet: nobody waits for that
    assert client.post("/v1/search", json=asked).headers["X-Release"] == "2"
    client.portal.call(client.releases.look)
    assert client.post("/v1/search", json=asked).headers["X-Release"] == "3"


def test_the_newest_embedding_that_can_be_searched_answers_if_it_has_all_rows(
    shop, client, missing, monkeypatch
):
    monkeypatch.setattr(groups, "MEAN_ROWS", 4)
    shop.declare(refresh={"rows": 8})
    shop.make()  # a piece, by release 2; the rest by release 1
    shop.put_live(3)
    shop.make()
    missing.add(3)
    client.portal.call(client.releases.look)
    asked = {"gallery": "pets", "text": "a robin", "top": 24}
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, answer.headers["X-Release"]) == (200, "2")
    assert (answer.json()["rest_by"], len(answer.json()["found"])) == ([1], 24)
    before = shop.home.heads.read("galleries/pets").facts["earlier"]
    shop.home.store.retire("gallery", before[-1][1])  # that of release 2
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, answer.headers["X-Release"]) == (200, "1")
    shop.home.store.retire("gallery", before[0][1])
    answer = client.post("/v1/search", json=asked)
    assert (answer.status_code, "Retry-After" in answer.headers) == (404, False)
    assert "is no longer in the store" in answer.json()["error"]


def test_a_search_that_only_what_is_live_can_answer_waits_for_its_files(shop, client, missing):
    before = embedded_gallery(shop.home, "pets").artifact
    shop.put_live(3)
    shop.make()
    shop.home.store.retire(before.kind, before.digest)
    missing.add(3)
    client.portal.call(client.releases.look)
    answer = client.post("/v1/search", json={"gallery": "pets", "text": "a robin"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "the files of release 3 of shop (toy, stage 3) are not there" in answer.json()["error"]


def test_an_alias_that_moved_is_answered_by_the_release_that_it_names(shop, client, missing):
    give_alias(shop.log, "stable", 1)
    shop.declare("stays", follows="stable")
    shop.make("stays")
    give_alias(shop.log, "stable", 2, move=True)
    shop.make("stays")
    shop.put_live(3)
    client.portal.call(client.releases.look)
    asked = {"gallery": "stays", "text": "a robin"}
    assert client.post("/v1/search", json=asked).headers["X-Release"] == "2"
    give_alias(shop.log, "stable", 1, move=True)
    shop.make("stays")  # while release 2 is in memory, and release 1 is not
    assert client.post("/v1/search", json=asked).headers["X-Release"] == "1"
    give_alias(shop.log, "stable", 2, move=True)
    shop.make("stays")
    missing.add(2)
    assert client.post("/v1/search", json=asked).headers["X-Release"] == "1"


def test_what_is_asked_wrongly_is_answered_as_all_errors(client):
    answer = client.get("/v1/galleries/pets/thumbnail")
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert "split: Field required" in answer.json()["error"]
    asked = {"gallery": "pets", "text": "a robin", "release": True}
    answer = client.post("/v1/search", json=asked)
    assert answer.status_code == 400
    assert "it is the number of a release" in answer.json()["error"]


def test_an_image_finds_itself(shop, client):
    path = shop.project.root / "images/birds/test/crow/0.png"
    asked = {"gallery": "pets", "image": in_base64(path.read_bytes()), "top": 1}
    (found,) = client.post("/v1/search", json=asked).json()["found"]
    assert found["similarity"] == pytest.approx(1, abs=1e-5)
    files = {"image": ("0.png", path.read_bytes())}
    form = client.post("/v1/search", data={"gallery": "pets", "top": "1"}, files=files)
    assert form.json()["found"] == [found]


def test_the_galleries_and_their_images_are_there_for_the_page(shop, client):
    listed = client.get("/v1/galleries").json()["galleries"]
    assert listed == [{"gallery": "pets", "release": 1, "of": "images", "rows": listed[0]["rows"]}]
    asked = {"split": "test", "key": "crow/0.png"}
    answer = client.get("/v1/galleries/pets/thumbnail", params=asked)
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (18, 18)
    missing = client.get("/v1/galleries/pets/thumbnail", params={**asked, "key": "../secret"})
    assert (missing.status_code, "no image '../secret'" in missing.json()["error"]) == (404, True)
    assert "img-src 'self'" in client.get("/").headers["Content-Security-Policy"]


def test_a_thumbnail_is_of_the_dataset_as_it_is_now(shop, client):
    asked = {"split": "test", "key": "crow/new9.png"}

    def status():
        return client.get("/v1/galleries/pets/thumbnail", params=asked).status_code

    assert status() == 404
    shop.project.add_image("birds", "test", "crow", 9)
    materialise("shards/birds", shop.context())
    assert status() == 200


def test_thumbnails_come_back_once_their_shards_can_be_read_again(shop, client, monkeypatch):
    asked = {"split": "test", "key": "crow/0.png"}

    def status():
        return client.get("/v1/galleries/pets/thumbnail", params=asked).status_code

    (address,) = shop.home.heads.read("shards/birds").artifacts.values()
    folder = shop.home.store.folder(*address)
    folder.rename(folder.with_suffix(".away"))
    looks = []
    opened = sample_images.index_of
    monkeypatch.setattr(sample_images, "index_of", lambda *of: looks.append(of) or opened(*of))
    assert [status() for _ in range(3)] == [404] * 3
    assert len(looks) == 1
    folder.with_suffix(".away").rename(folder)
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 31)
    assert [status() for _ in range(3)] == [200] * 3
    assert len(looks) == 2


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"gallery": "pots", "text": "a"}, 404, "the gallery 'pots' was never made"),
        ({"gallery": "pets/index", "text": "a"}, 404, "the gallery 'pets/index' was never made"),
        ({"gallery": "p" * 300, "text": "a"}, 404, "was never made"),
        ({"gallery": "others", "text": "a"}, 404, "is embedded by releases of another"),
        ({"gallery": "pets", "text": "a", "release": 2}, 404, "was never made"),
        ({"gallery": "pets"}, 400, "either a text or an image"),
        ({"gallery": "pets", "text": "a", "top": 0}, 400, "top"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_the_reason(shop, client, asked, status, said):
    if asked["gallery"] == "pets/index":
        shop.declare(index={"type": "hnsw"})
        materialise("galleries/pets/index", shop.context())
    if asked["gallery"] == "others":
        shop.log = type(shop.log)(shop.home, "another")
        shop.declare("others", release="another")
        shop.put_live(1)
        shop.make("others")
    answer = client.post("/v1/search", json=asked)
    assert answer.status_code == status
    assert said in answer.json()["error"]

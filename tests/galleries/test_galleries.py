"""Galleries follow what is live, embed what is new, and stay where somebody may go back to them."""

import json

import dagster as dg
import numpy as np
import pytest
from typer.testing import CliRunner

from assets.building import build_definitions
from assets.releasing import shown_now
from assets.specs import DATA_VERSION_TAG
from fomo_dagster.cli.main import app
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.data.pixel_rules import NEWEST
from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.evaluation.encoding import Encoder
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.galleries import groups
from fomo_dagster.galleries.files import EMBEDDINGS, GROUPS
from fomo_dagster.graph.build.builder import build_graph, build_project
from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.gallery import GalleryNode
from fomo_dagster.graph.run.plan import plan
from fomo_dagster.graph.run.tasks import as_data, from_data
from fomo_dagster.graph.work.checkpoints import WEIGHTS, load_weights
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.releases.promoting import give_alias
from fomo_dagster.store.cleaning import clean, what_goes
from fomo_dagster.tables.views import query
from resources.run_contexts import RunContexts


def embedded(outcome):
    return read_parquet(outcome.artifacts[ONLY].path(EMBEDDINGS))


def counts(outcome):
    cost = outcome.artifacts[ONLY].cost
    return cost["samples"], cost["copied"]


def encoder_of(shop, stage):
    weights = shop.home.store.open(*shop.candidate(stage).weights)
    model = load_weights(shop.project.load().experiment.backbone, weights.path(WEIGHTS))
    return Encoder.of(model, "fp32", Execution(device="cpu"), NEWEST)


def test_a_gallery_is_the_images_as_what_is_live_embeds_them(shop):
    shop.put_live(1)
    outcome = shop.make()
    rows = embedded(outcome)
    samples = index_of("birds", shop.context()).samples.sort("split", "key")
    assert rows.select("split", "key", "concept", "digest").equals(
        samples.select("split", "key", "concept", "digest")
    )
    expected = encoder_of(shop, 1).images("birds", samples, index_of("birds", shop.context()))
    assert np.abs(rows["embedding"].to_numpy() - expected.numpy()).max() < 1e-6
    assert counts(outcome) == (24, 0)
    node = shop.context().graph.nodes["galleries/pets"]
    shown = node.shown(outcome, shop.context())
    assert shown == {
        "images": 24, "dimensions": 16, "embedded_by": "release 1", "encoded": 24, "copied": 0,
    }  # fmt: skip


def test_texts_are_prompts_and_captions_as_they_are_embedded(shop):
    shop.declare("names", of="texts", split="test")
    shop.put_live(1)
    rows = embedded(shop.make("names"))
    assert rows["text"].to_list() == [
        f"a photo of a {c}" for c in ("crow", "robin", "swan", "wren")
    ]
    expected = encoder_of(shop, 1).texts(rows["text"].to_list())
    assert np.abs(rows["embedding"].to_numpy() - expected.numpy()).max() < 1e-6


def test_where_nothing_is_live_it_is_empty_and_says_so(shop):
    context = shop.context()
    node = context.graph.nodes["galleries/pets"]
    (said,) = node.remarks(node.input_facts(context), context)
    assert "nothing is live as shop yet, so galleries/pets is empty" in said
    outcome = shop.make()
    assert embedded(outcome).is_empty()
    assert node.shown(outcome, context)["embedded_by"] == "nothing"
    shop.put_live(1)
    assert embedded(shop.make()).height == 24
    assert shop.home.heads.read("galleries/pets").facts["earlier"] == []


def test_another_release_embeds_it_anew_and_a_rollback_finds_it(shop, monkeypatch):
    shop.put_live(1)
    first = shop.make()
    shop.put_live(2)
    second = shop.make()
    assert counts(second) == (24, 0)
    assert not embedded(second).equals(embedded(first))
    monkeypatch.setattr(GalleryNode, "make", None)  # nothing more is made
    shop.go_back()
    back = shop.make()
    assert (back.computed, back.head.digest) == ((), first.head.digest)
    assert back.head.facts["number"] == 1
    assert [digest for _, digest in back.head.facts["earlier"]] == [second.head.digest]


def test_a_gallery_that_follows_an_alias_stays_until_that_moves(shop):
    shop.declare(follows="kept")
    shop.put_live(1)
    context = shop.context()
    node = context.graph.nodes["galleries/pets"]
    (said,) = node.remarks(node.input_facts(context), context)
    assert "nothing is kept as shop yet" in said
    assert "`fomo alias shop kept NUMBER`" in said
    give_alias(shop.log, "kept", 1)
    first = shop.make()
    assert first.head.facts["number"] == 1
    shop.put_live(2)
    assert shop.make().head.digest == first.head.digest
    give_alias(shop.log, "kept", 2, move=True)
    assert shop.make().head.facts["number"] == 2


def test_a_gallery_whose_alias_is_removed_is_searched_until_its_next_run_empties_it(shop):
    shop.declare(follows="kept")
    shop.put_live(1)
    give_alias(shop.log, "kept", 1)
    shop.make()

    def fomo(*arguments):
        result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    said = fomo("alias", "shop", "kept", "--remove")
    assert "galleries/pets follows it, and is searched as it is until `fomo run gall" in said
    said = fomo("search", "wren", "--gallery", "pets")
    assert "nothing is kept now: `fomo run galleries/pets` empties the gallery" in said
    assert shop.make().head.facts.get("number") is None
    with pytest.raises(InputError, match=r"so it is empty: .*`fomo alias` names a release"):
        fomo("search", "wren", "--gallery", "pets")


@pytest.fixture
def in_small_groups(monkeypatch):
    monkeypatch.setattr(groups, "MEAN_ROWS", 4)


def test_a_new_image_costs_its_group_alone_and_leaves_no_trace(shop, in_small_groups):
    shop.put_live(1)
    shop.make()
    shop.project.add_image("birds", "train", "crow", 99)
    grown = shop.make()
    encoded, copied = counts(grown)
    assert 0 < encoded < 12
    assert encoded + copied == 25
    files = [grown.artifacts[ONLY].path(name).read_bytes() for name in (EMBEDDINGS, GROUPS)]
    shop.home.heads.remove("galleries/pets")
    shop.home.store.retire(*grown.head.artifacts[ONLY])
    anew = shop.make()
    assert counts(anew) == (25, 0)
    assert files == [anew.artifacts[ONLY].path(name).read_bytes() for name in (EMBEDDINGS, GROUPS)]


def test_a_gallery_grows_by_the_way_of_its_rows_and_other_weights_bring_the_newest(
    shop, monkeypatch, in_small_groups
):
    def ways_of(outcome):
        (recipe,) = outcome.head.recipes.values()
        return recipe["parameters"].get("pixels", 1)

    shop.put_live(1)
    with monkeypatch.context() as before:

        def earlier(node, facts, context):
            return {n: r.earlier or r for n, r in node.recipes(facts).items()}

        before.setattr(Node, "settled", earlier)
        assert ways_of(shop.make()) == 1
    shop.project.add_image("birds", "train", "wren", seed=900)
    grown = shop.make()
    assert grown.computed
    assert ways_of(grown) == 1
    assert counts(grown)[1] > 0
    shop.put_live(2)
    assert ways_of(shop.make()) == 2


def test_groups_come_from_what_the_release_embedded_before_another(shop, in_small_groups):
    shop.put_live(1)
    shop.make()
    shop.put_live(2)
    shop.make()
    shop.project.add_image("birds", "train", "crow", 99)
    shop.go_back()
    encoded, copied = counts(shop.make())
    assert encoded < 12
    assert encoded + copied == 25


def test_another_precision_shares_nothing(shop):
    shop.put_live(1)
    shop.make()
    shop.declare(precision="bf16")
    assert counts(shop.make()) == (24, 0)
    assert shop.home.heads.read("galleries/pets").facts["earlier"] == []


def test_cleaning_keeps_what_it_is_and_what_it_was_before(shop):
    made = []
    for stage in (1, 2, 3):
        shop.put_live(stage)
        made.append(shop.make().artifacts[ONLY])
    first, second, third = ((one.kind, one.digest) for one in made)
    gone = set(what_goes(shop.home.root, shop.home.store).artifacts)
    assert first in gone
    assert not gone & {second, third}
    clean(shop.home.root, shop.home.store)
    shop.go_back()
    assert shop.make().computed == ()


def test_a_plan_says_why_a_gallery_is_embedded(shop):
    def entry():
        context = shop.context()
        return plan(context.graph.of_gallery("galleries/pets"), context)[-1]

    shop.put_live(1)
    assert entry().reasons == ("never computed",)
    shop.make()
    assert entry().current
    shop.put_live(2)
    assert (entry().compute, entry().reasons) == (("only",), ("it follows another release now",))
    assert entry().samples == 24
    shop.make()
    shop.project.add_image("birds", "train", "crow", 99)
    context = shop.context()
    reasons = [one.reasons for one in plan(context.graph.of_gallery("galleries/pets"), context)]
    assert reasons[-1] == ("its dataset has other samples",)


def test_experiments_bring_the_galleries_that_follow_what_they_release(shop):
    def brought():
        return [node.key for node in build_project(shop.project.root).of("toy")]

    assert "galleries/pets" not in brought()
    shop.project.write("toy", release={"name": "shop"})
    shop.declare("digits", dataset="digits")
    assert brought()[-5:] == [
        "releases/shop", "shards/digits", "galleries/digits", "galleries/pets", "leaderboard",
    ]  # fmt: skip


def test_a_gallery_survives_being_sent_to_another_process(shop):
    shop.declare(of="texts", execution={"device": "cpu"})
    graph = build_project(shop.project.root)
    gallery = graph.owners["galleries/pets"]
    again = from_data(json.loads(json.dumps(as_data(gallery))))
    assert again == gallery
    rebuilt = build_graph((), galleries=[again])
    assert rebuilt.nodes["galleries/pets"] == graph.nodes["galleries/pets"]
    assert rebuilt.code_versions["galleries/pets"] == graph.code_versions["galleries/pets"]


def test_dagster_has_a_job_for_it_and_knows_what_is_live(shop):
    shop.project.write("toy", release={"name": "shop"})
    shop.declare("lost", dataset="brids")
    graph = build_project(shop.project.root)
    definitions = build_definitions(graph, RunContexts.of(shop.home), COMMANDS)
    job = definitions.resolve_job_def("galleries_pets")
    key = dg.AssetKey(["galleries", "pets"])
    assert job.asset_layer.selected_asset_keys == {key, dg.AssetKey(["shards", "birds"])}
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    deps = {dep.asset_key.to_user_string() for dep in specs[key].deps}
    assert deps == {"shards/birds", "releases/shop"}
    assert "did you mean 'birds'" in specs[dg.AssetKey(["galleries_lost", "trouble"])].description
    shop.put_live(2)

    def version():
        return shown_now(shop.home, "shop").tags[DATA_VERSION_TAG]

    versions = [version()]
    for change in (lambda: shop.put_live(3), lambda: give_alias(shop.log, "kept", 1)):
        assert version() == versions[-1]
        change()
        versions.append(version())
    assert len(set(versions)) == 3


def test_a_gallery_can_be_queried(shop):
    shop.put_live(1)
    rows = embedded(shop.make())
    sql = """
        SELECT near.key FROM galleries AS near JOIN galleries AS one
            ON one.gallery = 'pets' AND one.key = 'wren/0.png' AND one.split = 'test'
        WHERE near.gallery = 'pets'
        ORDER BY list_inner_product(near.embedding, one.embedding) DESC, near.key LIMIT 3
    """
    vectors = rows["embedding"].to_numpy().astype(np.float64)
    place = rows.with_row_index().filter(key="wren/0.png", split="test")["index"].item()
    order = np.argsort(-(vectors @ vectors[place]), kind="stable")[:3]
    found = query(shop.home.root, sql)["key"].to_list()
    assert found[0] == "wren/0.png"
    assert set(found) == set(rows["key"].gather(order))
    row = query(shop.home.root, "SELECT * EXCLUDE embedding FROM galleries LIMIT 1").row(0, named=1)
    assert (row["gallery"], row["release_name"], row["release"]) == ("pets", "shop", 1)
    assert (row["dataset"], row["asset"]) == ("birds", "galleries/pets")
    shop.put_live(2)
    shop.make()
    numbers = query(shop.home.root, "SELECT DISTINCT release FROM galleries")
    assert numbers.to_series().to_list() == [2]
    assert query(shop.home.root, "SELECT count(*) FROM galleries").item() == 24


def test_embeddings_that_were_altered_are_said_where_they_are_asked_for(shop):
    shop.put_live(1)
    path = shop.make().artifacts[ONLY].path(EMBEDDINGS)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    assert query(shop.home.root, "SELECT count(*) FROM scores").item() > 0
    with pytest.raises(StoreError, match=r"the rows of galleries/pets in .* are damaged"):
        query(shop.home.root, "SELECT count(*) FROM galleries")


def test_a_stage_that_goes_live_embeds_its_galleries_in_the_same_run(shop):
    gates = {"retention": {"no_worse_than": "live", "margin": 100}}
    shop.put_live(1)
    shop.make()
    shop.project.write("toy", release={"name": "shop", "gates": gates, "approval": "automatic"})
    result = CliRunner().invoke(app, ["run", "toy"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert shop.log.read().live == 3
    head = shop.home.heads.read("galleries/pets")
    assert (head.facts["number"], head.facts["weights"]) == (3, shop.candidate(3).checkpoint)
    rows = query(shop.home.root, "SELECT DISTINCT release FROM galleries")
    assert rows.to_series().to_list() == [3]

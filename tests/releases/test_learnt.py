"""What releases learnt, as it is kept and found again by their records."""

from dataclasses import replace

from fomo_dagster.graph.core.context import NodeContext
from fomo_dagster.graph.nodes.chunk_hashes import (
    KIND,
    UNKNOWN,
    LearntDetails,
    hashes_recipe,
    learnt_facts,
)
from fomo_dagster.releases.promoting import promote
from fomo_dagster.store.cleaning import clean
from fomo_dagster.store.recipes import Recipe
from tests.releases.conftest import PASSED, stage


def made(home, recipe):
    """The digest of an artifact with nothing in it."""
    return home.store.get_or_make(recipe, lambda folder: (folder / "file").touch()).digest


def test_hashes_of_what_was_learnt_are_found_without_what_was_left_out_and_stay(log, home):
    chunks = [made(home, Recipe("chunk", 1, {"number": number})) for number in (1, 2, 3, 4)]
    left_out = made(home, Recipe("near_duplicates", 1, {}))
    recipes = [hashes_recipe(chunks[0]), hashes_recipe(chunks[1])]
    recipes += [hashes_recipe(chunks[1], left_out), hashes_recipe(chunks[3])]
    first, _, kept, _ = (made(home, recipe) for recipe in recipes)
    lineage = {
        "streams/s/chunk_001": chunks[0], f"streams/s/chunk_002 ({chunks[1]})": chunks[1],
        "streams/s/chunk_002": chunks[2], "daily/near_duplicates_002": left_out,
    }  # fmt: skip
    released = replace(stage(home, 1), lineage=lineage)
    promote(log, released, [PASSED], None, "manual", first=True)
    clean(home.root, home.store)
    there = {address for address in home.store.places.all() if address[0] in ("chunk", KIND)}
    assert ("chunk", chunks[2]) in there
    assert ("chunk", chunks[3]) not in there  # no release learnt it, so its hashes go as well
    assert (KIND, recipes[3].digest) not in there
    facts = learnt_facts("search", "daily/start_002", NodeContext(home, {}, {}))
    assert facts.of(LearntDetails).by_number == {
        1: [
            ["streams/s/chunk_001", chunks[0], first],
            [f"streams/s/chunk_002 ({chunks[1]})", chunks[1], kept],
            ["streams/s/chunk_002", chunks[2], UNKNOWN],
        ]
    }

"""What weights were made from, from the recipes of what there is."""

from dataclasses import replace

from fomo_dagster.releases.lineage import made_from
from fomo_dagster.releases.records import Candidate
from fomo_dagster.store.heads import Head


def digest(number):
    return f"{number:032x}"


def head(asset, number, inputs, facts=None):
    recipe = {"kind": "thing", "version": 1, "parameters": {}, "inputs": inputs}
    return Head(
        asset=asset, kind="thing", experiment=None, stage=None, digest=digest(number),
        data_version=digest(number), code_version="", recipes={"only": recipe},
        artifacts={"only": ("thing", digest(number))}, facts=facts or {}, status="computed",
        recorded_at="", seconds=None,
    )  # fmt: skip


def test_lineage_goes_down_to_what_no_asset_made(home):
    heads = home.heads
    shards = head("shards/birds", 1, {"source": digest(99)}, {"train": {"wren": digest(50)}})
    chunk = head("streams/s/chunk_001", 2, {"concepts": [["birds", "wren", digest(50), None]]})
    start = head("daily/start_001", 3, {"weights": digest(3)})  # which passes θ₀ on
    theta = head("backbones/toy", 3, {})
    trained = head("daily/trained_001", 4, {"start": digest(3), "update": digest(2)})
    other = head("other/trained_001", 5, {"start": digest(3)})
    for one in (shards, chunk, start, theta, trained, other):
        heads.write(one)
    for kind in ("release", "gallery", "gallery_index"):  # which name weights and made none
        named = head(f"a/{kind}", 3, {}, {"weights": digest(2)})
        heads.write(replace(named, kind=kind))
    lineage = made_from(trained, heads, {}).lineage
    assert lineage == {
        f"content {digest(99)}": digest(99),
        "shards/birds": digest(1),
        "streams/s/chunk_001": digest(2),
        "backbones/toy": digest(3),
        "daily/trained_001": digest(4),
    }
    assert list(lineage)[-1] == "daily/trained_001"


def test_long_chains_are_no_deeper_than_short_ones(home):
    for number in range(1, 1201):
        inputs = {"start": digest(number - 1)} if number > 1 else {}
        home.heads.write(head(f"daily/trained_{number:04d}", number, inputs))
    last = home.heads.read("daily/trained_1200")
    assert len(made_from(last, home.heads, {}).lineage) == 1200


def candidate(number, lineage):
    return Candidate(
        experiment="daily", stage=1, checkpoint=digest(number), weights=("trained", digest(number)),
        backbone={}, evaluations={}, scores={}, lineage=lineage,
    )  # fmt: skip


def test_what_was_released_is_told_by_its_record(home):
    """The chunk that it learnt from, and its own asset, are something else by now."""
    home.heads.write(head("streams/s/chunk_001", 12, {"concepts": [digest(90)]}))
    home.heads.write(head("daily/trained_001", 14, {"update": digest(12)}))
    home.heads.write(head("streams/s/chunk_002", 22, {"concepts": [digest(91)]}))
    inputs = {"start": digest(4), "update": digest(22), "buffer": [digest(12)]}
    last = head("daily/trained_002", 24, inputs)
    home.heads.write(last)
    recorded = {
        "backbones/toy": digest(3), "streams/s/chunk_001": digest(2),
        "daily/trained_001": digest(4),
    }  # fmt: skip
    released = candidate(4, recorded)
    made = made_from(last, home.heads, {released.checkpoint: released})
    assert made.releases == (released,)
    assert made.own == {
        f"content {digest(90)}": digest(90), f"content {digest(91)}": digest(91),
        "streams/s/chunk_001": digest(12), "streams/s/chunk_002": digest(22),
        "daily/trained_002": digest(24),
    }  # fmt: skip
    assert made.lineage == {
        "backbones/toy": digest(3), "daily/trained_001": digest(4),
        f"streams/s/chunk_001 ({digest(2)})": digest(2), **made.own,
    }  # fmt: skip
    assert list(made.lineage)[-1] == "daily/trained_002"

"""Pictures that are nearly the same: their hashes, and the nearest ones against brute force."""

import imagehash
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fomo_dagster.data import near_duplicates as module
from fomo_dagster.data.images import UnreadableImageError
from fomo_dagster.data.near_duplicates import NONE, Found, most_similar, nearest, pairs_of
from fomo_dagster.data.perceptual_hashes import Hashing, hashes_frame, hashes_of, references_of
from fomo_dagster.experiment.near_duplicates import NearDuplicates


def scene(seed, size=96):
    """A picture of large blurred patches, another one for each seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)


def bits(one, other):
    return (one ^ other).bit_count()


def test_hashes_are_those_of_imagehash_and_of_the_mirror_image():
    picture = scene(1)
    own, mirrored = hashes_of(picture)
    assert f"{own:016x}" == str(imagehash.phash(picture))
    assert mirrored == hashes_of(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))[0]
    assert bits(own, mirrored) > 16


def test_most_changed_pictures_are_within_the_default_distance_and_no_other_is(tmp_path):
    most, path, found = NearDuplicates().distance, tmp_path / "changed.jpg", 0
    hashes = [hashes_of(scene(seed))[0] for seed in range(20)]
    for seed, before in enumerate(hashes):
        scene(seed).save(path, quality=50)
        found += bits(before, hashes_of(Image.open(path))[0]) <= most
        found += bits(before, hashes_of(scene(seed, 40))[0]) <= most
        assert all(bits(before, other) > 16 for other in hashes if other != before)
    assert found >= 38  # of 40; docs/near_duplicates.md has the shares of real pictures


class Broken:
    """An index of tars that lie where they are, one of whose images nobody has decoded yet."""

    def picture(self, shard, offset, size):
        if shard == "0:1.tar":
            raise UnreadableImageError("it is cut short")
        return scene(offset)


def test_an_image_that_cannot_be_decoded_has_no_hash_and_stops_nothing():
    places = {"offset": [4, 5], "size": [1, 1], "shard": ["1.tar", "0:1.tar"]}
    references = references_of(pl.DataFrame(places))
    frame = hashes_frame(pl.Series(["a", "b"]), Hashing(Broken()).of(references))
    assert frame.rows() == [("a", *hashes_of(scene(4))), ("b", None, None)]


few_bits = st.integers(0, 2**64 - 1).map(lambda number: number & 0x8001_0000_00F0_0301)


@given(
    st.lists(few_bits, max_size=40), st.lists(few_bits, max_size=40), st.integers(0, 4),
    st.booleans(),
)  # fmt: skip
def test_the_nearest_is_that_of_brute_force(hashes, others, most, before_alone):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", 3)
        patch.setattr(module, "COLUMNS", 7)
        first = len(others) if before_alone else None
        among = [*others, *hashes] if before_alone else others
        places, distances = nearest(
            np.array(hashes, np.uint64), np.array(among, np.uint64), most, first=first
        )
    for number, own in enumerate(hashes):
        seen = among[: len(others) + number] if before_alone else among
        apart = [bits(own, other) for other in seen]
        if not apart or min(apart) > most:
            assert (places[number], distances[number]) == (-1, NONE)
        else:
            assert (places[number], distances[number]) == (apart.index(min(apart)), min(apart))


def samples(dataset, *hashes, mirrored=0xFFFF_0000_FFFF):
    keys = [f"{number}" for number in range(len(hashes))]
    schema = {"dataset": pl.String, "key": pl.String, "hash": pl.UInt64, "mirrored": pl.UInt64}
    rows = [(dataset, key, own, mirrored) for key, own in zip(keys, hashes, strict=True)]
    return pl.DataFrame(rows, schema, orient="row")


FAR = 0xF0F0_F0F0_F0F0_F0F0


def test_each_kind_of_pair_is_told_and_of_two_alike_the_later_one_counts():
    chunk = samples("birds", 0b1, FAR, 0b11, None)
    earlier = samples("birds", 0b11111)
    tests = pl.concat([samples("birds", FAR ^ 0b1, None), samples("old", FAR ^ 0b111, 0, FAR)])
    pairs = pairs_of(chunk, earlier, tests, 3)
    assert pairs["similarity"].null_count() == pairs.height
    assert sorted(pairs.drop("similarity").rows()) == [
        ("earlier", "birds", "2", "birds", "train", "0", 3),
        ("leakage", "birds", "0", "old", "test", "1", 1),
        ("leakage", "birds", "1", "birds", "test", "0", 1),
        ("leakage", "birds", "1", "old", "test", "2", 0),
        ("leakage", "birds", "2", "old", "test", "1", 2),
        ("within", "birds", "2", "birds", "train", "0", 1),
    ]
    found = Found(chunk.height, 1, pairs)
    assert (found.leaking, found.repeated) == (3, 1)
    assert found.sentence("earlier", "within") == (
        "1 of 4 samples is a near duplicate of one that an earlier stage brought or one that the "
        "stage brings before it, such as birds/2 and birds/0 (3 bits apart)"
    )
    assert found.sentence("leakage").endswith("such as birds/1 and old/2 (0 bits apart)")


def test_what_came_earlier_is_held_against_test_images_that_came_later():
    chunk, early, nothing = samples("cats", FAR), samples("birds", 0b1, FAR, None), samples("x")
    tests = pl.concat([samples("old", FAR), samples("late", 0b11, FAR)])
    late = [(early, samples("late", 0b11, FAR)), (nothing, tests)]
    pairs = pairs_of(chunk, early, tests, 1, late=late)
    assert sorted(pairs.filter(pl.col("kind") != "earlier").drop("similarity").rows()) == [
        ("leakage", "cats", "0", "late", "test", "1", 0),
        ("leakage", "cats", "0", "old", "test", "0", 0),
        ("past_leakage", "birds", "0", "late", "test", "0", 1),
        ("past_leakage", "birds", "1", "late", "test", "1", 0),
    ]
    found = Found(chunk.height, 0, pairs)
    assert (found.leaking, found.leaked) == (1, 2)
    assert set(found.of_the_stage["dataset"]) == {"cats"}
    assert found.sentence("past_leakage") == (
        "2 of those that earlier stages brought are near duplicates of a test image that came "
        "after it, such as birds/1 and late/1 (0 bits apart)"
    )


def test_mirror_images_are_near_only_where_that_is_asked():
    chunk, tests = samples("birds", FAR, mirrored=0b1), samples("old", 0b11, FAR ^ 0b11)
    nothing = samples("birds")
    plain = pairs_of(chunk, nothing, tests, 2)
    assert plain.select("other_key", "distance").rows() == [("1", 2)]
    both = pairs_of(chunk, nothing, tests, 2, mirrored=True)
    assert both.select("other_key", "distance").rows() == [("0", 1)]


@given(
    st.integers(0, 30), st.integers(0, 30), st.floats(-0.5, 0.99), st.booleans(), st.integers(0, 9)
)
def test_the_most_similar_is_that_of_brute_force(count, others, least, before_alone, seed):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count + others, 4)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    own, among = features[others:], features if before_alone else features[:others]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEATURE_ROWS", 3)
        patch.setattr(module, "COLUMNS", 7)
        first = others if before_alone else None
        places, cosines = most_similar(own, among, least, first=first)
    for number in range(count):
        seen = among[: others + number] if before_alone else among
        similar = seen @ own[number]
        if not len(seen) or similar.max() < least - 1e-6:
            assert (places[number], cosines[number]) == (-1, 0)
        elif similar.max() > least + 1e-6:
            assert similar[places[number]] == pytest.approx(similar.max(), abs=1e-6)
            assert cosines[number] == pytest.approx(similar.max(), abs=1e-6)


def test_what_features_find_is_told_beside_what_hashes_find():
    def seen(frame, *features):
        return frame.with_columns(pl.Series("features", features, pl.Array(pl.Float32, 2)))

    chunk = seen(samples("birds", 0b1, FAR, None), [1, 0], [0, 1], [1, 0])
    earlier = seen(samples("birds", 0b11, FAR ^ 0xFFFF), [0, 1], [0.6, 0.8])
    tests = seen(samples("old", 0xFF00), [0.8, 0.6])
    pairs = pairs_of(chunk, earlier, tests, 3, similarity=0.7)
    told = pairs.select("kind", "key", "other_key", "distance", "similarity").rows()
    assert [(*row[:4], row[4] and round(row[4], 6)) for row in sorted(told, key=str)] == [
        ("earlier", "0", "0", 1, None),
        ("earlier", "1", "0", None, 1.0),
        ("leakage", "0", "0", None, 0.8),
    ]
    found = Found(3, 1, pairs)
    assert (found.leaking, found.repeated) == (1, 2)
    assert found.sentence("leakage").endswith("such as birds/0 and old/0 (cosine 0.800)")
    assert found.nearest["key"].to_list() == ["0", "0", "1"]  # hashes before features

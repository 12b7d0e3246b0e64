"""Splits by the names of shards: the rule of folders and tables, told by a word in the name."""

import pytest

from fomo_dagster.data.sources.webdataset.shard_splits import split_shards
from fomo_dagster.errors import DataError, InputError

TOLD = {
    "numbers alone": (["00000.tar", "00001.tar"], {"train": 2}),
    "training alone": (["train-0.tar", "Training_1.tar", "extra.tar"], {"train": 3}),
    "folders": (["train/0.tar", "test/0.tar"], {"train": 1, "test": 1}),
    "validation in the place of a test": (["a_trn_0.tar", "a_val_0.tar"], {"train": 1, "test": 1}),
    "validation beside a test": (["train1.tar", "dev1.tar", "test1.tar"], {"train": 1, "test": 1}),
    "Hugging Face's": (
        ["x-train-00000-of-2.tar", "x-test-00001-of-2.tar"],
        {"train": 1, "test": 1},
    ),
    "a test alone": (["test-0.tar", "test-1.tar"], {"test": 2}),
}


@pytest.mark.parametrize("case", TOLD)
def test_a_word_in_the_name_tells_the_split(case):
    names, expected = TOLD[case]
    found = list(split_shards(names, None, "web").of.values())
    assert {split: found.count(split) for split in set(found)} == expected


def test_names_that_tell_half_or_twice_are_refused():
    with pytest.raises(DataError, match=r"1 shards are named as splits \(val\) and 1 are not"):
        split_shards(["0.tar", "val.tar"], None, "web")
    with pytest.raises(DataError, match="'val' and 'valid', and both are called validation"):
        split_shards(["train.tar", "val.tar", "valid.tar"], None, "web")
    with pytest.raises(DataError, match=r"the shard 'train_val-0\.tar' is called train and val"):
        split_shards(["train-0.tar", "train_val-0.tar"], None, "web")
    assert set(split_shards(["web-dev-train-0.tar"], None, "web").of.values()) == {"train"}
    nested = split_shards(["train/val-0.tar", "train/x-train-0.tar"], None, "web")
    assert nested.of == {"train/val-0.tar": "test", "train/x-train-0.tar": "train"}
    assert set(split_shards(["0.tar", "val.tar"], {}, "web").of.values()) == {"train"}


def test_declared_patterns_map_any_name():
    names = ["a/0.tar", "a/1.tar", "b/0.tar", "c/0.tar"]
    found = split_shards(names, {"train": ("a/*",), "test": ("b/0.tar",)}, "web")
    assert found.of == {"a/0.tar": "train", "a/1.tar": "train", "b/0.tar": "test"}
    assert "'c/0.tar', in none of the declared `splits`" in found.notes[0]
    with pytest.raises(InputError, match=r"no shard 'd/\*'"):
        split_shards(names, {"train": ("d/*",)}, "web")
    with pytest.raises(InputError, match=r"'a/0\.tar' in both"):
        split_shards(names, {"train": ("a/*",), "test": ("*/0.tar",)}, "web")

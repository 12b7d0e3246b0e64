"""The table of the benchmark's datasets, held against what its release and paper state."""

from itertools import combinations

import pytest

from fomo_dagster.data.benchmark.registry import benchmark_datasets, by_any_name, find
from fomo_dagster.errors import InputError


@pytest.fixture
def adaptation():
    return [d for d in benchmark_datasets().values() if d.role == "adaptation"]


@pytest.fixture
def held_out():
    return [d for d in benchmark_datasets().values() if d.role == "held_out"]


def test_the_benchmark_has_41_datasets_to_adapt_to_and_22_held_out(adaptation, held_out):
    assert len(benchmark_datasets()) == 63
    assert (len(adaptation), len(held_out)) == (41, 22)


def test_streams_bring_18381_concepts_of_the_adaptation_datasets_alone(adaptation, held_out):
    assert sum(d.stream_concepts for d in adaptation) == 18_381
    assert all(0 < d.stream_concepts <= d.classes for d in adaptation)
    assert all(d.stream_concepts == 0 for d in held_out)
    unused = {d.name: d.classes - d.stream_concepts for d in adaptation}
    assert {name: count for name, count in unused.items() if count} == {
        "clevr": 30, "openimages": 10, "mitstates": 3, "quilt": 1,
    }  # fmt: skip


def test_the_adaptation_datasets_hold_the_samples_that_the_release_states(adaptation):
    assert sum(d.train for d in adaptation) == 1_759_790
    assert sum(d.test for d in adaptation) == 453_062


def test_only_retrieval_without_classes_has_no_class_list():
    retrieval = {d.name for d in benchmark_datasets().values() if d.task == "retrieval"}
    assert retrieval == {"flickr30k", "fscoco", "mscoco"}
    without = {d.name for d in benchmark_datasets().values() if d.classes is None}
    assert without == {"flickr30k", "mscoco"}


def test_datasets_without_training_split_are_those_that_only_evaluate():
    assert {d.name for d in benchmark_datasets().values() if not d.train} == {
        "flickr30k", "imagenet", "imagenet_a", "imagenet_d", "imagenet_r", "imagenet_s",
        "imagenet_v2", "mscoco",
    }  # fmt: skip


def test_two_datasets_call_their_splits_otherwise():
    named = {d.name: (d.train_split, d.test_split) for d in benchmark_datasets().values()}
    assert {name: splits for name, splits in named.items() if splits != ("train", "test")} == {
        "inaturalist2021": ("train_mini", "val"),
        "mtsd": ("train", "val"),
    }


def test_every_prompt_has_one_place_for_the_concept():
    assert all(d.prompt.count("{}") == 1 for d in benchmark_datasets().values())


def test_the_released_order_of_time_has_a_place_for_each_dataset_that_streams_bring(
    adaptation, held_out
):
    in_time = sorted(adaptation, key=lambda d: d.released_place)
    assert [d.released_place for d in in_time] == list(range(1, 42))
    assert all(d.released_place is None for d in held_out)
    assert (in_time[0].name, in_time[-1].name) == ("flowers102", "synthclip106")


def test_23_pairs_stand_against_their_years_in_the_released_order_of_time(adaptation):
    in_time = sorted(adaptation, key=lambda d: d.released_place)
    inverted = {(a.name, b.name) for a, b in combinations(in_time, 2) if a.year > b.year}
    assert len(inverted) == 23
    assert {a for a, b in inverted if b != "resisc45"} == {
        "openimages", "obsc_animals", "obsc_things"
    }  # fmt: skip
    resisc45 = by_any_name()["resisc45"]
    assert (resisc45.year, resisc45.released_place) == (2017, 33)
    assert {b for a, b in inverted if a.startswith("obsc")} == {"quilt"}


def test_a_dataset_is_found_by_handle_folder_and_alias():
    for dataset in benchmark_datasets().values():
        assert all(find(name) is dataset for name in dataset.names)
    assert find("EUROSAT") is find("EuroSAT") is find("eurosat")
    assert find("MVTECAD_Adapt").name == "mvtecad_adapt"
    assert find("SNAKECLEF").name == "snake_clef"
    assert len(by_any_name()) == 63 * 2 + 3


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="no dataset 'CUB2000'; did you mean 'CUB200'"):
        find("CUB2000")

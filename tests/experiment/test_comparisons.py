"""What a file of comparisons/ declares, and which experiments its methods are."""

import pytest
import yaml

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.comparisons import load_comparisons, load_named
from fomo_dagster.experiment.experiment_sets import load_all


@pytest.fixture
def read(project):
    """What a comparison's file stands for."""
    project.write("other", seed=1)
    project.write("twice", replicates=2)
    project.write("rates", replicates=2, sweep={"optimiser.learning_rate": [1e-3, 1e-2]})
    (project.root / "comparisons").mkdir()

    def write_and_read(overrides=(), **declared):
        path = project.root / "comparisons" / "tried.yaml"
        path.write_text(yaml.safe_dump(declared, sort_keys=False))
        return load_named("comparisons/tried", project.root, overrides)

    return write_and_read


def experiments(found):
    return {
        method: [one.experiment.name for one in members]
        for method, members in found.comparison.methods.items()
    }


def test_methods_are_experiments_replicates_and_members_of_sweeps(read):
    found = read(methods=["toy", "twice", "rates_learning_rate_1e_3", "twice/seed_1"])
    assert experiments(found) == {
        "toy": ["toy"],
        "twice": ["twice_seed_0", "twice_seed_1"],
        "rates_learning_rate_1e_3": [
            "rates_learning_rate_1e_3_seed_0", "rates_learning_rate_1e_3_seed_1",
        ],
        "twice_seed_1": ["twice_seed_1"],
    }  # fmt: skip
    assert found.names == [
        "toy", "twice_seed_0", "twice_seed_1", "rates_learning_rate_1e_3_seed_0",
        "rates_learning_rate_1e_3_seed_1",
    ]  # fmt: skip
    assert found.name == "comparisons/tried"


def test_the_baseline_comes_first_and_may_be_no_other_method(read):
    assert list(experiments(read(methods=["toy", "other"], baseline="other"))) == ["other", "toy"]
    assert list(experiments(read(methods=["toy"], baseline="other"))) == ["other", "toy"]
    assert list(experiments(read(methods=["toy", "other"]))) == ["toy", "other"]


def test_what_ships_with_the_package_can_be_compared(read):
    member = "sweeps/learning_rates/learning_rate_1e_3_lora"
    found = read(methods=["toy", "quickstart", "methods/ewc", member])
    assert list(experiments(found)) == [
        "toy", "quickstart", "methods_ewc", "sweeps_learning_rates_learning_rate_1e_3_lora",
    ]  # fmt: skip


def test_set_changes_all_that_is_compared(read):
    found = read(["replicates=3"], methods=["toy", "other"])
    assert experiments(found) == {
        name: [f"{name}_seed_{seed}" for seed in range(first, first + 3)]
        for name, first in (("toy", 0), ("other", 1))
    }


WRONG = {
    "an unknown key": (
        {"methods": ["toy", "other"], "baselin": "toy"}, "line 4: unknown key 'baselin'.*'baseline'"
    ),
    "an unknown name": (
        {"methods": ["toy", "othr"]}, "methods names 'othr', which is no experiment; did you mean"
    ),
    "an unknown baseline": ({"methods": ["toy"], "baseline": "tea"}, "baseline names 'tea'"),
    "one method": ({"methods": ["toy"]}, "a comparison takes two or more methods, not toy"),
    "one method by two names": (
        {"methods": ["twice/seed_0", "twice_seed_0"]}, "takes two or more methods"
    ),
    "no methods": ({}, "methods is missing"),
    "a sweep": ({"methods": ["toy", "rates"]}, "'rates', which is a sweep of 2 methods: name"),
    "a margin below 0": ({"methods": ["toy", "other"], "margin": -1}, "margin is -1.*at least 0"),
    "no schedule": (
        {"methods": ["toy", "other"], "cron_schedule": "soon"}, "'soon' is not a cron schedule"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_file(read, case):
    declared, message = WRONG[case]
    with pytest.raises(InputError, match=message) as raised:
        read(**declared)
    assert "tried.yaml" in str(raised.value)


def test_what_cannot_be_used_is_no_method_and_the_others_go_on(project, read):
    read(methods=["toy", "other"])
    folder = project.root / "comparisons"
    (folder / "broken.yaml").write_text("methods: [toy, twice]\n")
    (folder / "a-b.yaml").write_text("methods: [toy, other]\n")
    (folder / "of_bad.yaml").write_text("methods: [toy, bad]\n")
    (folder / "schema.json").write_text("{}")
    project.write("bad", batchsize=3)
    project.write("twice", seeds=[0, 10**20])
    loaded, troubles = load_comparisons(project.root, load_all(project.root))
    assert [one.name for one in loaded] == ["tried"]
    said = {one.name: one.sentence for one in troubles}
    assert "'a-b' is not a safe name" in said["comparisons/a-b"]
    assert "names 'bad', which cannot be used" in said["comparisons/of_bad"]
    assert "did you mean 'batch_size'" in said["comparisons/of_bad"]
    assert "names 'twice', which cannot be used" in said["comparisons/broken"]
    assert len(said) == 3
    (folder / "tried.yml").write_text("methods: [toy, other]\n")
    with pytest.raises(InputError, match=r"tried\.yaml and tried\.yml would both be 'tried'"):
        load_named("comparisons/tried", project.root)


def test_a_comparison_is_found_by_name_and_by_path(project, read, tmp_path):
    path = read(methods=["toy", "other"]).path
    assert load_named(str(path), project.root).name == "comparisons/tried"
    assert load_named("comparisons/replay", project.root).names == [
        "quickstart_without_replay", "quickstart",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"no comparison 'tired' in .*; did you mean 'tried'"):
        load_named("comparisons/tired", project.root)
    below = project.root / "experiments" / "comparisons"
    below.mkdir()
    (below / "preset.yaml").write_text("extends: ../toy\n")
    assert load_named("comparisons/preset", project.root).names == ["comparisons_preset"]

"""`replicates` and `seeds` declare an experiment several times, with other seeds alone."""

import pytest
import yaml

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.experiment_sets import load_experiment_set


@pytest.fixture
def read(project):
    """What a file that extends `toy` declares."""

    def write_and_read(overrides=(), **changes):
        path = project.root / "experiments" / "tried.yaml"
        path.write_text(yaml.safe_dump({"extends": "toy", **changes}, sort_keys=False))
        return load_experiment_set("tried", project.root, overrides)

    return write_and_read


def test_replicates_count_up_from_the_experiments_seed(read):
    found = read(replicates=3, seed=5)
    assert found.names == ["tried_seed_5", "tried_seed_6", "tried_seed_7"]
    assert [member.experiment.seed for member in found.members] == [5, 6, 7]
    assert {member.replicate_of for member in found.members} == {"tried"}
    assert [member.replicate for member in found.members] == ["seed_5", "seed_6", "seed_7"]
    assert found.sweep == "tried"


def test_what_is_to_vary_gets_the_seed_and_all_else_is_shared(read):
    found = read(seeds=[1, 2], vary=["training", "order", "backbone"])
    seeds = [
        (e.seed, e.stream.seed, e.backbone.pretraining.seed)
        for e in (member.experiment for member in found.members)
    ]
    assert seeds == [(1, 1, 1), (2, 2, 2)]
    order_alone = read(seeds=[1, 2], vary=["order"])
    assert [m.experiment.seed for m in order_alone.members] == [0, 0]


def test_replicates_of_a_sweep_are_replicates_of_each_of_its_points(read):
    found = read(replicates=2, sweep={"optimiser.learning_rate": [1e-3, 1e-2]})
    assert [(m.replicate_of, m.replicate) for m in found.members] == [
        ("tried_learning_rate_1e_3", "seed_0"),
        ("tried_learning_rate_1e_3", "seed_1"),
        ("tried_learning_rate_1e_2", "seed_0"),
        ("tried_learning_rate_1e_2", "seed_1"),
    ]


def test_the_replicates_of_one_point_of_a_sweep_are_named_by_it(read, project):
    read(replicates=2, sweep={"optimiser.learning_rate": [1e-3, 1e-2]})
    names = ["tried_learning_rate_1e_2_seed_0", "tried_learning_rate_1e_2_seed_1"]
    for written in ("tried/learning_rate_1e_2", "tried_learning_rate_1e_2"):
        found = load_experiment_set(written, project.root)
        assert (found.name, found.names) == ("tried_learning_rate_1e_2", names)
    one = load_experiment_set("tried/learning_rate_1e_2_seed_1", project.root)
    assert one.names == names[1:]
    with pytest.raises(InputError, match="did you mean 'learning_rate_1e_2'"):
        load_experiment_set("tried/learning_rate_2", project.root)


def test_a_sweep_over_seeds_has_replicates_as_well(read):
    found = read(sweep={"seed": [3, 4], "batch_size": [8, 9]})
    assert {m.replicate_of for m in found.members} == {"tried_batch_size_8", "tried_batch_size_9"}
    alone = read(sweep={"batch_size": [8, 9]})
    assert [m.replicate_of for m in alone.members] == [None, None]


def test_set_changes_how_many_there_are(read):
    assert len(read(["replicates=2"]).members) == 2
    assert len(read(["seeds=[1, 2, 3]"], replicates=2).members) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicates": 0}, "replicates must be a number from 1 to 100, not 0"),
        ({"replicates": True}, "replicates must be a number from 1 to 100, not True"),
        ({"replicates": 2, "seeds": [1]}, "replicates and seeds are both given"),
        ({"seeds": []}, "seeds must be a list of whole numbers"),
        ({"seeds": [1, 1.5]}, "seeds must be a list of whole numbers"),
        ({"seeds": [1, 1]}, "seeds names a seed twice"),
        ({"vary": ["order"]}, "vary is given without replicates or seeds"),
        ({"replicates": 2, "vary": [["order"]]}, "vary must be a list of some of training"),
        ({"sweep": {"replicates": [1, 2]}}, "'replicates' cannot be varied"),
        ({"replicates": 2, "vary": ["order", "order"]}, "vary must be a list of some of"),
        ({"replicates": 2, "vary": ["weather"]}, "vary must be a list of some of training, order"),
        ({"replicates": 2, "sweep": {"seed": [1, 2]}}, "sweep varies a seed, and so does repl"),
    ],
)
def test_what_is_no_number_of_replicates_is_refused(read, changes, message):
    with pytest.raises(InputError, match=message):
        read(**changes)

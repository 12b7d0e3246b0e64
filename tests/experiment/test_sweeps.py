"""Sweeps: which experiments a file declares, what they are called, and what they share."""

import itertools

import pytest
import yaml

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.experiment_sets import load_all, load_experiment_set
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.graph.build.builder import build_graph

MINIMAL = {
    "backbone": {"name": "b32", "architecture": "ViT-B-32", "weights": "b32.pt"},
    "stream": {"datasets": ["birds"], "stages": 2},
    "mixture": {"update": 0.5, "buffer": 0.5, "pretraining": 0},
}
METHODS = [{"name": "finetune"}, {"name": "lora", "rank": 4}]


@pytest.fixture
def write(tmp_path):
    (tmp_path / "experiments" / "below").mkdir(parents=True)
    (tmp_path / "datasets").mkdir()
    birds = {"birds": {"source": {"type": "folder", "path": "birds"}}}
    (tmp_path / "datasets" / "birds.yaml").write_text(yaml.safe_dump(birds))

    def write(file="e", /, base=MINIMAL, **changes):
        path = tmp_path / "experiments" / f"{file}.yaml"
        path.write_text(yaml.safe_dump({**base, **changes}, sort_keys=False))
        return tmp_path

    return write


def members(root, name="e", *overrides):
    return {m.experiment.name: m for m in load_experiment_set(name, root, overrides).members}


def test_a_grid_is_every_combination_each_a_whole_experiment(write):
    rates = [1e-5, "3e-5", 0.0001]
    path = write(sweep={"optimiser.learning_rate": rates, "method": METHODS})
    text = (path / "experiments" / "e.yaml").read_text().replace("'3e-5'", "3e-5")
    (path / "experiments" / "e.yaml").write_text(text)
    found = members(path)
    assert list(found) == [
        f"e_learning_rate_{rate}_{method}"
        for rate, method in itertools.product(("1e_5", "3e_5", "1e_4"), ("finetune", "lora_rank_4"))
    ]
    combinations = [
        (m.experiment.optimiser.learning_rate, m.experiment.method.name) for m in found.values()
    ]
    assert combinations == list(itertools.product((1e-5, 3e-5, 1e-4), ("finetune", "lora")))
    last = found["e_learning_rate_1e_4_lora_rank_4"]
    assert (last.experiment.method.rank, last.sweep) == (4, "e")
    assert last.swept == {"learning_rate": 1e-4, "method": "lora_rank_4"}
    assert last.experiment.description == "(learning_rate 0.0001, method lora_rank_4)"
    alone = yaml.safe_load(text)
    del alone["sweep"]
    write("alone", alone, method=METHODS[1], optimiser={"learning_rate": 1e-4})
    one = load_experiment("alone", path).experiment
    named = {"name": "", "description": "", "stream": last.experiment.stream}
    assert one.model_copy(update=named) == last.experiment.model_copy(update=named)


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("seed", 3, "seed_3"),
        ("optimiser.learning_rate", 2.5e-4, "learning_rate_2_5e_4"),
        ("optimiser.learning_rate", 1.0, "learning_rate_1"),
        ("optimiser.learning_rate", 2.5e7, "learning_rate_2_5e7"),
        ("optimiser.weight_decay", 0.25, "weight_decay_0_25"),
        ("optimiser.weight_decay", 0, "weight_decay_0"),
        ("optimiser.clip_norm", None, "clip_norm_null"),
        ("optimiser.betas", [0.9, 0.98], "betas_0_9_0_98"),
        ("stream.reverse", True, "reverse_true"),
        ("precision", "bf16", "bf16"),
        ("backbone.weights", "/models/old.pt", "old_pt"),
        ("backbone.architecture", "ViT-B-16", "ViT_B_16"),
        ("method", {"combination": "ema_merge"}, "combination_ema_merge"),
        ("method", {"name": "lora", "rank": 8, "scale": 0.5}, "lora_rank_8_scale_0_5"),
    ],
)
def test_a_member_is_called_after_its_values_whatever_else_is_swept(write, key, value, name):
    assert list(members(write(sweep={key: [value]}))) == [f"e_{name}"]
    assert list(members(write(sweep={key: [value], "batch_size": {"x": 8}}))) == [f"e_{name}_x"]


def test_keys_that_end_alike_are_called_by_all_their_parts(write):
    sweep = {"seed": [0], "stream.seed": [1]}
    assert list(members(write(sweep=sweep))) == ["e_seed_0_stream_seed_1"]


def test_together_varies_several_keys_at_once(write):
    rows = [{"batch_size": 64, "optimiser.learning_rate": 1e-5},
            {"batch_size": 128, "optimiser.learning_rate": 2e-5}]  # fmt: skip
    found = members(write(sweep={"together": rows, "seed": [0, 1]}))
    assert [
        (m.experiment.batch_size, m.experiment.optimiser.learning_rate, m.experiment.seed)
        for m in found.values()
    ] == [(64, 1e-5, 0), (64, 1e-5, 1), (128, 2e-5, 0), (128, 2e-5, 1)]
    first = found["e_batch_size_64_learning_rate_1e_5_seed_0"]
    assert first.swept == {"batch_size": 64, "learning_rate": 1e-5, "seed": 0}
    named = members(write(sweep={"together": dict(zip(("small", "large"), rows, strict=True))}))
    assert [m.swept for m in named.values()] == [{"together": "small"}, {"together": "large"}]


def test_a_list_of_grids_is_all_their_points_and_repetitions_are_left_out(write):
    sweep = [
        {"method": [METHODS[0]], "optimiser.learning_rate": [1e-5, 1e-4]},
        {"method": [METHODS[1]], "optimiser.learning_rate": [1e-3]},
        {"method": [{"name": "finetune", "train": "all"}], "optimiser.learning_rate": [1e-4, 1e-4]},
    ]
    assert list(members(write(sweep=sweep))) == [
        "e_finetune_learning_rate_1e_5", "e_finetune_learning_rate_1e_4",
        "e_lora_rank_4_learning_rate_1e_3",
    ]  # fmt: skip


def test_what_is_swept_may_be_the_file_that_is_extended(write):
    write("low", optimiser={"learning_rate": 1e-6}, seed=4)
    write("below/high", optimiser={"learning_rate": 1e-2}, batch_size=32)
    root = write(base={}, sweep={"extends": ["low", "below/high"], "seed": [8, 9]}, batch_size=16)
    found = members(root)
    assert list(found) == ["e_low_seed_8", "e_low_seed_9", "e_high_seed_8", "e_high_seed_9"]
    told = [m.experiment for m in found.values()]
    assert [e.optimiser.learning_rate for e in told] == [1e-6, 1e-6, 1e-2, 1e-2]
    assert {(e.batch_size, e.seed) for e in told} == {(16, 8), (16, 9)}
    with pytest.raises(InputError, match="extends 'low', and so do all members"):
        members(write(base={}, extends="low", sweep={"extends": ["below/high"]}))


def test_a_file_that_extends_a_sweep_is_one_and_replaces_axes_whole(write):
    write("parent", sweep={"method": {"full": METHODS[0], "lora": METHODS[1]}, "seed": [0, 1]})
    root = write(base={"extends": "parent"}, sweep={"method": {"dora": {"name": "dora"}}})
    assert list(members(root)) == ["e_dora_seed_0", "e_dora_seed_1"]
    write(base={"extends": "parent"}, sweep=None)
    assert list(members(root)) == ["e"]


def test_set_applies_to_every_member_but_not_to_what_is_swept(write):
    root = write(sweep={"seed": [0, 1]})
    assert {m.experiment.batch_size for m in members(root, "e", "batch_size=4").values()} == {4}
    with pytest.raises(InputError, match=r"--set 'seed=2': .*e.yaml sweeps over seed"):
        members(root, "e", "seed=2")
    with pytest.raises(InputError, match="only its file can set name"):
        members(root, "e", "name=other")


def test_a_member_is_found_by_the_sweep_and_by_its_own_name(write):
    write("below/s", sweep={"seed": [0, 1]})
    root = write(sweep={"seed": [0, 1]})
    for reference, name in [
        ("e/seed_1", "e_seed_1"), ("e/e_seed_1", "e_seed_1"), ("e_seed_1", "e_seed_1"),
        ("below/s/seed_0", "below_s_seed_0"), (f"{root}/experiments/e.yaml/seed_0", "e_seed_0"),
    ]:  # fmt: skip
        assert list(members(root, reference)) == [name]
    with pytest.raises(InputError, match="e has no experiment 'seed_11'; did you mean 'seed_1'"):
        load_experiment_set("e/seed_11", root)
    with pytest.raises(InputError, match="there is no experiment 'other/seed_1'"):
        load_experiment_set("other/seed_1", root)
    with pytest.raises(InputError, match="sweep of 2 experiments: name one, as in e/seed_0"):
        load_experiment_set("e", root).only()
    with pytest.raises(InputError, match=r"e\.yaml is a sweep of several experiments"):
        load_experiment("e", root)
    assert [one.experiment.name for one in load_all(root).experiments] == ["e_seed_0", "e_seed_1"]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ([], "sweep must map keys to lists of values"),
        ("seed", "sweep must map keys to lists of values"),
        ({"seed": []}, "sweep.seed has no values"),
        ({"sede": [1]}, r"unknown key 'sede' .*did you mean 'seed'"),
        ({"seed.": [1]}, r"'seed\.' cannot be varied"),
        ({"execution.device": ["cpu"]}, "'execution.device' cannot be varied"),
        ({"name": ["a"]}, "'name' cannot be varied"),
        ({"together": [3]}, "sweep.together must be a list of mappings"),
        ({"seed": [0], "together": [{"seed": 1}]}, "'seed' and 'together' both set seed"),
        (
            {"optimiser": [{"betas": [0, 1]}], "optimiser.betas": [[0, 1]]},
            "'optimiser' and 'optimiser.betas' both set optimiser.betas",
        ),
        ({"backbone.weights": ["/a/x.pt", "/b/x.pt"]}, "'/a/x.pt' and '/b/x.pt' are both called"),
        ({"seed": {"a b": 1}}, "'a b' cannot be part of a name"),
        ({"optimiser.learning_rate": [-1]}, r"\(learning_rate_minus_1\): optimiser.learning_rate"),
        ({"seed": list(range(20)), "batch_size": list(range(2, 22))}, r"400 experiments \(20×20\)"),
    ],
)
def test_a_wrong_sweep_names_what_is_wrong_with_it(write, sweep, message):
    with pytest.raises(InputError, match=message):
        members(write(sweep=sweep))


def graph_of(root):
    return build_graph(load_experiment_set("e", root).members)


def keys(graph, folder):
    return {key for key in graph.nodes if key.startswith(f"{folder}/")}


def test_what_is_not_swept_is_one_asset_for_all_members(write):
    graph = graph_of(write(sweep={"optimiser.learning_rate": [1e-5, 1e-4], "seed": [0, 1]}))
    assert keys(graph, "backbones") == {"backbones/b32"}
    assert keys(graph, "streams") == {f"streams/e/{n}" for n in ("order", "chunk_001", "chunk_002")}
    assert graph.sweeps == {"e": tuple(graph.experiments)}
    assert sum(node.kind == "trained" for node in graph.nodes.values()) == 4 * 2


def test_what_is_swept_below_a_shared_name_gets_a_name_for_each_value(write):
    sweep = {"backbone.architecture": ["ViT-B-32", "ViT-B-16"], "seed": [0, 1]}
    graph = graph_of(write(sweep=sweep))
    assert keys(graph, "backbones") == {"backbones/b32_ViT_B_32", "backbones/b32_ViT_B_16"}
    assert {key.split("/")[1] for key in keys(graph, "streams")} == {"e"}
    stream = {"name": "s", "datasets": ["birds"], "stages": 2, "order": "similarity"}
    graph = graph_of(write(sweep=sweep, stream=stream))  # an order that asks θ₀
    assert {key.split("/")[1] for key in keys(graph, "streams")} == {"s_ViT_B_32", "s_ViT_B_16"}
    sweep = {"stream.order": ["as_listed", "random"], "batch_size": [8, 16]}
    graph = graph_of(write(sweep=sweep, stream={**stream, "order": "random"}))
    assert {key.split("/")[1] for key in keys(graph, "streams")} == {"s_as_listed", "s_random"}
    named = [{"name": n, "architecture": "RN50", "weights": f"{n}.pt"} for n in ("a", "b")]
    graph = graph_of(write(sweep={"backbone": named}))
    assert keys(graph, "backbones") == {"backbones/a", "backbones/b"}


def test_two_of_one_name_are_refused(write):
    write("e_seed_0")
    with pytest.raises(InputError, match="two experiments or sweeps are called 'e_seed_0'"):
        build_graph(load_all(write(sweep={"seed": [0, 1]})).experiments)


def test_the_shipped_sweep_is_six_experiments_over_one_model_and_stream(request):
    experiment_set = load_experiment_set("sweeps/learning_rates", request.config.rootpath)
    assert len(experiment_set.names) == 6
    graph = build_graph(experiment_set.members)
    assert keys(graph, "backbones") == {"backbones/quickstart"}
    assert len(keys(graph, "streams")) == 1 + 5

"""Experiment files: what is right loads, what is wrong is named with the way out."""

import json

import pytest
import yaml

from fomo_dagster.data.benchmark.registry import benchmark_datasets
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.declared_datasets import load_datasets, shipped_datasets
from fomo_dagster.experiment.experiment_sets import load_all, load_experiment_set
from fomo_dagster.experiment.json_schema import json_schema
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.graph.build.builder import build_graph

MINIMAL = {
    "backbone": {"name": "b32", "architecture": "ViT-B-32", "weights": "b32.pt"},
    "stream": {"datasets": ["birds"], "stages": 2},
    "mixture": {"update": 0.5, "buffer": 0.5, "pretraining": 0},
}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "datasets").mkdir()
    birds = {"birds": {"source": {"type": "folder", "path": "birds"}}}
    (tmp_path / "datasets" / "birds.yaml").write_text(yaml.safe_dump(birds))

    def write(file="e", /, **changes):
        path = tmp_path / "experiments" / f"{file}.yaml"
        path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
        return tmp_path

    write()
    return write


def load(project, name="e", *overrides):
    return load_experiment(name, project, overrides).experiment


def test_defaults_are_the_benchmarks(project):
    experiment = load(project())
    assert experiment.name == "e"
    assert experiment.optimiser.learning_rate == 1e-5
    assert experiment.optimiser.weight_decay == 0.2
    assert experiment.optimiser.clip_norm == 1
    assert (experiment.schedule.name, experiment.schedule.warmup) == ("cosine", 0.1)
    assert experiment.batch_size == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {}}, "unknown key 'optimizer'.*did you mean 'optimiser'"),
        ({"optimiser": {"learningrate": 1}}, "optimiser.learningrate.*'learning_rate'"),
        ({"optimiser": {"learning_rate": -1}}, "optimiser.learning_rate is -1: it must be above 0"),
        ({"learning_rate": 1}, "key 'learning_rate' .*; did you mean 'optimiser.learning_rate'"),
        ({"stages": 2}, "unknown key 'stages' .*; did you mean .*'stream.stages'"),
        ({"optimiser": {"learning_rate": float("nan")}}, "learning_rate is nan"),
        ({"precision": "bf61"}, "precision is 'bf61'; did you mean 'bf16'"),
        ({"mixture": {"update": 0.5, "buffer": 0.1, "pretraining": 0}}, "add up to 1, not 0.6"),
        ({"mixture": {"update": 0, "buffer": 1, "pretraining": 0}}, "update must be above 0"),
        ({"mixture": {}}, "pretraining is 0.33, but there is no pretraining_pool"),
        ({"budget": {"samples": 10, "steps": 3}}, "exactly one of samples, steps, epochs"),
        ({"budget": {}}, "exactly one of samples, steps, epochs"),
        ({"budget": 100}, "budget is 100: keys and values were expected"),
        ({"batch_size": "many"}, "batch_size is 'many': a whole number was expected"),
        ({"evaluation": {"held_out": "birds"}}, r"held_out is 'birds': a list .* as in \[a, b\]"),
        ({"stream": {"stages": 2}}, "exactly one of datasets, concepts, file"),
        ({"budget": {"samples": 500}}, r"yaml, line \d+: budget\.samples is 500, .* batch of 512"),
        ({"stream": {"datasets": ["birds"], "stages": -1}}, "stream.stages is -1"),
        ({"backbone": {"name": "x", "architecture": "ViT-B-32"}}, "exactly one of pretrained"),
        ({"method": {"start_from": "deployed"}}, "start_from: deployed needs a merge"),
        ({"method": {"train": "layer_norm"}}, "train is 'layer_norm'; did you mean 'layer_norms'"),
        ({"method": {"train": {"includes": ["*"]}}}, r"key 'method.train.includes'.*'include'"),
        ({"method": {"merge": {"technique": "tiles"}}}, r"merge.technique is 'tiles'; did.*'ties'"),
        (
            {"method": {"merge": {"technique": "ties", "densty": 0.3}}},
            r"unknown key 'method.merge.densty' \(value 0.3\); did you mean 'density'",
        ),
        (
            {"method": {"merge": {"technique": "weighted_mean", "coefficients": [0.5, 0.2, 0.3]}}},
            "weighted_mean cannot merge two models: it has 3 coefficients",
        ),
        ({"method": {"name": "lorra"}}, r"method.name is 'lorra'; did you mean 'lora'"),
        (
            {"method": {"name": "lora", "rnk": 3}},
            "key 'method.rnk'.*; did you mean 'rank'",
        ),
        ({"method": {"rank": 3}}, r"unknown key 'method.rank' \(value 3\)"),
        ({"method": {"name": "ia3", "rank": 3}}, r"unknown key 'method.rank' \(value 3\)"),
        ({"method": {"name": "lora", "rank": 0}}, "method.rank is 0: it must be at least 1"),
        ({"method": {"name": "hra", "rank": 3}}, "rank of hra is 3, and must be even"),
        (
            {"method": {"name": "lora", "start_from": "initial"}},
            "start_from must be trained or unannealed, not initial: use adapters: merge_each_stage",
        ),
        ({"method": 3}, "method is 3; a mapping"),
        ({"name": "../escape"}, "not a safe name"),
        ({"datasets": {"x": {"source": {"type": "foldr"}}}}, r"x.source.type is 'foldr'; did"),
        (
            {"datasets": {"x": {"source": {"type": "folder", "pat": "a"}}}},
            r"unknown key 'datasets.x.source.pat' \(value 'a'\); did you mean 'path'",
        ),
        ({"evaluation": {"prompts": "openia"}}, "prompts is 'openia'; did you mean 'openai'"),
        (
            {"evaluation": {"prompts": {"waffle": {"pair": 3}}}},
            r"unknown key 'evaluation.prompts.waffle.pair' \(value 3\); did you mean 'pairs'",
        ),
        ({"datasets": {"x": {"source": {"path": "a"}}}}, "x.source.type is missing; .*'manifest'"),
        ({"method": {"name": "lora", "preserve": {"weight": 1}}}, "e.name is missing; .*'zscl'"),
        (
            {"datasets": {"x": {"source": {"type": "manifest", "path": "a", "separator": "ab"}}}},
            "separator is 'ab': its length must be at most 1",
        ),
        ({"owners": ["Ada"]}, "'Ada' is neither `team:name` nor an e-mail address"),
        ({"cron_schedule": "every night"}, "'every night' is not a cron schedule"),
        ({"cron_schedule": "0 0 30 2 *"}, "'0 0 30 2 \\*' is not a cron schedule"),
        ({"cron_schedule": "0 0 3 * * *"}, "has seconds"),
        ({"evaluation": {"prompts": ["a photo"]}}, "exactly one {}"),
        ({"datasets": {"x": {"source": {"type": "folder", "pth": "."}}}}, "pth.*'path'"),
    ],
)
def test_a_wrong_file_names_the_key_the_value_and_the_way_out(project, changes, message):
    with pytest.raises(InputError, match=message):
        load(project(**changes))


def test_a_wrong_value_is_said_to_stand_where_it_was_written(project):
    root = project(seed="x")
    parent, child = root / "experiments" / "e.yaml", root / "experiments" / "child.yaml"
    child.write_text("extends: e\nbatch_size: 64\nsweep: {optimiser.weight_decay: [0.1, -1]}\n")
    line = next(n for n, text in enumerate(parent.read_text().splitlines(), 1) if "seed" in text)
    inherited = rf"child\.yaml .*\(inherited from {parent}, line {line}\): seed is 'x'"
    with pytest.raises(InputError, match=inherited):
        load_experiment_set("child", root)
    with pytest.raises(InputError, match=r"child\.yaml \(.*\), --set 'seed=y': seed is 'y'"):
        load_experiment_set("child", root, ["seed=y"])
    trouble = load_experiment_set("child", root, ["seed=1"]).troubles[0]
    assert str(trouble.error).startswith(f"{child}, line 3 (")
    assert "optimiser.weight_decay is -1: it must be at least 0" in str(trouble.error)


def test_what_is_extended_is_one_name(project):
    root = project()
    (root / "experiments" / "two.yaml").write_text("extends: [e, 3]\n")
    with pytest.raises(InputError, match=r"extends is \['e', 3\], and one name or path was exp"):
        load(root, "two")


def test_owners_and_schedules_that_dagster_takes_are_taken(project):
    for schedule in ("0 3 * * *", "*/5 8-18 * * mon-fri", "@daily"):
        assert load(project(cron_schedule=schedule)).cron_schedule == schedule
    owners = ("team:vision", "ada@example.org")
    assert load(project(owners=list(owners))).owners == owners


def test_an_environment_variable_stands_for_its_value_and_is_asked_for(project, monkeypatch):
    monkeypatch.setenv("STREAM", "sequence")
    root = project(stream={"file": "${STREAM}.json", "stages": 2}, description="a $HOME of ${x y}")
    experiment = load(root)
    assert str(experiment.stream.file) == "sequence.json"
    assert experiment.description == "a $HOME of ${x y}"
    for unset in (lambda: monkeypatch.setenv("STREAM", ""), lambda: monkeypatch.delenv("STREAM")):
        unset()
        with pytest.raises(InputError, match=r"e\.yaml, line \d+: .* variable STREAM is not set"):
            load(root)


def test_an_experiment_in_a_folder_is_found_and_extended_by_its_path(project):
    root = project()
    (root / "experiments" / "e.yaml").rename(root / "experiments" / "base.yaml")
    (root / "experiments" / "below").mkdir()
    text = (root / "experiments" / "base.yaml").read_text()
    (root / "experiments" / "below" / "first.yaml").write_text(text)
    (root / "experiments" / "e.yaml").write_text("extends: below/first\nseed: 7\n")
    assert load(root, "below/first").name == "below_first"
    assert (load(root).name, load(root).seed) == ("e", 7)
    with pytest.raises(InputError, match="did you mean 'below/first'"):
        load(root, "below/fist")
    with pytest.raises(InputError, match="there is no experiment"):
        load(root, "../datasets/birds")


def test_an_unknown_experiment_names_the_nearest(project):
    with pytest.raises(InputError, match=r"no experiment 'quickstrat'.*'quickstart'"):
        load(project("quickstart"), "quickstrat")


def test_a_name_that_is_no_file_name_is_refused(project):
    with pytest.raises(InputError, match="not a safe name"):
        load(project(), "e", "name=a b")


def test_overrides_reach_into_the_file(project):
    experiment = load(
        project(), "e", "optimiser.learning_rate=5e-4", "budget.steps=7", "precision=bf16"
    )
    assert experiment.optimiser.learning_rate == 5e-4
    assert experiment.budget.steps == 7
    assert experiment.budget.samples is None
    assert experiment.precision == "bf16"


@pytest.mark.parametrize(
    "override", ["no_value", "=1", "a..b=1", "optimiser.rate=1", "x: y", "extends=e", "sweep={}"]
)
def test_a_wrong_override_is_refused(project, override):
    with pytest.raises(InputError):
        load(project(), "e", override)


@pytest.mark.parametrize("name", ["adamw", "lion", "ademamix", "adopt", "galore_adamw"])
def test_a_mean_that_would_never_end_is_refused(project, name):
    betas = [0.9, 0.999, 1][: 3 if name == "ademamix" else 2]
    betas[-1] = 1
    given = f"optimiser={{name: {name}, learning_rate: 1e-3, betas: {betas}}}"
    with pytest.raises(InputError, match=rf"optimiser\.betas\.{len(betas) - 1} is 1"):
        load(project(), "e", given)


def test_a_child_changes_what_it_names_and_keeps_the_rest(project):
    root = project()
    child = {"extends": "e", "optimiser": {"learning_rate": 1e-3}, "budget": {"epochs": 2}}
    (root / "experiments" / "child.yaml").write_text(yaml.safe_dump(child))
    experiment = load(root, "child")
    assert experiment.name == "child"
    assert experiment.optimiser.learning_rate == 1e-3
    assert experiment.budget.epochs == 2
    assert experiment.backbone == load(root).backbone


def test_positions_replace_the_stages_of_what_is_extended(project):
    root = project()
    child = {"extends": "e", "stream": {"positions": [3]}}
    (root / "experiments" / "child.yaml").write_text(yaml.safe_dump(child))
    stream = load(root, "child").stream
    assert (stream.stages, stream.positions) == (None, (3,))
    assert load(root, "child", "stream.stages=2").stream.positions is None


def test_a_growing_stream_inherits_nothing_of_how_another_is_arranged(project):
    root = project()
    grows = {"name": "daily", "growing": "../incoming"}
    child = root / "experiments" / "child.yaml"
    child.write_text(yaml.safe_dump({"extends": "e", "stream": grows}))
    stream = load(root, "child").stream
    assert (stream.name, stream.datasets, stream.stages) == ("daily", None, None)
    child.write_text(yaml.safe_dump({"extends": "e", "stream": {**grows, "stages": 2}}))
    with pytest.raises(InputError, match="one stage each: leave out stages"):
        load(root, "child")


def test_another_form_inherits_what_it_has_and_leaves_out_the_rest(project):
    root = project()
    child = {
        "extends": "e",
        "optimiser": {"learning_rate": 1e-3, "betas": [0.9, 0.98], "clip_norm": 2},
        "method": {
            "combination": "ema_merge", "train": "biases",
            "merge": {"technique": "interpolation", "weight": 0.3},
            "preserve": {"name": "l2", "strength": 3, "to": "initial"},
        },
    }  # fmt: skip
    (root / "experiments" / "child.yaml").write_text(yaml.safe_dump(child))
    sgd = load(root, "child", "optimiser.name=sgd").optimiser
    assert (sgd.name, sgd.learning_rate, sgd.clip_norm) == ("sgd", 1e-3, 2)
    method = load(root, "child", "method.preserve.name=ewc").method
    assert (method.preserve.name, method.preserve.strength) == ("ewc", 3)
    changes = (
        "method.merge.technique=ties", "method.name=lora", "method.adapters=merge_each_stage",
        "method.preserve=null",
    )  # fmt: skip
    method = load(root, "child", *changes).method
    assert (method.name, method.merge.technique, method.combination) == (
        "lora", "ties", "ema_merge"
    )  # fmt: skip
    assert load(root, "child", "method.combination=zs_merge").method.start_from == "initial"
    method = load(root, "child", "method.start_from=trained").method
    assert (method.start_from, method.deploy) == ("trained", "with_previous")
    with pytest.raises(InputError, match=r"unknown key 'optimiser\.betas'"):
        load(root, "child", "optimiser.name=sgd", "optimiser.betas=[0.9, 0.95]")


def test_a_loop_of_extends_is_refused(project):
    root = project()
    for name, parent in (("a", "b"), ("b", "a")):
        (root / "experiments" / f"{name}.yaml").write_text(f"extends: {parent}\n")
    with pytest.raises(InputError, match="extends itself"):
        load(root, "a")


def test_a_key_given_twice_is_refused(project):
    root = project()
    (root / "experiments" / "e.yaml").write_text("seed: 1\nseed: 2\n")
    with pytest.raises(InputError, match="'seed' is given twice"):
        load(root)


def test_yaml_cannot_make_objects(project):
    root = project()
    (root / "experiments" / "e.yaml").write_text("seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(InputError, match="the tag !!python"):
        load(root)


def test_a_dataset_declared_twice_is_refused(project):
    root = project()
    (root / "datasets" / "more.yaml").write_text((root / "datasets" / "birds.yaml").read_text())
    with pytest.raises(InputError, match="'birds' is declared in"):
        build_graph([load_experiment("e", root)])


def test_an_experiment_brings_its_own_datasets(project):
    root = project(datasets={"cats": {"source": {"type": "folder", "path": "cats"}}})
    loaded = load_experiment("e", root)
    shipped = set(shipped_datasets().declared)
    assert set(loaded.datasets) == {"birds", "cats", *benchmark_datasets(), *shipped}
    assert loaded.bases["cats"] == root / "experiments"


def test_the_json_schema_knows_every_key_and_all_shipped_experiments_load(request):
    schema = json_schema()
    assert {"backbone", "stream", "mixture", "extends"} <= schema["properties"].keys()
    shipped_schema = request.config.rootpath / "experiments" / "schema.json"
    assert json.loads(shipped_schema.read_text()) == schema, "fomo schema experiments/schema.json"
    shipped = load_all(request.config.rootpath)
    assert {"quickstart", "quickstart_without_replay", "quickstart_merge"} <= {
        loaded.experiment.name for loaded in shipped.experiments
    }


def test_a_dataset_that_is_declared_without_a_name_is_told_where_it_goes(tmp_path):
    (tmp_path / "datasets").mkdir()
    path = tmp_path / "datasets/birds.yaml"
    path.write_text("source: {type: folder, path: /birds}\nunreadable_limit: 0.5\n")
    loaded = load_datasets(tmp_path)
    assert loaded.wrong["birds"].startswith(f"{path} begins with the keys of a dataset")
    assert loaded.wrong.keys() == {"birds"}
    path.write_text("source:\n  source: {type: folder, path: /birds}\n")
    assert load_datasets(tmp_path).declared.keys() >= {"source"}  # a name like any other

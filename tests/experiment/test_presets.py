"""The shipped experiments of FoMo-in-Flux, against a release that is there in name alone."""

import json

import pytest
import yaml

from fomo_dagster.data.benchmark.registry import benchmark_datasets
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.declared_datasets import load_datasets
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.work.checkpoints import drawn_samples

ADAPTATION = {d.name: d for d in benchmark_datasets().values() if d.role == "adaptation"}
PRESETS = {
    "debug": 4, "default": 20, "default_vit_b16": 20, "ema_merge": 20, "ema_task_arithmetic": 20,
    "fast": 20, "full_finetune": 20, "offline_merge": 20,
    "offline_merge_dataset_incremental": 20, "offline_merge_without_replay": 20,
    "oracle": 1, "simple_finetune": 1, "zero_shot": 0,
}  # fmt: skip


@pytest.fixture
def release(tmp_path, monkeypatch):
    """Stream files of one concept for each adaptation dataset, by the release's folder names."""
    folder = tmp_path / "release" / "stream_construction"
    folder.mkdir(parents=True)
    entries = [f"{dataset.folder}+++some class" for dataset in ADAPTATION.values()]
    for name in ("random_sequence_1", "random_sequence_1_fast", "time_incremental_dschunked_1"):
        (folder / f"{name}.json").write_text(json.dumps(entries))
    (folder / "debug_seq_small.json").write_text(json.dumps(entries[:5]))
    monkeypatch.setenv("FOMO_RELEASE", str(tmp_path / "release"))
    monkeypatch.setenv("FOMO_PRETRAINING_POOL", str(tmp_path / "laion"))
    return tmp_path


def load(request, name):
    return load_experiment(f"fomo_in_flux/{name}", request.config.rootpath)


def test_every_shipped_file_is_held_here(request):
    folder = request.config.rootpath / "experiments" / "fomo_in_flux"
    assert {path.stem for path in folder.iterdir()} == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_its_graph(request, release, name):
    loaded = load(request, name)
    graph = build_graph([loaded])
    experiment = loaded.experiment
    assert experiment.name == f"fomo_in_flux_{name}"
    trained = [node for node in graph.nodes.values() if node.kind == "trained"]
    assert len(trained) == PRESETS[name]
    last = f"{experiment.name}/evaluation_{PRESETS[name]:03d}"
    roles = graph.nodes[last].roles
    few = {"debug": {*list(ADAPTATION)[:5], "cifar10"}, "simple_finetune": {"caltech101"}}
    assert experiment.evaluation.subset == (1 if name == "zero_shot" else 0.1)
    if trained:
        assert experiment.max_logit_scale is None
    assert roles.keys() == few.get(name, benchmark_datasets().keys())
    if name not in few:
        assert {d for d, role in roles.items() if role == "adaptation"} == ADAPTATION.keys()


def test_the_defaults_are_the_benchmarks(request, release):
    experiment = load(request, "default").experiment
    assert (experiment.batch_size, experiment.budget.samples) == (512, 1_420 * 512)
    assert load(request, "oracle").experiment.budget.samples == 20 * 1_420 * 512
    assert load(request, "oracle").experiment.mixture.buffer == 0
    assert experiment.optimiser.learning_rate == 1e-5
    rows = experiment.mixture.of_stage(2).sizes(512, 1).at(0)
    assert rows == {"update": 175, "buffer": 168, "pretraining": 169}
    merging = load(request, "ema_merge").experiment.method
    assert (merging.start_from, merging.merge.weight) == ("deployed", 0.5)
    arithmetic = load(request, "ema_task_arithmetic").experiment.method
    assert (arithmetic.start_from, arithmetic.merge.technique) == ("deployed", "task_arithmetic")
    full = load(request, "full_finetune").experiment
    assert (full.backbone.architecture, full.budget.mafs) == ("ViT-B-16", 1.8e9)


@pytest.mark.parametrize(
    ("name", "architecture", "rows", "steps"),
    [
        ("debug", "ViT-B-32", {"update": 175, "buffer": 168, "pretraining": 169}, 19),
        ("oracle", "ViT-B-16", {"update": 343, "pretraining": 169}, 28_400),
        ("simple_finetune", "ViT-B-32", {"update": 256, "pretraining": 256}, 292),
    ],
)
def test_small_and_single_updates_are_the_releases(
    request, release, name, architecture, rows, steps
):
    experiment = load(request, name).experiment
    assert experiment.backbone.architecture == architecture
    sizes = experiment.mixture.of_stage(2).sizes(512, 1).at(0)
    assert {pool: size for pool, size in sizes.items() if size} == rows
    assert experiment.budget.known_steps(experiment.batch_size) == steps
    assert drawn_samples(experiment) == 512 * steps


def test_task_vectors_are_added_at_the_releases_scales(request, release):
    scales = {"ema_task_arithmetic": 0.1, "offline_merge_dataset_incremental": 0.3}
    for name, scale in scales.items():
        merge = load(request, name).experiment.method.merge
        assert (merge.technique, merge.scale) == ("task_arithmetic", scale)
    stream = load(request, "offline_merge_dataset_incremental").experiment.stream
    assert (stream.file.stem, stream.stages) == ("time_incremental_dschunked_1", 20)


def test_updates_of_offline_merges_depend_on_no_other_update(request, release):
    for name, pools in (("offline_merge", 2), ("offline_merge_dataset_incremental", 1)):
        graph = build_graph([load(request, name)])
        trained = [node for node in graph.nodes.values() if node.kind == "trained"]
        assert {node.start_key for node in trained} == {"backbones/vit_b16_laion2b"}
        data = {"pools", "streams"} & {key.partition("/")[0] for key in trained[0].inputs}
        assert len(data) == pools
        last = graph.nodes[f"fomo_in_flux_{name}/deployed_{len(trained):03d}"]
        assert last.model_keys == tuple(node.key for node in trained)


def test_a_release_that_is_not_declared_is_named(request, release, monkeypatch):
    monkeypatch.delenv("FOMO_RELEASE")
    with pytest.raises(InputError, match=r"zero_shot.yaml.*FOMO_RELEASE is not set"):
        load(request, "default")


def test_nothing_of_a_pretraining_pool_is_asked_where_nothing_is_trained(
    request, release, monkeypatch
):
    monkeypatch.delenv("FOMO_PRETRAINING_POOL")
    assert load(request, "zero_shot").experiment.pool is None


def test_a_name_that_is_no_preset_names_the_nearest(request, release):
    with pytest.raises(InputError, match="did you mean 'fomo_in_flux/oracle'"):
        load(request, "orcale")


def test_a_dataset_under_a_handle_of_the_benchmark_has_its_values(tmp_path):
    (tmp_path / "datasets").mkdir()
    source = {"type": "torchvision", "dataset": "Flowers102", "root": "/data"}
    declared = {
        "flowers102": {"source": source},
        "blooms": {"source": source},
        "dtd": {"source": {"type": "folder", "path": "/data"}, "prompt": "texture: {}"},
    }
    (tmp_path / "datasets" / "mine.yaml").write_text(yaml.safe_dump(declared))
    datasets = load_datasets(tmp_path).declared
    benchmark = benchmark_datasets()
    assert datasets["flowers102"].prompt == benchmark["flowers102"].prompt
    assert datasets["flowers102"].year == benchmark["flowers102"].year
    assert datasets["blooms"].prompt != datasets["flowers102"].prompt
    assert (datasets["dtd"].prompt, datasets["dtd"].domain) == (
        "texture: {}", benchmark["dtd"].domain
    )  # fmt: skip

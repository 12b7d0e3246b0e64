"""The addresses of what experiment files have always declared: where one of these changes, every
training that anyone has stored is computed again."""

import pytest

from fomo_dagster.graph.core.facts import ONLY, Facts


def recipe(project, key, *overrides):
    node = project.graph("toy", *overrides).nodes[key]
    facts = {key: Facts(f"version of {key}") for key in node.inputs}
    return node.recipes(facts)[ONLY]


def digest(project, key, *overrides):
    return recipe(project, key, *overrides).digest


LOCKED = "method.train=locked_image"
ALWAYS = {
    ("backbones/toy",): "2eb48e62370aafbf716bca7bc0c1e74b",
    ("toy/trained_001",): "fc6e370cf05cbd822f80650015a50f0f",
    ("toy/trained_002",): "6ee83d37f33cf75202c7a4672444d7e8",
    ("toy/trained_002", LOCKED): "75b7dc13c567d9e5d81a0c684e4a88d6",
}
SINCE_PYTORCH_RESIZES = {
    ("backbones/toy",): "9390499dcabae360607a5aade14fcce4",
    ("toy/trained_001",): "4c44afdaa12c39957d32f6657ee71308",
    ("toy/trained_002",): "a76954a0c34369ef3215841b987289de",
    ("toy/trained_002", LOCKED): "daaec27034e0c3f4e5f414b7a5e30770",
}


def test_trainings_keep_the_addresses_that_they_have_always_had(project):
    for asked, address in ALWAYS.items():
        earlier = recipe(project, *asked).earlier
        assert earlier is not None
        assert "pixels" not in earlier.parameters
        assert earlier.digest == address


def test_what_is_begun_now_keeps_its_address(project):
    for asked, address in SINCE_PYTORCH_RESIZES.items():
        assert recipe(project, *asked).parameters["pixels"] == 2
        assert digest(project, *asked) == address


def test_a_look_for_near_duplicates_changes_no_address(project):
    key = "toy/trained_002"
    assert digest(project, key, "near_duplicates={distance: 3}") == digest(project, key)


def test_each_selection_has_an_address_of_its_own(project):
    selections = ("all", "locked_image", "layer_norms", "{include: [ln_*]}", "{exclude: [ln_*]}")
    digests = {digest(project, "toy/trained_001", f"method.train={s}") for s in selections}
    assert len(digests) == len(selections)


def test_adapters_that_persist_need_their_base_and_their_predecessor(project):
    for mode, bases in (("persist", [False, True]), ("merge_each_stage", [False, False])):
        override = f"method={{name: lora, rank: 2, adapters: {mode}}}"
        nodes = project.graph("toy", override).nodes
        for stage, has_base in enumerate(bases, start=1):
            node = nodes[f"toy/trained_{stage:03d}"]
            start = "backbones/toy" if stage == 1 else "toy/trained_001"
            assert node.inputs[0] == start
            assert ("backbones/toy" in node.inputs[1:]) is has_base
            assert len(set(node.inputs)) == len(node.inputs)


def test_what_adapters_are_is_identity_and_where_they_are_deployed_is_not(project):
    method = "name: lora, rank: 2, adapters: merge_each_stage"
    key = "toy/trained_001"
    same = digest(project, key, f"method={{{method}}}")
    assert digest(project, key, f"method={{{method}, merge: {{weight: 0.3}}}}") == same
    others = ("scale: 2.0", "targets: [query]", "dropout: 0.1")
    changed = {digest(project, key, f"method={{{method}, {other}}}") for other in others}
    changed.add(digest(project, key, "method={name: dora, rank: 2, adapters: merge_each_stage}"))
    assert len(changed | {same}) == 5


OPTIONS_SINCE = {
    "optimiser.weight_decay_on": ("all", "matrices"),
    "optimiser.layer_decay": ("1", "0.7"),
    "schedule": ("{name: cosine}", "{name: cosine, recovery: dynamic}"),
    "scale_learning_rate": ("null", "{reference_batch_size: 64}"),
    "tower_warmup": ("null", "{length: 0.2}"),
    "loss": ("{name: clip, label_smoothing: 0.0}", "{label_smoothing: 0.1}"),
}
"""Options that trainings got when many were stored: their defaults, and another value."""


@pytest.mark.parametrize("option", OPTIONS_SINCE)
def test_an_option_is_identity_but_at_the_default_that_it_has_always_had(project, option):
    default, other = OPTIONS_SINCE[option]
    for key in ("backbones/toy", "toy/trained_001"):
        prefix = "backbone.pretraining." if key == "backbones/toy" else ""
        assert digest(project, key, f"{prefix}{option}={default}") == digest(project, key)
        assert digest(project, key, f"{prefix}{option}={other}") != digest(project, key)


@pytest.mark.parametrize("option", ["compile=true", "gradient_checkpointing=true"])
def test_how_a_training_runs_is_no_identity(project, option):
    key = "toy/trained_001"
    assert digest(project, key, f"execution.{option}") == digest(project, key)


def test_what_is_retained_is_no_identity(project):
    for key in ("backbones/toy", "toy/trained_002"):
        graph = project.graph("toy", "retention={last: 1, every: 3, deployed_only: true}")
        assert graph.code_versions[key] == project.graph().code_versions[key]
        assert digest(project, key, "retention={last: 1}") == digest(project, key)


def test_a_subset_is_no_part_of_what_a_retrieval_dataset_scores(project):
    path = project.root / "datasets/toy.yaml"
    path.write_text(path.read_text().replace("old:\n", "old:\n  task: retrieval\n"))
    whole, subset = (
        project.graph("toy", f"evaluation.subset={share}").nodes["toy/evaluation_001"].declared
        for share in (1, 0.1)
    )
    assert whole["old"] == subset["old"]
    assert whole["birds"] != subset["birds"]


def test_a_weighted_mean_of_task_vectors_has_another_address_than_the_sum_it_was(project):
    def declared(technique):
        combination = "combination: offline_merge, joint: {weighting: linear}"
        method = f"method={{{combination}, merge: {{technique: {technique}}}}}"
        return project.graph("toy", method).nodes["toy/deployed_003"].declared

    assert declared("ties")["weighted_version"] == 2
    assert "weighted_version" not in declared("task_arithmetic")


def test_importances_that_add_up_otherwise_change_the_stages_that_go_on_with_them(project):
    def declared(stage, name):
        graph = project.graph("toy", f"method={{preserve: {{name: {name}}}}}")
        nodes = [node for node in graph.nodes.values() if node.kind == "trained"]
        return {node.stage: node.declared for node in nodes}[stage]

    assert declared(2, "si")["carried_version"] == 2
    assert "carried_version" not in declared(1, "si")
    assert "carried_version" not in declared(2, "mas")

"""The addresses of what experiment files have always declared: where one of these changes, every
training that anyone has stored is computed again."""

import pytest

from fomo_dagster.graph.node import ONLY, Facts


def digest(project, key, *overrides):
    node = project.graph("toy", *overrides).nodes[key]
    facts = {key: Facts(f"version of {key}") for key in node.inputs}
    return node.recipes(facts)[ONLY].digest


def test_trainings_keep_the_addresses_that_they_have_always_had(project):
    assert digest(project, "backbones/toy") == "2eb48e62370aafbf716bca7bc0c1e74b"
    assert digest(project, "toy/trained_001") == "055da376069fe589e5877664396693e7"
    assert digest(project, "toy/trained_002") == "1e5a55b6033b796370064ec284ed50ea"
    assert digest(project, "toy/trained_002", "method.train=locked_image") == (
        "ab701723f9d228de748e15684912168a"
    )


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

"""The two axes, the names of their combinations, and what goes with what."""

import pytest
import yaml
from pydantic import TypeAdapter

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.files import experiment_files
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.merging.over_time import COMBINATIONS
from fomo_dagster.methods.registry import AnyMethod


def method(text):
    return TypeAdapter(AnyMethod).validate_python(yaml.safe_load(f"{{{text}}}"))


@pytest.mark.parametrize(
    ("text", "start_from", "deploy"),
    [
        ("", "trained", "trained"),
        ("merge: {}", "trained", "with_previous"),
        ("start_from: deployed, merge: {}", "deployed", "with_previous"),
        ("start_from: initial", "initial", "trained"),
        ("deploy: fold, merge: {}", "trained", "fold"),
        ("start_from: joint, deploy: trained, merge: {}", "joint", "trained"),
        ("combination: ema_merge, start_from: deployed", "deployed", "with_previous"),
    ],
)
def test_what_is_left_out_has_its_default(text, start_from, deploy):
    found = method(text)
    assert (found.start_from, found.deploy) == (start_from, deploy)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_combination_sets_both_axes_and_merges_by_interpolation(name):
    found = method(f"combination: {name}")
    assert (found.start_from, found.deploy) == COMBINATIONS[name]
    assert (found.merge.technique, found.merge.weight) == ("interpolation", 0.5)
    assert method(f"combination: {name}, merge: {{technique: ties}}").merge.technique == "ties"


def test_adapters_that_persist_go_with_combinations_that_train_on():
    lora = "name: lora, rank: 2"
    assert method(f"{lora}, combination: ft_merge").adapters == "persist"
    with pytest.raises(ValueError, match="start_from must be trained or unannealed, not initial"):
        method(f"{lora}, combination: offline_merge")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("combination: emamerge", "method.combination is 'emamerge': .* did you mean 'ema_merge'"),
        (
            "combination: zs_merge, start_from: trained",
            "start_from is 'trained', but combination 'zs_merge' sets it to 'initial': leave out",
        ),
        ("combination: ema_merge, deploy: joint", "deploy is 'joint', but combination"),
        ("start_from: jiont", "method.start_from is 'jiont'; did you mean 'joint'"),
        ("deploy: fold", r"deploy: fold needs a merge, for example merge: \{technique: interp"),
        ("start_from: joint", r"start_from: joint needs a merge, for example merge: \{technique"),
        ("start_from: deployed", "start_from: deployed needs a merge; without one, use trained"),
        ("start_from: deployed, deploy: trained, merge: {}", "without one, use trained"),
        (
            "deploy: trained, merge: {}",
            "nothing is merged with start_from: trained and deploy: trained",
        ),
        ("merge: {}, joint: {weighting: linear}", "joint is given, but nothing is merged jointly"),
        ("joint: {weighting: linaer}", "method.joint.weighting is 'linaer'; did you.*'linear'"),
        ("joint: {reversed: true}", "uniform weights are the same when reversed"),
        ("joint: {include_zero_shot: true}", "unknown key 'method.joint.include_zero_shot'"),
        ("deploy: joint, merge: {technique: slerp}", "karcher takes any number"),
        ("deploy: joint, merge: {weight: 0.3}", "weight 0.3.*leave them out, and give joint.weigh"),
        (
            "deploy: joint, merge: {technique: ties, coefficients: [1, 2]}",
            "coefficients of ties are for a fixed number of models",
        ),
        (
            "deploy: joint, merge: {technique: karcher}, joint: {weighting: sqrt}",
            "karcher weighs all models equally, not sqrt: leave out joint.weighting",
        ),
        (
            "start_from: joint, merge: {technique: ties}, joint: {include_initial: true}",
            "ties already starts from θ₀, which cannot also be .*: leave out joint.include_initial",
        ),
        (
            "deploy: fold, merge: {technique: weighted_mean, coefficients: [0.5, 0.3, 0.2]}",
            "weighted_mean cannot merge two models: it has 3 coefficients",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_way_out(project, text, message):
    with pytest.raises(InputError, match=message):
        project.load("toy", f"method={{{text}}}")


BY_TECHNIQUE = {
    *("opcm", "tsv_merge", "iso_c", "iso_cts", "knots", "wudi"),
    *("nearswap", "nuslerp", "multislerp", "fisher", "regmean"),
}


def test_every_combination_has_an_experiment_over_the_quickstart(request):
    project = request.config.rootpath
    files = {path.stem for path in (project / "experiments" / "merging").glob("*.yaml")}
    assert files == COMBINATIONS.keys() | BY_TECHNIQUE
    assert "merging" not in "".join(experiment_files(project))  # Dagster's UI shows the first few
    quickstart = build_graph([load_experiment("quickstart", project)]).nodes
    for name in files:
        loaded = load_experiment(f"merging/{name}", project)
        assert loaded.experiment.name == f"merging_{name}"
        if name in COMBINATIONS:
            assert loaded.experiment.method.combination == name
        else:
            assert loaded.experiment.method.merge.technique == name
        nodes = build_graph([loaded]).nodes
        shared = [key for key in nodes if key.startswith(("streams/", "pools/", "backbones/"))]
        assert all(nodes[key] == quickstart[key] for key in shared)
        first = nodes[f"merging_{name}/trained_001"]
        assert first.declared == quickstart["quickstart/trained_001"].declared

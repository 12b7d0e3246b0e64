"""Names that something else has, or that Dagster cannot have, are refused when they are read."""

import pytest
from dagster._core.definitions.utils import DISALLOWED_NAMES

from assets.building import build_definitions
from fomo_dagster.cli.running import COMMANDS
from fomo_dagster.errors import InputError
from fomo_dagster.graph.build.builder import build_graph, build_project
from fomo_dagster.graph.build.names import RESERVED, WORDS
from resources.run_contexts import RunContexts

ARRIVING = {"name": "live", "growing": "../incoming"}


def everything_named(project, monkeypatch):
    """The names that Dagster is given of a project with all that there can be."""
    looked_at = {"validation": {"share": 0.3}, "near_duplicates": {"similarity": 0.9}}
    project.write("toy", cron_schedule="0 3 * * *", **looked_at)
    project.write("growing", stream=ARRIVING, release={"name": "shop", "forms": ["card"]})
    (project.root / "incoming").mkdir()
    (project.root / "comparisons").mkdir()
    (project.root / "comparisons/pair.yaml").write_text("methods: [toy, growing]\n")
    (project.root / "galleries").mkdir()
    (project.root / "galleries/pets.yaml").write_text("dataset: birds\nrelease: shop\n")
    monkeypatch.setenv("FOMO_ANNOUNCE_WEBHOOK", "https://example.com/hook")
    definitions = build_definitions(
        build_project(project.root), RunContexts.of(project.home), COMMANDS
    )
    repository = definitions.get_repository_def()
    specs = list(definitions.resolve_all_asset_specs())
    return {
        *(spec.group_name for spec in specs),
        *(spec.key.path[0] for spec in specs),
        *(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        *(schedule.name for schedule in repository.schedule_defs),
        *(sensor.name for sensor in repository.sensor_defs),
    }


def test_every_name_of_ours_is_reserved(project, monkeypatch):
    own = {"toy", "growing", "toy_schedule", "comparisons_pair", "galleries_pets"}
    assert everything_named(project, monkeypatch) - own == RESERVED.keys()


def test_every_word_that_names_no_job_of_dagsters_is_known():
    assert WORDS >= DISALLOWED_NAMES


@pytest.mark.parametrize("name", ["leaderboard", "Shards", "arrivals", "config", "lambda"])
def test_a_name_of_something_else_is_refused_and_says_whose_it_is(project, name):
    (project.root / f"experiments/{name}.yaml").write_text("extends: toy\n")
    what = RESERVED.get(name.lower(), "nothing in Dagster")
    with pytest.raises(InputError, match=rf"{name}\.yaml: .*the name of {what}: give it another"):
        project.graph(name)
    sweep = f"extends: toy\nname: {name}\nsweep: {{seed: [0, 1]}}\n"
    (project.root / f"experiments/{name}.yaml").write_text(sweep)
    troubles = build_project(project.root).troubles
    assert len(troubles) == 2
    assert all(what in trouble.sentence for trouble in troubles)


def pair(project, **changes):
    project.write("other", **changes)
    return build_graph([project.load(), project.load("other")])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stream": {"name": "Toy", "datasets": ["birds"], "stages": 1}}, "streams/Toy/order"),
        ({"stream": {"name": "toy__order", "datasets": ["birds"], "stages": 1}}, "toy__order"),
        ({"datasets": {"BIRDS": {"source": {"type": "folder", "path": "../images/cats"}}},
          "stream": {"name": "s", "datasets": ["BIRDS"], "stages": 1}}, "shards/BIRDS"),
        ({"stream": {"name": "s", "datasets": ["birds"], "stages": 1},
          "pretraining_pool": {"name": "TOY", "datasets": ["old"]}}, "pools/TOY"),
    ],
)  # fmt: skip
def test_assets_that_cannot_be_told_apart_everywhere_are_refused(project, changes, said):
    with pytest.raises(InputError, match=f"experiment 'other': the assets .*{said}"):
        pair(project, **changes)


def test_names_that_only_look_alike_are_taken(project):
    graph = pair(project, stream={"name": "toy_order", "datasets": ["birds"], "stages": 1})
    assert "streams/toy_order/chunk_001" in graph.nodes

"""New images update what they touch, once: Dagster's automation, tick by tick."""

import dagster as dg
import pytest

from assets.building import build_definitions
from assets.specs import key_of
from fomo_dagster.cli.planning import resolve_request
from fomo_dagster.cli.running import COMMANDS
from resources.run_contexts import RunContexts

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::dagster.BetaWarning")]


class Automation:
    """The daemon's work by hand: observe, evaluate, run what is requested, again."""

    def __init__(self, project) -> None:
        self.project = project
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor = None
        self.load()

    def load(self) -> None:
        """What a reload of the code location does."""
        request = resolve_request("toy", [])
        self.graph = request.graph
        self.definitions = build_definitions(
            self.graph, RunContexts.of(self.project.home), COMMANDS
        )

    def observe(self) -> None:
        """Run the job that the schedule runs."""
        job = self.definitions.resolve_job_def("observe_sources")
        assert job.execute_in_process(instance=self.instance).success

    def materialise_all(self) -> None:
        job = self.definitions.resolve_job_def("toy")
        assert job.execute_in_process(instance=self.instance).success

    def tick(self, *, fails: bool = False) -> set[str]:
        """What one tick of the sensor requests; it is run."""
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, cursor=self.cursor
        )
        self.cursor = result.cursor
        requested = {
            node.key for node in self.graph.nodes.values()
            if result.get_num_requested(key_of(node.key))
        }  # fmt: skip
        if requested:
            done = dg.materialize(
                [*self.definitions.assets],
                selection=dg.AssetSelection.assets(*map(key_of, requested)),
                resources=self.definitions.resources,
                instance=self.instance,
                raise_on_error=False,
            )
            assert done.success != fails
        return requested

    def ticks(self, most: int = 12) -> list[set[str]]:
        """What ticks request, until two in a row request nothing."""
        requested: list[set[str]] = []
        while requested[-2:] != [set(), set()]:
            assert len(requested) < most, f"it never ends: {requested}"
            requested.append(self.tick())
        return requested[:-2]


@pytest.fixture
def automation(finished_project):
    """On a project that Dagster has seen whole: every asset is there, and nothing is requested."""
    made = Automation(finished_project)
    made.tick()
    made.materialise_all()
    made.observe()
    made.ticks()
    return made


def test_the_first_tick_on_an_empty_instance_requests_nothing(project):
    assert Automation(project).ticks() == []


def test_what_was_never_made_is_made_once_after_the_first_observation(project):
    automation = Automation(project)
    automation.tick()
    automation.observe()
    assert automation.ticks() == [set(automation.graph.nodes)]
    assert all(entry.current for entry in resolve_request("toy", []).plan())


def test_a_tick_without_news_requests_nothing_for_ever(automation):
    for _ in range(3):
        automation.observe()
        assert automation.ticks() == []


def test_a_new_training_image_updates_what_it_touches_and_comes_to_rest(automation):
    project = automation.project
    before = project.artifacts()
    project.add_image("cats", "train", "lynx", 1004)
    automation.observe()
    requested = set().union(*automation.ticks())
    assert requested >= {"shards/cats", "streams/toy/chunk_003", "toy/trained_003"}
    assert all(entry.current for entry in resolve_request("toy", []).plan())
    new = project.artifacts() - before
    made = {
        node.key for node in automation.graph.nodes.values()
        if any(
            f"{kind}/{digest}" in new
            for kind, digest in project.home.heads.read(node.key).artifacts.values()
        )
    }  # fmt: skip
    assert made == {
        "shards/cats", "streams/toy/chunk_003", "toy/trained_003", "toy/evaluation_003",
        "toy/scores", "leaderboard",
    }  # fmt: skip
    automation.observe()
    assert automation.ticks() == []


def test_an_image_that_is_only_touched_requests_nothing(automation):
    (automation.project.root / "images/cats/train/lion/0.png").touch()
    automation.observe()
    assert automation.ticks() == []


def test_a_changed_declaration_requests_its_closure_once(automation):
    automation.project.write("toy", optimiser={"learning_rate": 5e-4})
    automation.load()
    ticks = automation.ticks()
    expected = {f"toy/{kind}_{t:03d}" for kind in ("trained", "evaluation") for t in (1, 2, 3)}
    assert set().union(*ticks) == expected | {"toy/scores", "leaderboard"}
    assert all(entry.current for entry in resolve_request("toy", []).plan())


def test_some_chunks_of_a_stream_can_be_asked_for_alone(automation):
    heads = automation.project.home.heads
    before = {t: heads.read(f"streams/toy/chunk_{t:03d}").checked_at for t in (1, 2, 3)}
    assert dg.materialize(
        [*automation.definitions.assets],
        selection=dg.AssetSelection.assets(key_of("streams/toy/chunk_002")),
        resources=automation.definitions.resources,
        instance=automation.instance,
    ).success
    after = {t: heads.read(f"streams/toy/chunk_{t:03d}").checked_at for t in (1, 2, 3)}
    assert [t for t in before if before[t] != after[t]] == [2]


def test_the_first_tick_asks_for_what_was_missing_or_changed_before_it(finished_project):
    """As where an experiment ran for long before anybody switched the sensor on."""
    automation = Automation(finished_project)
    automation.materialise_all()
    automation.observe()
    finished_project.write("toy", optimiser={"learning_rate": 5e-4})
    finished_project.add_image("cats", "train", "lynx", 1004)
    finished_project.home.heads.remove("pools/toy")
    automation.load()
    automation.observe()
    first, *later = automation.ticks()
    assert {"toy/trained_001", "shards/cats", "pools/toy", "toy/scores"} <= first
    assert all(entry.current for entry in resolve_request("toy", []).plan())
    assert later == []


def test_what_failed_is_asked_for_once_and_again_when_it_changes(finished_project):
    automation = Automation(finished_project)
    automation.observe()
    broken = finished_project.root / "images/cats/train/lynx/0.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    automation.observe()
    assert automation.tick(fails=True) == set(automation.graph.nodes)
    assert [automation.tick() for _ in range(3)] == [set()] * 3
    broken.write_bytes(whole)
    automation.observe()
    assert "shards/cats" in automation.tick()

"""A finished project with a gallery, whose stages are put live without being judged."""

import pytest
import yaml

from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.releases.promoting import promote, roll_back
from fomo_dagster.releases.records import Candidate, ReleaseLog


class Shop:
    """A project in which stages of `toy` go live as `shop`."""

    def __init__(self, project):
        self.project = project
        self.home = project.home
        self.log = ReleaseLog(self.home, "shop")

    def declare(self, name="pets", **declared):
        """Write the file of a gallery."""
        path = self.project.root / "galleries" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"dataset": "birds", "release": "shop", **declared}))
        return path

    def candidate(self, stage):
        head = self.home.heads.read(f"toy/trained_{stage:03d}" if stage else "backbones/toy")
        (weights,) = head.artifacts.values()
        backbone = self.project.load().experiment.backbone
        return Candidate(
            experiment="toy", stage=stage, checkpoint=head.data_version, weights=weights,
            backbone=backbone.model_dump(mode="json", exclude_defaults=True),
            evaluations={}, scores={}, lineage={},
        )  # fmt: skip

    def put_live(self, stage):
        live = self.log.read().live
        promote(self.log, self.candidate(stage), [], live, "manual", first=live is None)

    def go_back(self):
        roll_back(self.log)

    def context(self):
        return RunContext(build_project(self.project.root), self.home)

    def make(self, name="pets"):
        """Materialise a gallery, and first the shards that it needs."""
        context = self.context()
        node = context.graph.nodes[f"galleries/{name}"]
        for key in node.inputs:
            materialise(key, context)
        return materialise(node.key, context)


@pytest.fixture
def shop(finished_project):
    made = Shop(finished_project)
    made.declare()
    return made

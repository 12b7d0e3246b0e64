"""Which weights each stage of an experiment starts from and deploys, and the merges for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.graph.core.keys import live_start_key
from fomo_dagster.graph.nodes.live_start import LiveStartNode
from fomo_dagster.graph.nodes.merged import DeployedNode, StartNode
from fomo_dagster.graph.work.merge_repair import Repairing
from fomo_dagster.merging.over_time import MERGES_OF_TWO, UNMERGED, MergingOverTime, Rule

N = TypeVar("N", bound=DeployedNode)


@dataclass(frozen=True, kw_only=True)
class WeightsOverTime:
    """A method's two axes as assets of one experiment.

    Both axes are rules that give weights after a stage. Stage t starts from what its rule gives
    after t - 1. If both are the same rule, they are the same assets.
    """

    experiment: str
    method: MergingOverTime
    base_key: str  # θ₀
    backbone: Backbone
    chunk_keys: Sequence[str]
    brought_keys: Sequence[str] = ()
    """The chunks that these are of, which may have near duplicates."""
    release: str | None = None  # the name that stages go live under

    def trained(self, stage: int) -> str:
        """The key of what training a stage gives."""
        return f"{self.experiment}/trained_{stage:03d}"

    def statistics(self, stage: int) -> str:
        """The key of statistics of what training a stage saw of its chunk."""
        assert self.method.merge is not None
        return f"{self.experiment}/{self.method.merge.statistics}_{stage:03d}"

    def start(self, stage: int) -> str:
        """The key of what a stage starts from."""
        if self.method.start_from == "live":
            return live_start_key(self.experiment, stage)
        return self._after(stage - 1, self.method.start_rule)

    def candidate(self, stage: int) -> str:
        """The key of a stage that is up for release."""
        return f"{self.experiment}/candidate_{stage:03d}"

    def deployed(self, stage: int) -> str:
        """The key of what a stage deploys."""
        return self._after(stage, self.method.deploy)

    def before_training(self, stage: int) -> Iterator[StartNode | LiveStartNode]:
        """What a stage starts from, if that is a merge which the stage before does not deploy, or
        what is live."""
        rule = self.method.start_rule
        if rule == "live":
            assert self.release is not None
            yield LiveStartNode(
                key=self.start(stage), experiment=self.experiment, stage=stage,
                release=self.release, backbone=self.backbone, base_key=self.base_key,
                own_key=self.brought_keys[stage - 1], before_key=self.candidate(stage - 1),
                chunk_keys=tuple(self.chunk_keys[: stage - 1]),
                brought_keys=tuple(self.brought_keys[: stage - 1]),
            )  # fmt: skip
            return
        if rule != self.method.deploy and self._merges(stage - 1, rule):
            yield self._merge(StartNode, self.start(stage), stage, stage - 1, rule)

    def after_training(self, stage: int) -> Iterator[DeployedNode]:
        """The merge that a stage deploys, if it deploys one."""
        rule = self.method.deploy
        if self._merges(stage, rule):
            yield self._merge(DeployedNode, self.deployed(stage), stage, stage, rule)

    def _after(self, stage: int, rule: Rule) -> str:
        if stage == 0 or rule == "initial":
            return self.base_key
        if not self._merges(stage, rule):
            return self.trained(stage)
        if rule == self.method.deploy:
            return f"{self.experiment}/deployed_{stage:03d}"
        return f"{self.experiment}/start_{stage + 1:03d}"

    def _merges(self, stage: int, rule: Rule) -> bool:
        """Whether the rule merges after the stage; one model alone is taken as it is."""
        if stage == 0 or rule in UNMERGED:
            return False
        return rule.startswith("with_") or stage > 1 or self._includes_initial(rule)

    def _includes_initial(self, rule: Rule) -> bool:
        return rule == "joint" and self.method.joint.include_initial

    def _models(self, stage: int, rule: Rule) -> tuple[str, ...]:
        if rule in MERGES_OF_TWO:
            return (self._merged_with(stage, rule), self.trained(stage))
        initial = (self.base_key,) if self._includes_initial(rule) else ()
        return (*initial, *map(self.trained, range(1, stage + 1)))

    def _merged_with(self, stage: int, rule: Rule) -> str:
        """The key of what a rule merges with what a stage trained."""
        if rule == "with_initial":
            return self.base_key
        if self.method.start_from == "live":  # what was deployed before may have been refused
            return self.start(stage)
        return self._after(stage - 1, rule)

    def _merge(self, node: type[N], key: str, stage: int, after: int, rule: Rule) -> N:
        technique = self.method.merge
        assert technique is not None
        of_two = rule in MERGES_OF_TWO
        return node(
            key=key,
            experiment=self.experiment,
            stage=stage,
            technique=technique.for_stage(after) if of_two else technique,
            base_key=self.base_key,
            models=self._models(after, rule),
            joint=None if of_two else self.method.joint,
            statistics=(
                tuple(map(self.statistics, range(1, after + 1))) if technique.statistics else ()
            ),
            repairing=None if technique.repair is None else self._repairing(after),
        )

    def _repairing(self, after: int) -> Repairing:
        return Repairing(backbone=self.backbone, chunk_key=self.chunk_keys[after - 1])

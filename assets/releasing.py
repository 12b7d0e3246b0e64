"""Promotions and rollbacks from Dagster's launchpad, as `fomo promote` and `fomo rollback` do."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from assets.descriptions import drawn
from assets.failures import engine_failures
from assets.specs import key_of
from fomo_dagster.graph.build.names import PROMOTE, ROLL_BACK
from fomo_dagster.graph.core.keys import release_key
from fomo_dagster.graph.nodes.release import shown_of
from fomo_dagster.graph.run.promotion import promote_stage
from fomo_dagster.home import Home
from fomo_dagster.releases.history import sentence_of
from fomo_dagster.releases.promoting import roll_back
from fomo_dagster.releases.records import Record, ReleaseLog

PUT_LIVE, GO_BACK = "put_live", "go_back"  # ops


class Promotion(dg.Config):
    """A stage that is to go live."""

    experiment: str = Field(description="The experiment whose stage goes live.")
    stage: int | None = Field(default=None, description="The stage; null: the last one.")
    first: bool = Field(
        default=False, description="Nothing is live yet: gates that compare with it do not count."
    )
    reason: str = Field(default="", description="Why, for the record.")


class Rollback(dg.Config):
    """A release that is to be live again."""

    name: str = Field(description="The release name.")
    to: int | None = Field(default=None, description="The number; null: what was live before.")
    reason: str = Field(default="", description="Why, for the record.")


def releasing_jobs(experiments: Sequence[str], names: Sequence[str]) -> list[dg.JobDefinition]:
    """The two jobs; none where nothing goes live. experiments: those with a release name; names:
    these."""
    if not experiments:
        return []

    @dg.op(name=PUT_LIVE)
    def promote(context: dg.OpExecutionContext, config: Promotion) -> None:
        """Put a stage live, if it passes the gates."""
        with engine_failures(context):
            record = promote_stage(
                config.experiment, config.stage, first=config.first, reason=config.reason
            )
            _show(record, context)

    @dg.op(name=GO_BACK)
    def go_back(context: dg.OpExecutionContext, config: Rollback) -> None:
        """Put an earlier release live again."""
        with engine_failures(context):
            log = ReleaseLog(Home.from_environment(), config.name)
            _show(roll_back(log, config.to, reason=config.reason), context)

    @dg.job(
        name=PROMOTE,
        description="Puts a stage live, as `fomo promote` does: see Launchpad.",
        executor_def=dg.in_process_executor,
        config={"ops": {PUT_LIVE: {"config": {"experiment": experiments[0], "first": False}}}},
    )
    def promotion() -> None:
        promote()

    @dg.job(
        name=ROLL_BACK,
        description="Puts an earlier release live again, as `fomo rollback` does: see Launchpad.",
        executor_def=dg.in_process_executor,
        config={"ops": {GO_BACK: {"config": {"name": names[0]}}}},
    )
    def rollback() -> None:
        go_back()

    return [promotion, rollback]


def shown_now(home: Home, name: str) -> dg.AssetMaterialization:
    """What happened to a release name until now, for its asset."""
    shown = shown_of(ReleaseLog(home, name).read())
    return dg.AssetMaterialization(key_of(release_key(name)), metadata=drawn(shown))


def _show(record: Record, context: dg.OpExecutionContext) -> None:
    """Tell what happened, in the log and at the asset of the name."""
    context.log.info(sentence_of(record))
    context.log_event(shown_now(Home.from_environment(), record.name))

"""Promotions and rollbacks from Dagster's launchpad, as `fomo promote` and `fomo rollback` do."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import dagster as dg
from pydantic import Field

from assets.descriptions import drawn, metadata_of
from assets.failures import engine_failures
from assets.specs import CODE_VERSION_TAG, DATA_VERSION_TAG, key_of
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.graph.build.names import PROMOTE, ROLL_BACK
from fomo_dagster.graph.core.keys import release_key
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.nodes.release import shown_of, version_of
from fomo_dagster.graph.run.promotion import promote_stage
from fomo_dagster.graph.run.released import write_files
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.run.tracking import registering
from fomo_dagster.home import Home, project_folder
from fomo_dagster.progress import Callbacks
from fomo_dagster.releases.history import licences_said, sentence_of
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
        with engine_failures(context), _registries(context) as register:
            record = promote_stage(
                config.experiment, config.stage, first=config.first, reason=config.reason
            )
            register(record.name)
            _show(record, context)

    @dg.op(name=GO_BACK)
    def go_back(context: dg.OpExecutionContext, config: Rollback) -> None:
        """Put an earlier release live again."""
        with engine_failures(context), _registries(context) as register:
            log = ReleaseLog(Home.from_environment(), config.name)
            record = roll_back(log, config.to, reason=config.reason)
            register(record.name)
            _show(record, context)

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
    history = ReleaseLog(home, name).read()
    return dg.AssetMaterialization(
        key_of(release_key(name)),
        metadata=drawn(shown_of(history)),
        tags={DATA_VERSION_TAG: version_of(history)},
    )


def files_now(outcome: Outcome, context: RunContext) -> dg.AssetMaterialization:
    """The files of what is live, as they were written or found, for their asset."""
    head = outcome.head
    tags = {DATA_VERSION_TAG: head.data_version, CODE_VERSION_TAG: head.code_version}
    metadata = metadata_of(context.graph.nodes[head.asset], outcome, context)
    return dg.AssetMaterialization(key_of(head.asset), metadata=metadata, tags=tags)


def _registries(context: dg.OpExecutionContext) -> AbstractContextManager[Callable[[str], None]]:
    return registering(Home.from_environment(), context.log.warning)


def _show(record: Record, context: dg.OpExecutionContext) -> None:
    """Tell what happened, in the log and at the asset of the name, and write the files of what is
    live."""
    home = Home.from_environment()
    context.log.info(sentence_of(record))
    for said in licences_said(ReleaseLog(home, record.name).read()):
        context.log.warning(said)
    context.log_event(shown_now(home, record.name))
    callbacks = Callbacks(warn=context.log.warning, waiting=context.log.info)
    run_context = RunContext(build_project(project_folder()), home, callbacks=callbacks)
    outcome = write_files(record, run_context)
    if outcome is not None:
        context.log_event(files_now(outcome, run_context))

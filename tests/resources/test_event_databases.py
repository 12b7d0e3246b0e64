"""The databases of a run's events stay open while it goes on, and are whole after it."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite import sqlite_event_log

from resources.dagster_internals import events_kept_open, execute


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_event_databases_are_kept_open_for_a_run_and_written_together_after_it(tmp_path, fails):
    seen, create_engine = [], sqlite_event_log.create_engine

    @dg.op
    def look(context: dg.OpExecutionContext):
        context.log.info("something")
        for _ in range(2):
            context.instance.report_runless_asset_event(dg.AssetMaterialization("a"))
        seen.extend(path.name for path in tmp_path.rglob("*.db-wal"))  # gone with who is last
        address = f"sqlite:///{tmp_path / 'other.db'}"
        one, other = (sqlite_event_log.create_engine(address) for _ in range(2))
        assert one is other  # which remembers what it compiled
        with one.connect() as connection:
            said = connection.exec_driver_sql("PRAGMA synchronous").scalar()
        assert said == 1  # NORMAL
        if fails:
            raise ValueError

    @dg.job(executor_def=dg.in_process_executor)
    def looking():
        look()

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        with events_kept_open():
            run = instance.create_run_for_job(looking)
            result = execute(looking, run, instance)
        assert result.success is not fails
        assert {"index.db-wal", f"{run.run_id}.db-wal"} <= set(seen)
        assert sqlite_event_log.create_engine is create_engine
        assert not list(Path(tmp_path, "history").rglob("*.db-wal"))
        events = [record.dagster_event for record in instance.all_logs(run.run_id)]
        kinds = [event.event_type_value for event in events if event is not None]
        assert kinds.count("STEP_FAILURE" if fails else "STEP_SUCCESS") == 1

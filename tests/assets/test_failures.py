"""How a run of Dagster ends that something stopped."""

import signal

import dagster as dg
import pytest

from assets.failures import engine_failures
from fomo_dagster.errors import DataError, StoppedError

STOPPED = dg.DagsterRunStatus.CANCELED
FAILED = dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize(
    ("error", "in_ui", "ends"),
    [
        (KeyboardInterrupt("SIGINT at stage 1"), True, STOPPED),
        (dg.DagsterExecutionInterruptedError(), True, STOPPED),
        (StoppedError(signal.SIGTERM, "stopped by SIGTERM"), True, STOPPED),
        (DataError("no image can be read"), True, FAILED),
        (KeyboardInterrupt("SIGINT at stage 1"), False, FAILED),
    ],
)
def test_a_signal_cancels_a_run_of_the_ui(monkeypatch, error, in_ui, ends):
    monkeypatch.delenv("FOMO_UI", raising=False)
    if in_ui:
        monkeypatch.setenv("FOMO_UI", "::1:80")

    @dg.asset
    def interrupted(context: dg.AssetExecutionContext):
        with engine_failures(context):
            raise error

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([interrupted], instance=instance, raise_on_error=False)
        assert instance.get_run_by_id(result.run_id).status == ends

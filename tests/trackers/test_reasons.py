"""Why a tracker failed is said in words, and without what nobody should read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from pydantic import BaseModel

from fomo_dagster.trackers.choosing import KINDS, PLACES, open_trackers
from fomo_dagster.trackers.reasons import reason_of, without_secrets
from fomo_dagster.trackers.tracker import Run


class Settings(BaseModel):
    base_url: int


def refused() -> None:
    try:
        requests.get("http://127.0.0.1:9", timeout=5)
    except requests.ConnectionError as error:
        raise RuntimeError(f"API request failed with exception {error}") from error


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (refused, "Connection refused"),
        (lambda: Path("/nowhere/x").read_text(), "/nowhere/x: No such file or directory"),
        (
            lambda: Settings.model_validate({"base_url": "x"}),
            "base_url is 'x': Input should be a valid integer, unable to parse string as an "
            "integer",
        ),
    ],
)
def test_the_reason_is_what_a_person_can_mend(do: Callable[[], object], said: str) -> None:
    with pytest.raises((RuntimeError, OSError, ValueError)) as raised:
        do()
    assert reason_of(raised.value) == said


def test_the_reason_is_one_line_of_bounded_length_without_passwords() -> None:
    assert reason_of(ValueError("no such run.\n<html>")) == "no such run"
    assert reason_of(ValueError("a" * 900)) == f"{'a' * 300}…"
    assert reason_of(TimeoutError()) == "it gives no reason (TimeoutError)"
    assert without_secrets("http://ada:secret@host/x") == "http://…@host/x"
    assert (
        reason_of(ValueError("at postgresql://ada:secret@host/db")) == "at postgresql://…@host/db"
    )


def test_a_tracker_that_cannot_start_is_told_with_what_was_tried_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PLACES.keys() == KINDS.keys()
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    warnings: list[str] = []
    trackers = open_trackers(["wandb"], tmp_path)
    trackers.send(Run("toy", {}), tuple, warnings.append)
    trackers.close(warnings.append)
    assert warnings == [
        "tracker wandb failed and is switched off for the rest of this run, which continues "
        "without it: it could not be started: WANDB_MODE is 'sometimes', and may be offline, "
        "online, disabled, dryrun, run, shared. Check WANDB_MODE, WANDB_DIR, WANDB_BASE_URL and "
        "`wandb login` (docs/trackers.md), or leave wandb out of FOMO_TRACKERS. The next run sends "
        "what it missed"
    ]

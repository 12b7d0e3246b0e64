"""Of a run that was stopped, each asset that kept a resume point is named."""

from types import SimpleNamespace

import pytest

from fomo_dagster.cli.failures import interruption_of

ASSETS = {"one": "toy/trained_001", "two": "toy/trained_002", "three": "toy/scores"}


def stopped(step, *said):
    error = None
    for one in reversed(said):
        error = SimpleNamespace(
            message=f"KeyboardInterrupt: {one}\n", cls_name="KeyboardInterrupt", cause=error
        )
    return SimpleNamespace(
        is_step_failure=True, step_key=step, step_failure_data=SimpleNamespace(error=error)
    )


def result_of(*events):
    return SimpleNamespace(all_events=[SimpleNamespace(is_step_failure=False), *events])


KEPT = "SIGTERM at stage 1, after 2 of 9 steps: the resume point {} is kept"


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], None),
        ([stopped("three", "SIGTERM")], "toy/scores: SIGTERM"),
        ([stopped("three", "SIGTERM"), stopped("one", "SIGTERM")], "toy/scores: SIGTERM"),
        (
            [stopped("three", "SIGTERM"), stopped("two", KEPT.format("b")),
             stopped("one", KEPT.format("a"), KEPT.format("a"))],
            f"toy/trained_002: {KEPT.format('b')}; toy/trained_001: {KEPT.format('a')}",
        ),
    ],
)  # fmt: skip
def test_each_that_kept_a_resume_point_is_named(events, said):
    assert interruption_of(result_of(*events), ASSETS) == said

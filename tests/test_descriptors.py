"""The limit of open files is raised as far as it goes, and said where that is too little."""

import gc
import os
import resource
from pathlib import Path

import pytest

from fomo_dagster import descriptors
from fomo_dagster.cli.running import run_experiment

INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "after", "is_said"),
    [
        ((1024, 1048576), (8192, 1048576), False),
        ((256, 4096), (4096, 4096), False),
        ((1024, INFINITY), (8192, INFINITY), False),
        ((INFINITY, INFINITY), (INFINITY, INFINITY), False),
        ((65536, 65536), (65536, 65536), False),
        ((64, 64), (64, 64), True),
    ],
)
def test_the_limit_is_raised_towards_what_is_allowed(monkeypatch, limits, after, is_said):
    now = [limits]
    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: now.__setitem__(0, wanted))
    said = descriptors.raise_limit()
    assert now[0] == after
    assert (said is not None) is is_said
    if is_said:
        assert "open only 64 files" in said


def test_where_it_may_not_be_raised_the_run_goes_on(monkeypatch):
    def refused(*_):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 5000))
    monkeypatch.setattr(resource, "setrlimit", refused)
    assert "open only 100 files" in descriptors.raise_limit()


@pytest.mark.slow
def test_a_run_of_several_stages_leaves_nothing_open_but_its_pins(project, uncounted):
    run_experiment("toy", [])
    gc.collect()  # what a failed test before this one still refers to
    left = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            left.append(os.readlink(descriptor))
        except FileNotFoundError:  # the one that lists them
            continue
    own = [Path(path).parent.name for path in left if path.startswith(str(project.root))]
    assert own == [".pins"]  # which end with the process

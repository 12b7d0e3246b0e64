"""Where nothing is collected, and that it is as before afterwards."""

import gc

import pytest

from fomo_dagster.collecting import uncollected
from fomo_dagster.graph.build import builder


@uncollected()
def fail():
    assert not gc.isenabled()
    with uncollected():
        pass
    assert not gc.isenabled()
    raise KeyError


def test_nothing_is_collected_within_and_all_is_as_before_after_it():
    with pytest.raises(KeyError):
        fail()
    assert gc.isenabled()


def test_a_project_is_built_without_collecting(project, monkeypatch):
    seen = []
    load_all = builder.load_all

    def noting(root):
        seen.append(gc.isenabled())
        return load_all(root)

    monkeypatch.setattr(builder, "load_all", noting)
    builder.build_project(project.root)
    assert seen == [False]
    assert gc.isenabled()

"""A score that every model has is said where one looks at a dataset, and nowhere else."""

import sys

import pytest

from fomo_dagster.cli.main import main
from fomo_dagster.evaluation.foregone import foregone


@pytest.mark.parametrize(
    ("task", "classes", "tests", "said"),
    [
        ("classification", ["wren"], 100, "has one class alone, 'wren', so that every model"),
        ("classification", ["wren"], 0, None),
        ("classification", ["crow", "wren"], 1, None),
        ("retrieval", ["wren"], 5, "has 5 test images, so that every model finds them among 5"),
        ("retrieval", ["wren"], 6, None),
        ("retrieval", ["wren"], 0, None),
    ],
)
def test_a_score_is_foregone_where_nothing_can_be_missed(task, classes, tests, said):
    found = foregone("birds", task, classes, tests)
    assert found is None if said is None else f"dataset 'birds' {said}" in str(found)


def test_plan_and_show_name_a_dataset_of_one_class(project, caplog, capsys, monkeypatch):
    for split in ("train", "test"):
        images = project.root / "images/cats" / split
        for path in (images / "lynx").iterdir():
            path.rename(images / "lion" / f"of_lynx_{path.name}")
        (images / "lynx").rmdir()
    for command in (["plan", "toy"], ["datasets", "show", "cats"]):
        monkeypatch.setattr(sys, "argv", ["fomo", *command])
        with pytest.raises(SystemExit, match="0"):
            main()
    assert caplog.text.count("'cats' has one class alone, 'lion'") == 1  # not at every stage
    assert "note       dataset 'cats' has one class alone, 'lion'" in capsys.readouterr().out
    assert "birds" not in caplog.text

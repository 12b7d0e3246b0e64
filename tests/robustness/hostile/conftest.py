"""One suite of hostile and damaged inputs: what is read is right, or refused with a sentence.

Each file beside this one has a table of cases of one kind of input, as `name: (change, arguments,
status, said)`. `change(project)` spoils the toy project; `fomo *arguments` must then end with
`status`, print every text of `said`, and leave neither a traceback nor a file outside the project.
"""

import sys
from pathlib import Path

import pytest

from fomo_dagster.cli.main import main


def files_beside(root: Path) -> set[Path]:
    return {path for path in root.parent.rglob("*") if root not in (path, *path.parents)}


@pytest.fixture
def plots():
    """They are drawn, of whatever is in the data."""


@pytest.fixture
def ends(project, capsys, caplog, monkeypatch):
    """`ends(change, arguments, status, said)`: the check of one case; gives what was printed."""

    def check(change, arguments, status, said):
        change(project)
        beside = files_beside(project.root)
        monkeypatch.setattr(sys, "argv", ["fomo", *arguments])
        monkeypatch.setenv("COLUMNS", "300")  # sentences are not broken at the terminal's width
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        output = printed.out + printed.err + caplog.text  # warnings are logged
        assert (stopped.value.code or 0) == status, output
        for words in said:
            assert words in output
        assert "Traceback" not in output
        assert files_beside(project.root) == beside
        return output

    return check

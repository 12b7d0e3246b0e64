"""Paths that a person gives: what is the matter with one is said with what is there instead."""

import errno

import pytest

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.paths import named, problem_of, said_of


def test_a_path_that_is_not_there_is_told_from_the_first_part_that_is_wrong(tmp_path):
    (tmp_path / "stamps" / "animals").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    assert problem_of(tmp_path / "stamps", "folder") is None
    assert problem_of(tmp_path / "file", "file or folder") is None
    assert problem_of(tmp_path / "stamp" / "animals", "folder") == (
        f"there is no folder {tmp_path}/stamp/animals: {tmp_path} has no 'stamp'; did you mean "
        "'stamps'?"
    )
    assert problem_of(tmp_path / "stamps" / ".." / "x", "file") == f"there is no file {tmp_path}/x"
    assert problem_of(tmp_path / "file", "folder").endswith("is a file, and a folder was expected")
    assert problem_of(tmp_path / "file" / "below", "file").startswith("there is no file")
    assert problem_of(tmp_path / "stamps", "file").endswith("is no file, and a file was expected")
    too_long = tmp_path / ("x" * 300)  # whoever looks, and whatever they may read
    assert problem_of(too_long, "file") == f"{too_long}: File name too long"


def test_a_fault_of_the_machine_names_its_file_and_the_way_out(tmp_path):
    locked = PermissionError(errno.EACCES, "Permission denied", "/data/birds")
    assert said_of(locked) == (
        "/data/birds: Permission denied: see that this user may read it, and the folders above it"
    )
    with (
        pytest.raises(DataError, match=r"^sources/birds: /data/birds: Permission denied"),
        named("sources/birds"),
    ):
        raise locked
    with pytest.raises(InputError, match=r"^sources/birds: no such folder"), named("sources/birds"):
        raise InputError("no such folder")

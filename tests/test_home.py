"""Where things are, as the environment says it; and outputs that cannot be written where asked."""

from pathlib import Path

import pytest

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.home import Home, project_folder
from fomo_dagster.store.files import write_bytes


def test_a_project_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "birds").mkdir()
    monkeypatch.setenv("FOMO_PROJECT", str(tmp_path / "bird"))
    with pytest.raises(InputError, match=r"FOMO_PROJECT is '.*bird': .* did you mean 'birds'"):
        project_folder()
    monkeypatch.setenv("FOMO_PROJECT", str(tmp_path / "birds"))
    assert project_folder() == tmp_path / "birds"


def test_a_home_that_can_be_no_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("x")
    for home in ("file", "file/below/it"):
        monkeypatch.setenv("FOMO_HOME", str(tmp_path / home))
        with pytest.raises(InputError, match=rf"FOMO_HOME is .*, and {tmp_path}/file is no folder"):
            Home.from_environment()
    monkeypatch.setenv("FOMO_HOME", str(tmp_path / "to/be/made"))
    assert Home.from_environment().root == tmp_path / "to/be/made"


def test_an_output_that_cannot_be_written_is_named_as_it_was_given(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for name, why in (("folder", "there is a folder of that name"), ("x" * 250, "name too long")):
        with pytest.raises(
            StoreError, match=rf"/{name} cannot be written \(.*{why}\): write to an"
        ):
            write_bytes(tmp_path / name, b"", named=True)

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path

import pytest
import torch

from fomo_dagster.errors import StoreError
from fomo_dagster.training.resume import ResumePoint

STATE = {"weights": {"w": torch.arange(1000.0)}, "position": 3}


def test_a_state_comes_back(tmp_path: Path) -> None:
    ResumePoint(tmp_path / "new", "recipe").save_last(STATE)
    loaded = ResumePoint(tmp_path / "new", "recipe").load()
    assert loaded is not None
    assert torch.equal(loaded["weights"]["w"], torch.arange(1000.0))
    assert loaded["position"] == 3
    assert ResumePoint(tmp_path / "other", "recipe").load() is None


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_point_counts_as_none_with_a_warning(
    tmp_path: Path, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    point = ResumePoint(tmp_path, "recipe")
    point.save_last(STATE)
    data = point.path.read_bytes()
    point.path.write_bytes(data[: int(len(data) * share)])
    assert point.load() is None
    assert "is damaged and not used" in caplog.text


def test_a_flipped_bit_counts_as_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    point = ResumePoint(tmp_path, "recipe")
    point.save_last(STATE)
    data = bytearray(point.path.read_bytes())
    place = data.index(torch.arange(1000.0).numpy().tobytes()[2000:2100])
    data[place] ^= 1
    point.path.write_bytes(data)
    assert point.load() is None
    assert "the checksum of" in caplog.text


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def compressed(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


HOSTILE = {
    "code": lambda path: torch.save(
        {"identity": "recipe", "state": Hostile(path.parent / "x")}, path
    ),
    "another type": lambda path: torch.save([1, 2], path),
    "a state without a position": lambda path: torch.save(
        {"format": 3, "identity": "recipe", "state": {"position": "last"}}, path
    ),
    "compressed, as bombs are": compressed,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_point_runs_nothing_and_counts_as_none(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    point = ResumePoint(tmp_path, "recipe")
    point.save_last(STATE)
    HOSTILE[kind](point.path)
    assert point.load() is None
    assert "is damaged and not used" in caplog.text
    assert not (tmp_path / "x").exists()


def test_what_a_killed_process_had_begun_to_write_is_removed(tmp_path: Path) -> None:
    point = ResumePoint(tmp_path, "recipe")
    point.save_last(STATE)
    (tmp_path / ".resume.pt.123-456").write_bytes(b"half")
    assert point.load() is not None
    assert [file.name for file in tmp_path.iterdir()] == ["resume.pt"]


def test_a_full_disk_is_explained_and_keeps_the_old_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = ResumePoint(tmp_path, "recipe")
    point.save_last(STATE)
    made = Path.open

    def full(path: Path, *arguments: str) -> object:
        return made(Path("/dev/full"), *arguments) if arguments == ("wb",) else made(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(StoreError, match="no space left"):
            point.save_last(STATE | {"position": 4})
    loaded = point.load()
    assert loaded is not None
    assert loaded["position"] == 3


def test_a_point_of_another_version_counts_as_none_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    point = ResumePoint(tmp_path, "recipe")
    torch.save({"identity": "recipe", "state": STATE}, point.path)  # as before formats had numbers
    assert point.load() is None
    assert "of another version of this package (format 1, not 3)" in caplog.text


def test_a_point_is_the_state_as_it_was_and_written_while_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, written = threading.Event(), torch.save

    def slow(*arguments: object) -> None:
        assert may_write.wait(20)
        written(*arguments)

    monkeypatch.setattr(torch, "save", slow)
    weights = torch.arange(6.0).reshape(2, 3)
    state = {"weights": {"w": weights}, "moments": [weights[0], (1, None)], "position": 1}
    point = ResumePoint(tmp_path, "recipe")
    point.save(state)
    weights += 1  # the next step
    state["position"] = 2
    assert not point.path.exists()
    may_write.set()
    assert str(point).endswith("is kept")
    loaded = point.load()
    assert loaded is not None
    assert loaded["position"] == 1
    assert torch.equal(loaded["weights"]["w"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(loaded["moments"][0], torch.arange(3.0))
    assert loaded["moments"][1] == (1, None)


def test_a_point_that_could_not_be_written_is_told_by_the_next_and_not_at_the_end(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    point = ResumePoint(tmp_path / "file" / "folder", "recipe")
    point.save(STATE)
    point.settle()
    with pytest.raises(StoreError, match="folder"):
        point.save(STATE)

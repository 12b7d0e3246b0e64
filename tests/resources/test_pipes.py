"""What launched processes tell is read line by line, however it comes."""

import json
import threading
from pathlib import Path

import pytest

from resources import pipes

TOLD = [{"progress": ["a", 1, 2, ""]}, {"warning": "é" * 5000}, {"steps": ["x", "y", []]}]
LINES = b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in TOLD)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """`read(pieces)`: what is read of a file that is written in pieces, each seen for itself."""
    monkeypatch.setattr(pipes, "SECONDS_BETWEEN_LOOKS", 0)
    path = tmp_path / "messages"

    def check(pieces):
        path.touch()
        looked, lines = threading.Semaphore(0), []

        class Over(threading.Event):
            def is_set(self):
                looked.release()
                return super().is_set()

        over = Over()
        reader = threading.Thread(target=lambda: lines.extend(pipes.whole_lines(Path(path), over)))
        reader.start()
        for piece in pieces:
            with path.open("ab") as file:
                file.write(piece)
            for _ in range(3):
                looked.acquire()
        over.set()
        reader.join(10)
        return lines

    return check


@pytest.mark.parametrize("size", [1000, 4096, len(LINES) - 1, len(LINES)])
def test_a_line_that_comes_in_pieces_is_one_line(read, size):
    lines = read([LINES[start : start + size] for start in range(0, len(LINES), size)])
    assert [json.loads(line) for line in lines] == TOLD


def test_a_letter_that_comes_in_two_pieces_is_one_letter(read):
    middle = LINES.index("é".encode()) + 1
    assert [json.loads(line) for line in read([LINES[:middle], LINES[middle:]])] == TOLD


def test_a_line_without_an_end_is_none(read):
    assert len(read([LINES, b'{"method": "clo'])) == len(TOLD)

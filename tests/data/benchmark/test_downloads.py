"""Downloads from a server of our own: resumed, begun anew, refused, and never half visible."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from fomo_dagster.data.benchmark.downloads import CHECKSUMS, Archive, fetch, read_list
from fomo_dagster.data.downloading import opened
from fomo_dagster.errors import DataError, InputError

PIECE = 1 << 16  # what is received at once; an unfinished piece is lost


def tar_of(size: int, seed: int = 0) -> bytes:
    """An archive of one file of that many bytes."""
    content = hashlib.shake_256(bytes([seed])).digest(size)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("PETS/1.bin")
        info.size = size
        tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


class Server:
    """Serves one file; `cuts` are the bytes that each response sends before it breaks off."""

    def __init__(self) -> None:
        self.data = tar_of(300_000)
        self.etag: str | None = '"one"'
        self.ranges = True
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.content_type = "application/x-tar"
        self.asked: list[str | None] = []  # the Range of each request
        self.says_length = True
        self.leads_to: str | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.respond(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.archive = Archive("PETS.tar", f"http://127.0.0.1:{self.http.server_port}/PETS.tar")
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers["Range"]
        self.asked.append(wanted)
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        if self.leads_to is not None:
            request.send_response(302)
            request.send_header("Location", self.leads_to)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        start = 0
        condition = request.headers["If-Range"]
        if wanted and self.ranges and condition in (None, self.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.data):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.data)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.data[start:]
        request.send_response(206 if start else 200)
        if start:
            last = len(self.data) - 1
            request.send_header("Content-Range", f"bytes {start}-{last}/{len(self.data)}")
        if self.says_length:
            request.send_header("Content-Length", str(len(body)))
        request.send_header("Content-Type", self.content_type)
        if self.etag:
            request.send_header("ETag", self.etag)
        request.end_headers()
        request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def run(server: Server, folder: Path, **options: Any) -> Any:
    waited: list[float] = []
    result = fetch(server.archive, folder, wait=waited.append, **options)
    assert (folder / "PETS.tar").read_bytes() == server.data
    assert sorted(path.name for path in folder.iterdir()) == ["PETS.tar", CHECKSUMS]
    return result


def stop_after(received: int) -> Any:
    """A progress that interrupts, as Ctrl-C does."""

    def progress(what: str, done: int, total: int, detail: str = "") -> None:
        if done >= received:
            raise KeyboardInterrupt

    return progress


def begin(server: Server, folder: Path, received: int) -> None:
    """Leave a part of that many bytes, as an interrupted call does."""
    with pytest.raises(KeyboardInterrupt):
        fetch(server.archive, folder, stop_after(received))
    assert not (folder / "PETS.tar").exists()
    assert (folder / "PETS.tar.part").stat().st_size == received
    server.asked.clear()


def test_a_download_is_whole_recorded_and_not_repeated(server: Server, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    fetched = run(
        server, tmp_path, progress=lambda what, done, total, detail="": told.append((done, total))
    )
    assert fetched.downloaded
    assert fetched.size == len(server.data) == told[-1][0] == told[-1][1]
    recorded = json.loads((tmp_path / CHECKSUMS).read_text())
    digest = hashlib.sha256(server.data).hexdigest()
    assert recorded == {"PETS.tar": {"sha256": digest, "size": len(server.data)}}
    assert not run(server, tmp_path).downloaded
    assert server.asked == [None]


def test_a_connection_that_breaks_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [2 * PIECE + 1, PIECE + 2, 0, 0, 1]
    run(server, tmp_path)
    assert server.asked == [None, f"bytes={2 * PIECE}-", *[f"bytes={3 * PIECE}-"] * 4]


def test_an_interrupted_download_goes_on_in_the_next_call(server: Server, tmp_path: Path) -> None:
    begin(server, tmp_path, 2 * PIECE)
    run(server, tmp_path)
    assert server.asked == [f"bytes={2 * PIECE}-"]


def test_a_server_without_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    begin(server, tmp_path, 2 * PIECE)
    server.cuts = [PIECE, 3 * PIECE]
    run(server, tmp_path)
    assert server.asked == [f"bytes={pieces * PIECE}-" for pieces in (2, 1, 3)]


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changed_is_begun_anew(server: Server, tmp_path: Path, honest: bool) -> None:
    begin(server, tmp_path, 2 * PIECE)
    server.data, server.etag = tar_of(280_000, seed=1), '"two"'
    if not honest:  # a server that takes no notice of If-Range

        def respond(request: BaseHTTPRequestHandler) -> None:
            del request.headers["If-Range"]
            Server.respond(server, request)

        server.respond = respond  # type: ignore[method-assign]
    run(server, tmp_path)
    assert server.asked == [f"bytes={2 * PIECE}-"] + ([] if honest else [None])


def test_a_part_longer_than_the_file_is_begun_anew(server: Server, tmp_path: Path) -> None:
    server.etag = None
    begin(server, tmp_path, 4 * PIECE)
    server.data = tar_of(100_000, seed=2)
    run(server, tmp_path)
    assert server.asked == [f"bytes={4 * PIECE}-", None]


def test_a_part_without_its_note_or_of_another_address_is_not_trusted(
    server: Server, tmp_path: Path
) -> None:
    begin(server, tmp_path, 2 * PIECE)
    note = tmp_path / "PETS.tar.part.json"
    note.write_text(note.read_text().replace("127.0.0.1", "elsewhere"))
    run(server, tmp_path)
    assert server.asked == [None]
    (tmp_path / "PETS.tar").unlink()
    begin(server, tmp_path, 2 * PIECE)
    note.unlink()
    run(server, tmp_path)
    assert server.asked == [None]


def test_a_connection_that_breaks_without_end_is_given_up_and_kept(
    server: Server, tmp_path: Path
) -> None:
    server.cuts = [PIECE] + [0] * 20
    waited: list[float] = []
    with pytest.raises(DataError, match=r"cut off at 64\.0 KiB of [34]\d\d KiB .* to continue it"):
        fetch(server.archive, tmp_path, wait=waited.append)
    assert waited == [2, 4, 8, 16]
    assert not (tmp_path / "PETS.tar").exists()
    server.cuts, server.asked = [], []
    run(server, tmp_path)
    assert server.asked == [f"bytes={PIECE}-"]


def test_a_later_download_must_be_the_same(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path)
    (tmp_path / "PETS.tar").unlink()
    server.data, server.etag = tar_of(300_000, seed=3), '"two"'
    with pytest.raises(DataError, match=r"differs from the file .* delete its entry"):
        fetch(server.archive, tmp_path)
    assert not (tmp_path / "PETS.tar").exists()
    (tmp_path / CHECKSUMS).unlink()
    server.asked.clear()
    run(server, tmp_path)
    assert server.asked == []  # what came is kept until it is accepted

    (tmp_path / "PETS.tar").write_bytes(server.data[:-1])
    with pytest.raises(DataError, match="delete it, and fetch it again"):
        fetch(server.archive, tmp_path)


def test_what_is_no_archive_is_refused(server: Server, tmp_path: Path) -> None:
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(InputError, match="leads to a web page"):
        fetch(server.archive, tmp_path)
    server.content_type, server.data = "application/binary", b"\n<!DOCTYPE html>" + b" " * 10**6
    with pytest.raises(InputError, match="leads to a web page"):
        fetch(server.archive, tmp_path)
    server.data = b"not a tar"
    with pytest.raises(DataError, match="no tar archive: it was deleted"):
        fetch(server.archive, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("says_length", [True, False])
def test_a_download_has_a_limit_of_size(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says_length: bool
) -> None:
    server.says_length = says_length
    monkeypatch.setenv("FOMO_DOWNLOAD_LIMIT_GIB", str(200_000 / 2**30))
    with pytest.raises(
        InputError, match=r"PETS\.tar exceeds the limit of .* set FOMO_DOWNLOAD_LIMIT_GIB"
    ):
        fetch(server.archive, tmp_path)
    part = tmp_path / "PETS.tar.part"
    assert not part.exists() if says_length else part.stat().st_size <= 200_000
    monkeypatch.setenv("FOMO_DOWNLOAD_LIMIT_GIB", "1")
    run(server, tmp_path)


@pytest.mark.parametrize("limit", ["none", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("FOMO_DOWNLOAD_LIMIT_GIB", limit)
    with pytest.raises(InputError, match=f"'{limit}': a number of GiB above 0 was expected"):
        fetch(server.archive, tmp_path)


@pytest.mark.parametrize("cut", [150_000, 10_240, 512 + 299_520 + 512])
def test_an_archive_of_unsaid_length_that_is_cut_off_is_refused(
    server: Server, tmp_path: Path, cut: int
) -> None:
    server.says_length = False
    whole, server.data = server.data, server.data[:cut]
    with pytest.raises(DataError, match="no whole tar archive: it was deleted"):
        fetch(server.archive, tmp_path)
    assert not list(tmp_path.iterdir())
    server.data = whole
    run(server, tmp_path)


@pytest.mark.parametrize("leads_to", ["file:///etc/passwd", "ftp://127.0.0.1/PETS.tar", "gopher:x"])
def test_an_address_that_leads_to_no_web_server_is_refused(
    server: Server, tmp_path: Path, leads_to: str
) -> None:
    server.leads_to = leads_to
    with pytest.raises(InputError, match=r"cannot reach 127\.0\.0\.1 .* put it at"):
        fetch(server.archive, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_address_of_https_that_leads_to_an_open_one_is_refused(server: Server) -> None:
    """A session that has followed a redirect; a server of https would need a certificate."""
    asked = requests.Response()
    asked.url, asked.raw = server.archive.url, io.BytesIO()

    class Session(requests.Session):
        def get(self, url: Any, **_: Any) -> requests.Response:
            return asked

    with pytest.raises(InputError, match=r"leads to http://127\.0\.0\.1.*which is not https"):
        opened(Session(), "https://example.org/PETS.tar")


def test_refusals_are_told_and_faults_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(InputError, match=r"answers 404 .* put it at .*PETS\.tar"):
        fetch(server.archive, tmp_path)
    server.statuses = [503, 502]
    run(server, tmp_path)


def test_an_unreachable_server_is_told_at_once(server: Server, tmp_path: Path) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(InputError, match=r"cannot reach 127\.0\.0\.1 .* Where the network") as told:
        fetch(server.archive, tmp_path / "new", wait=lambda seconds: pytest.fail("it waited"))
    assert str(tmp_path / "new" / "PETS.tar") in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"file.* cannot be written .*FOMO_RELEASE_IMAGES\)"):
        fetch(server.archive, tmp_path / "file" / "images")


def test_the_list_gives_direct_addresses(tmp_path: Path) -> None:
    path = tmp_path / "download_data.csv"
    path.write_text(
        "# a comment\n# another\nhttps://www.dropbox.com/scl/fi/abc/EuroSAT.tar?rlkey=xyz&dl=0\n"
        "\nhttps://example.org/files/DTD.tar\n"
    )
    assert read_list(path) == {
        "EuroSAT": Archive(
            "EuroSAT.tar", "https://www.dropbox.com/scl/fi/abc/EuroSAT.tar?rlkey=xyz&dl=1"
        ),
        "DTD": Archive("DTD.tar", "https://example.org/files/DTD.tar"),
    }
    path.write_text("https://example.org/DTD.zip\n")
    with pytest.raises(DataError, match=r"line 1 of .* no address"):
        read_list(path)
    path.write_text("https://a.org/DTD.tar\nhttps://b.org/DTD.tar\n")
    with pytest.raises(DataError, match="a second time"):
        read_list(path)
    with pytest.raises(InputError, match="cannot read the list"):
        read_list(tmp_path / "nothing")

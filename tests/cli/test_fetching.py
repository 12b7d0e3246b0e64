"""`fomo fetch` through its command, from a server of our own."""

from __future__ import annotations

import io
import signal
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fomo_dagster.cli.fetching import DownloadBars, fetch_datasets
from fomo_dagster.cli.main import app
from fomo_dagster.errors import DataError, InputError, StoppedError


def archive(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(f"{name}/1.png"))
    return file.getvalue()


class Release:
    """A copy of the release's repository whose list leads to a server of this process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "data"
        self.broken: set[str] = set()
        self.asked: list[str] = []
        release = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = Path(self.path).stem
                release.asked.append(name)
                data = b"broken" if name in release.broken else archive(name)
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        (root / "data_lib" / "00_info").mkdir(parents=True)
        self.list("MONKEYS10", "DTD", "EuroSAT")

    def list(self, *names: str) -> None:
        address = f"http://127.0.0.1:{self.http.server_port}"
        lines = ["# a comment", *(f"{address}/{name}.tar?key=1" for name in names)]
        (self.root / "download_data.csv").write_text("\n".join(lines))


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    made = Release(tmp_path / "release")
    monkeypatch.setenv("FOMO_RELEASE", str(made.root))
    monkeypatch.delenv("FOMO_RELEASE_IMAGES", raising=False)
    yield made
    made.http.shutdown()
    made.http.server_close()


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["fetch", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_datasets_come_by_any_name_and_once(release: Release, tmp_path: Path) -> None:
    told = run("monkeys10", "EUROSAT")
    assert "monkeys10" in told
    assert "eurosat" in told
    assert (release.images / "MONKEYS10.tar").read_bytes() == archive("MONKEYS10")
    assert (release.images / "EuroSAT.tar").exists()
    assert not (release.images / "DTD.tar").exists()
    assert "there" in run("monkeys10")
    (release.images / "DTD").mkdir()
    assert "extracted" in run("dtd")
    assert release.asked == ["MONKEYS10", "EuroSAT"]


def test_the_images_folder_can_be_elsewhere(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOMO_RELEASE_IMAGES", str(tmp_path / "big_disk"))
    run("DTD")
    assert (tmp_path / "big_disk" / "DTD.tar").exists()


def test_one_that_fails_does_not_keep_the_others(release: Release) -> None:
    release.broken = {"MONKEYS10"}
    with pytest.raises(DataError, match=r"monkeys10: .* no tar archive"):
        fetch_datasets(["monkeys10", "dtd"], everything=False, console=Console(quiet=True))
    assert (release.images / "DTD.tar").exists()


def test_what_cannot_be_fetched_is_said_before_anything_is(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(quiet=True)
    for names, message in (
        (["dtd", "monkey10"], "no dataset 'monkey10'; did you mean 'monkeys10'"),
        (["dtd", "cifar10"], "no address for CIFAR10"),
        ([], "name the datasets to download, or give --all"),
    ):
        with pytest.raises(InputError, match=message):
            fetch_datasets(names, everything=False, console=console)
    with pytest.raises(InputError, match="no address for AI2DIAGRAMS"):
        fetch_datasets([], everything=True, console=console)
    monkeypatch.delenv("FOMO_RELEASE")
    with pytest.raises(InputError, match="FOMO_RELEASE"):
        fetch_datasets(["dtd"], everything=False, console=console)
    assert release.asked == []
    assert not release.images.exists()


def test_an_interruption_says_that_it_goes_on(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: DownloadBars, *_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(DownloadBars, "__call__", interrupted)
    with pytest.raises(StoppedError, match="stopped by SIGTERM; the same command") as stopped:
        fetch_datasets(["dtd"], everything=False, console=Console(quiet=True))
    assert stopped.value.status == 128 + signal.SIGTERM
    assert not (release.images / "DTD.tar").exists()


def test_bars_know_downloads_without_a_length() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with DownloadBars(console) as bars:
        bars("a.tar", 2**20, 0)
        bars("b.tar", 2**20, 2**21, "was here")
        shown = console.file
        bars.finished("a.tar")
        bars.finished("never")
    assert isinstance(shown, io.StringIO)
    assert "b.tar" in shown.getvalue()
    assert "1.0/2.0 MiB" in shown.getvalue()

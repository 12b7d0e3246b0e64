"""Take the pictures of Dagster's UI that docs/ shows, from a UI that runs (`make ui`).

    .venv/bin/python docs/screenshots.py --experiment quickstart --stage 3

For the picture of "Materialize unsynced" it halves the learning rate in the experiment's file for
as long as the picture takes; nothing is materialised. Needs Chromium, driven over its DevTools
protocol with what Dagster's webserver is installed with; nothing else is downloaded.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from websockets.sync.client import ClientConnection, connect

PROJECT = Path(__file__).resolve().parents[1]
LOCATION = "fomo_dagster.definitions"
WIDTH, HEIGHT = 1500, 940
SHOWN = 860  # of the height: a stage's last rows name folders of the machine
MOST_BYTES = 300_000
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--hide-scrollbars", "--no-first-run", "--remote-debugging-port=0",
)  # fmt: skip


class Page:
    """One page of a headless Chromium."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.call("Page.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTH, height=HEIGHT, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol; raises `RuntimeError` where it fails."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def evaluate(self, script: str) -> Any:
        """The value of some JavaScript."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return result["result"].get("value")

    def wait_for(self, script: str, what: str, seconds: float = 60) -> Any:
        """The first value of `script` that is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.evaluate(script)
            if value:
                return value
            time.sleep(0.3)
        raise TimeoutError(f"{what} did not appear within {seconds:g} s")

    def open(self, address: str, *texts: str) -> None:
        """Go there, and wait until every text shows."""
        self.call("Page.navigate", url=address)
        for text in texts:
            self.wait_for(f"document.body?.innerText.includes({json.dumps(text)})", repr(text))
        time.sleep(3)  # animations

    def click(self, text: str, *, beside: int = 0) -> None:
        """Click the middle of the last element that begins with `text`; or right of its edge."""
        find = f"""(() => {{
            const shown = [...document.querySelectorAll('button, a, [role=menuitem], *')]
                .filter(e => e.innerText?.trim().startsWith({json.dumps(text)}))
                .filter(e => e.getBoundingClientRect().width > 0);
            if (!shown.length) return null;
            const last = shown.pop().closest('button') ?? shown.pop();
            last.scrollIntoView({{block: 'nearest'}});
            const r = last.getBoundingClientRect();
            return [{beside} ? r.right + {beside} : r.x + r.width / 2, r.y + r.height / 2];
        }})()"""
        x, y = self.wait_for(find, repr(text))
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)
        time.sleep(3)

    def save(self, path: Path, size: tuple[int, int] = (WIDTH, SHOWN)) -> None:
        """The upper left of the page as a PNG of 128 colours, below 300 kB."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        picture = Image.open(io.BytesIO(data)).convert("RGB").crop((0, 0, *size))
        picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise RuntimeError(f"{path} has {size} bytes; at most {MOST_BYTES} are wanted")
        print(f"{path}: {size} bytes")


@contextmanager
def chromium(executable: str) -> Iterator[Page]:
    """A headless Chromium with a profile of its own, ended afterwards."""
    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stderr is not None
            lines = (re.search(r"ws://([\d.:]+)/", line) for line in process.stderr)
            host = next(found for found in lines if found).group(1)
            targets = json.load(urllib.request.urlopen(f"http://{host}/json"))
            debugger = next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
            with connect(debugger, max_size=None, ping_interval=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(20)


def reload(address: str) -> None:
    """Let the UI read the experiments again."""
    query = (
        f'mutation {{ reloadRepositoryLocation(repositoryLocationName: "{LOCATION}")'
        " { __typename } }"
    )
    request = urllib.request.Request(
        f"{address}/graphql",
        json.dumps({"query": query}).encode(),
        {"content-type": "application/json"},
    )
    json.load(urllib.request.urlopen(request, timeout=120))


@contextmanager
def another_learning_rate(experiment: Path, address: str) -> Iterator[None]:
    """The experiment with half its learning rate; the last in the file, which is the stages'."""
    before = experiment.read_text()
    *_, last = re.finditer(r"learning_rate: *([\d.e+-]+)", before)
    halved = f"{float(last.group(1)) / 2:g}"
    experiment.write_text(before[: last.start(1)] + halved + before[last.end(1) :])
    try:
        reload(address)
        yield
    finally:
        experiment.write_text(before)
        reload(address)


def main() -> None:
    """Write ui_asset_graph.png, ui_evaluation.png, ui_stage.png and ui_unsynced.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="quickstart")
    parser.add_argument("--stage", type=int, default=3)
    parser.add_argument("--address", default="http://127.0.0.1:3000")
    parser.add_argument("--project", type=Path, default=PROJECT, help="with experiments/")
    parser.add_argument("--out", type=Path, default=PROJECT / "docs")
    parser.add_argument("--chromium", default="chromium")
    given = parser.parse_args()
    name = given.experiment
    graph = f"{given.address}/asset-groups?expanded=global%40global%3A{name}"
    file = given.project / "experiments" / f"{name}.yaml"
    with chromium(given.chromium) as page:
        page.open(graph, "scores", "Materialize all")
        page.save(given.out / "ui_asset_graph.png")
        page.open(
            f"{given.address}/assets/{name}/evaluation_{given.stage:03d}", "zero_shot_retention"
        )
        page.save(given.out / "ui_evaluation.png")
        page.open(f"{given.address}/assets/{name}/trained_{given.stage:03d}", "final_loss")
        page.click("[Show Markdown]")
        page.save(given.out / "ui_stage.png")
        with another_learning_rate(file, given.address):
            page.open(graph, "scores", "Materialize all")
            page.click("Materialize all", beside=16)
            page.click("Materialize unsynced")
            page.wait_for("document.body.innerText.includes('unsynced assets')", "the dialog")
            page.save(given.out / "ui_unsynced.png")


if __name__ == "__main__":
    main()

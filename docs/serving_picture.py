"""Take the picture of the page of `fomo serve` that docs/ shows, from a server that runs.

    .venv/bin/python docs/serving_picture.py IMAGE --classes cat --classes 'coffee cup' --beside 1 \
        --gallery photographs

As `screenshots.py`, it needs Chromium.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from screenshots import PROJECT, Page, chromium

WIDTH, HEIGHT = 1100, 780


def fill(
    page: Page, image: Path, classes: list[str], prompt: str, beside: str, gallery: str
) -> None:
    """Choose an image, classes and a gallery, and wait for the answers."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    script = f"""
        at('classes').value = {json.dumps(chr(10).join(classes))};
        at('template').value = {json.dumps(prompt)};
        at('beside').value = {json.dumps(beside)};
        at('gallery').value = {json.dumps(gallery)};
        at('beside').value"""
    page.wait_for("at('name').textContent !== 'What is live'", "the name")
    page.wait_for(
        f"[...at('gallery').options].some(one => one.value === {json.dumps(gallery)})", "a gallery"
    )
    if page.evaluate(script) != beside:
        raise SystemExit(f"release {beside} is not among those that can be chosen")
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(image.resolve())])
    count = 2 if beside else 1
    images = "[...document.images].every(one => one.complete)"
    done = f"document.querySelectorAll('.result').length === {count} && {images}"
    if gallery:
        done += " && document.querySelectorAll('#near img').length > 0"
    page.wait_for(f"{done} || at('error').textContent", "an answer")
    if said := page.evaluate("at('error').textContent"):
        raise SystemExit(said)


def main() -> None:
    """Write serving.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--classes", action="append", required=True)
    parser.add_argument("--prompt", default="A photo of a {}.")
    parser.add_argument("--beside", default="")
    parser.add_argument("--gallery", default="")
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    parser.add_argument("--scheme", choices=["light", "dark"], default="light")
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--out", type=Path, default=PROJECT / "docs" / "serving.png")
    parser.add_argument("--chromium", default="chromium")
    given = parser.parse_args()
    with chromium(given.chromium) as page:
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=given.width, height=HEIGHT, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": given.scheme}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.open(given.address, "answers")
        fill(page, given.image, given.classes, given.prompt, given.beside, given.gallery)
        page.save(given.out, (given.width, HEIGHT))


if __name__ == "__main__":
    main()

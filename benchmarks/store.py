"""The store with an artifact of the size of a ViT-B-32: making it, and finding it again.

A hit looks at the files' sizes, times and inodes; only after a change of these, or where there is
no record of a verification, are the bytes hashed again.

    python benchmarks/store.py [--megabytes 600]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pictures import print_figures

from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.files import fsync
from fomo_dagster.store.recipes import Recipe


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=600)
    megabytes = parser.parse_args().megabytes
    piece = os.urandom(1_000_000)

    def write(folder: Path) -> None:
        with (folder / "weights").open("wb") as file:
            for _ in range(megabytes):
                file.write(piece)

    def write_and_flush(folder: Path) -> None:
        write(folder)
        fsync(folder / "weights")

    def hash_bare(path: Path) -> None:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    recipe = Recipe("weights", 1, {"megabytes": megabytes})
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        rows = [("write and flush alone", seconds_of(lambda: write_and_flush(root)))]
        rows.append(("sha256 alone", seconds_of(lambda: hash_bare(root / "weights"))))
        (root / "weights").unlink()
        store = Store(root / "store")
        rows.append(("make", seconds_of(lambda: store.get_or_make(recipe, write))))
        rows.append(("hit, verified before", seconds_of(lambda: store.find(recipe))))
        shutil.rmtree(root / "store" / ".verified")
        rows.append(("hit, verified now", seconds_of(lambda: store.find(recipe))))
    figures = [(what, seconds, megabytes / seconds) for what, seconds in rows]
    print_figures(f"An artifact of {megabytes} MB", ("what", "seconds", "MB/s"), figures)


if __name__ == "__main__":
    main()

"""Merging checkpoints out of core: seconds and memory by number and size of the models, beside the
plain way, all models in memory with torch, and beside mergekit.

Random models in the page cache, half of whose numbers are one embedding, as in small CLIP models.
Each measurement is a process of its own; its seconds are of the merge and of writing it, with as
many threads as OMP_NUM_THREADS says. `reading alone` reads once what the technique does (a mean has
no θ₀). Ratios are within a round; the table has their median, least and most over the rounds. Peak
memory is what is allocated (RssAnon, looked at every 5 ms, beyond what the imports took): pages of
files that are mapped can be dropped at any time and are left out, for both. mergekit (--mergekit
says which Python has it) merges the same files, by what `mergekit-pytorch` calls; its seconds are
without its imports.

    python benchmarks/merging.py [--models 2 8 20] [--megabytes 16 64] [--plain-limit 2000]
    OMP_NUM_THREADS=2 python benchmarks/merging.py --models 4 --megabytes 605 --plain-limit 3000
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from pictures import print_figures
from safetensors.torch import load_file, save_file

from fomo_dagster.merging import checkpoints
from fomo_dagster.merging.techniques import TECHNIQUES, merge

BLOCKS = 12
READING, MERGING, PLAIN = WAYS = ("reading alone", "out of core", "in memory")
MERGEKIT = "mergekit"
BY_MERGEKIT = """
import json, os, sys, threading, time
from importlib.metadata import version
from mergekit.scripts.merge_raw_pytorch import main

def allocated():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if "RssAnon" in line)

def watch():
    while not done.wait(0.005):
        peak[0] = max(peak[0], allocated())

peak, done, begun = [0.0], threading.Event(), allocated()
watcher = threading.Thread(target=watch)
watcher.start()
started = time.perf_counter()
main([sys.argv[1], sys.argv[2], "--quiet"], standalone_mode=False)
seconds = time.perf_counter() - started
done.set()
watcher.join()
print(json.dumps([version("mergekit"), seconds, max(0.0, peak[0] - begun)]))
"""
AS_MERGEKIT = {
    "weighted_mean": ("linear", {"weight": 1.0}),
    "model_stock": ("model_stock", {}),
    "dare_ties": ("dare_ties", {"weight": 1.0, "density": 0.1}),
    "ties": ("ties", {"weight": 1.0, "density": 0.2}),
}
"""Technique → method and parameters of each model."""
BYTES_AT_ONCE = checkpoints.NUMBERS_AT_ONCE * 4
MEASURED = ("weighted_mean", "model_stock", "dare_ties", "ties")


def write_models(folder: Path, count: int, megabytes: float, distinct: int) -> None:
    """θ₀ as `base` and models `0`, `1`, …, of `megabytes` each; links from `distinct` on."""
    random = torch.Generator().manual_seed(0)
    numbers = int(megabytes * 1e6 / 4)
    shapes = {"token_embedding.weight": (numbers // 2,)}
    for block in range(BLOCKS):
        shapes[f"visual.transformer.resblocks.{block}.weight"] = (numbers // 2 // BLOCKS,)
    base = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
    save_file(base, folder / "base")
    for i in range(count):
        if i >= distinct:
            (folder / str(i)).hardlink_to(folder / str(i % distinct))
            continue
        moved = {k: v + 0.01 * torch.randn(v.shape, generator=random) for k, v in base.items()}
        save_file(moved, folder / str(i))


def read(paths: Sequence[Path]) -> None:
    held = bytearray(BYTES_AT_ONCE)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(held):
                pass


def in_memory(technique: str, models: Sequence[Path], output: Path, base: Path) -> None:
    """The plain way: everything loaded, task vectors flattened and stacked, as in the reference."""
    theta = load_file(base)
    loaded = [load_file(path) for path in models]
    if technique == "weighted_mean":
        merged = {name: torch.stack([m[name] for m in loaded]).mean(0) for name in theta}
    elif technique == "model_stock":
        merged = {name: _stock(theta[name], [m[name] for m in loaded]) for name in theta}
    else:
        flat = torch.cat([value.reshape(-1) for value in theta.values()])
        vectors = torch.stack([torch.cat([m[k].reshape(-1) for k in theta]) for m in loaded]) - flat
        if technique == "dare_ties":
            vectors *= (torch.rand(vectors.shape) >= 0.9) / 0.1
        else:
            magnitudes = vectors.abs()
            dropped = flat.numel() - round(0.2 * flat.numel())
            least = torch.stack([row.kthvalue(dropped + 1).values for row in magnitudes])
            vectors = torch.where(magnitudes >= least[:, None], vectors, 0)
        agrees = vectors.sign() == vectors.sum(0).sign()
        kept = torch.where(agrees, vectors, 0)
        total = flat + kept.sum(0) / (kept != 0).sum(0).clamp(min=1)
        pieces = total.split([value.numel() for value in theta.values()])
        merged = {
            name: piece.reshape(theta[name].shape).contiguous().clone()
            for name, piece in zip(theta, pieces, strict=True)
        }
    save_file(merged, output)


def _stock(base: torch.Tensor, models: Sequence[torch.Tensor]) -> torch.Tensor:
    vectors = torch.stack([model.reshape(-1) for model in models]) - base.reshape(-1)
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    count = len(models)
    cosine = ((unit @ unit.T).sum() - count) / (count * (count - 1))
    share = count * cosine / ((count - 1) * cosine + 1)
    return base + share * vectors.mean(0).reshape(base.shape)


def allocated() -> float:
    """MiB of this process's anonymous memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system does not say what a process allocated")


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds, and the peak of allocated MiB beyond the beginning."""
    begun, peak, done = allocated(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], allocated())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return seconds, max(0.0, peak[0] - begun)


def by_mergekit(python: Path, folder: Path, technique: str, count: int) -> tuple[float, float]:
    """As `measure`; it takes files by their suffix."""
    files = {name: folder / f"{name}.safetensors" for name in ("base", *map(str, range(count)))}
    for name, path in files.items():
        if not path.exists():
            path.symlink_to(folder / name)
    method, parameters = AS_MERGEKIT[technique]
    recipe: dict[str, object] = {
        "merge_method": method, "dtype": "float32",
        "models": [
            {"model": str(files[str(i)]), "parameters": parameters} for i in range(count)
        ],
    }  # fmt: skip
    if method != "linear":
        recipe["base_model"] = str(files["base"])
    config = folder / "recipe.yaml"  # JSON is YAML
    config.write_text(json.dumps(recipe))
    command = [str(python), "-c", BY_MERGEKIT, str(config), str(folder / "by_mergekit")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    version, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    print(MERGEKIT, version, file=sys.stderr)
    return seconds, peak


def measure(folder: Path, technique: str, count: int, way: str) -> tuple[float, float]:
    """Seconds, and the peak of allocated MiB beyond the beginning."""
    models, base, output = [folder / str(i) for i in range(count)], folder / "base", folder / "out"
    declared = TECHNIQUES[technique](technique=technique)
    inputs = [base, *models] if declared.needs_base else models
    work: dict[str, Callable[[], None]] = {
        READING: lambda: read(inputs),
        MERGING: lambda: merge(declared, models, output, base),
        PLAIN: lambda: in_memory(technique, models, output, base),
    }
    output.unlink(missing_ok=True)
    return measured(work[way])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, nargs="+", default=[2, 8, 20])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[16, 64])
    parser.add_argument(
        "--plain-limit", type=float, default=2000, help="MB of models that are held in memory."
    )
    parser.add_argument("--distinct", type=int, help="Models that are no links; all by default.")
    parser.add_argument("--techniques", choices=MEASURED, nargs="+", default=MEASURED)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mergekit", type=Path, help="A Python in which mergekit is installed.")
    parser.add_argument("--folder", type=Path, help="Where the models are written.")
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    spawn = multiprocessing.get_context("spawn")
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
            folder = Path(temporary)
            most = max(arguments.models)
            write_models(folder, most, megabytes, arguments.distinct or most)
            for count in arguments.models:
                held = count * megabytes <= arguments.plain_limit
                ways = [*(WAYS if held else WAYS[:-1]), *([MERGEKIT] if arguments.mergekit else [])]
                for technique in arguments.techniques:
                    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
                    for way in ways * arguments.rounds:
                        if way == MERGEKIT:
                            one = by_mergekit(arguments.mergekit, folder, technique, count)
                        else:
                            with ProcessPoolExecutor(1, spawn) as process:
                                one = process.submit(
                                    measure, folder, technique, count, way
                                ).result()
                        found[way].append(one)
                        print(technique, count, megabytes, way, one, file=sys.stderr)
                    rows += [(technique, count, megabytes, *row) for row in summarised(found)]
    ratios = ("of reading", "of in memory")
    columns = ("technique", "models", "MB each", "way", "s", *ratios, "peak MiB")
    print_figures("merging", columns, rows)


def summarised(found: dict[str, list[tuple[float, float]]]) -> list[tuple[object, ...]]:
    """By way: median seconds, their ratios to reading and to the plain way in the same rounds, and
    the largest peak."""
    rows = []
    for way, measured in found.items():
        ratios = [
            spread([mine / other for (mine, _), (other, _) in zip(measured, others, strict=True)])
            for others in (found[READING], found.get(PLAIN, []))
            if others
        ]
        seconds = statistics.median(seconds for seconds, _ in measured)
        rows.append((way, seconds, *(*ratios, "")[:2], max(memory for _, memory in measured)))
    return rows


def spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


if __name__ == "__main__":
    main()

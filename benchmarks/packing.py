"""Weights kept packed: bytes by how much a stage changes them, over θ₀ and over the stage before;
seconds and memory at the size of a ViT-B/32.

Made stages: as AdamW does, each adds a step of about one size to all numbers of a tensor, so much
of their root mean square as `relative` says. `walk`: the steps of two stages have nothing to do
with each other; `straight`: all go the same way. Bytes are shares of the whole files, and do not
depend on how large these are. With `--home`, the stages of its experiments are measured as well.

    python benchmarks/packing.py [--stages 20] [--small 2] [--large 151] [--home FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from pictures import print_figures
from safetensors.numpy import save_file

from fomo_dagster.graph.core.facts import ONLY
from fomo_dagster.graph.work.checkpoints import WEIGHTS
from fomo_dagster.home import Home
from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.byte_planes import restored, write_differences
from fomo_dagster.store.cleaning import take_whole
from fomo_dagster.store.digests import digest_of_file
from fomo_dagster.store.heads import Head
from fomo_dagster.store.low_rank import LowRank, LowRankPart
from fomo_dagster.store.packing import pack
from fomo_dagster.store.process_memory import ProcessMemory
from fomo_dagster.store.recipes import Recipe

RELATIVE = (1e-4, 1e-3, 1e-2)
MEGABYTE = 1e6
Weights = dict[str, np.ndarray]


def weights_of(millions: float, random: np.random.Generator) -> Weights:
    """Random weights: a token embedding of a sixth of the numbers, and matrices of blocks."""
    numbers = int(millions * 1e6)
    shapes = {"token_embedding.weight": (numbers // 6 // 512, 512)}
    for block in range(24):
        shapes[f"resblocks.{block}.weight"] = (numbers * 5 // 6 // 24 // 768, 768)
        shapes[f"resblocks.{block}.bias"] = (768,)
    return {
        name: np.float32(0.02) * random.standard_normal(shape, np.float32)
        for name, shape in shapes.items()
    }


def moved(weights: Weights, by: float, random: np.random.Generator) -> Weights:
    return {
        name: tensor + np.float32(0.02 * by) * random.standard_normal(tensor.shape, np.float32)
        for name, tensor in weights.items()
    }


def share(path: Path, base: Path, folder: Path) -> float:
    """The differences' part of the whole file, in percent."""
    write_differences(path, base, folder / "differences")
    return 100 * (folder / "differences").stat().st_size / path.stat().st_size


def plain_share(path: Path) -> float:
    """What zstd alone makes of it, in percent."""
    data = path.read_bytes()
    return 100 * len(pa.compress(data, "zstd", asbytes=True)) / len(data)


def by_change(stages: int, millions: float, folder: Path) -> Iterator[tuple[object, ...]]:
    for relative in RELATIVE:
        for drift in ("walk", "straight"):
            theta = weights_of(millions, np.random.default_rng(0))
            save_file(theta, folder / "theta")
            save_file(theta, folder / "before")
            over_theta, over_before = [], []
            weights = theta
            for stage in range(1, stages + 1):
                seed = stage if drift == "walk" else 1
                weights = moved(weights, relative, np.random.default_rng(seed))
                save_file(weights, folder / "stage")
                over_theta.append(share(folder / "stage", folder / "theta", folder))
                over_before.append(share(folder / "stage", folder / "before", folder))
                (folder / "stage").replace(folder / "before")
            yield (
                f"{relative:g}", drift, plain_share(folder / "before"), over_theta[0],
                over_theta[-1], float(np.mean(over_theta)), float(np.mean(over_before)),
            )  # fmt: skip


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and MB that memory grew by at most."""
    memory, started = ProcessMemory(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return seconds, memory.costs().get("peak_process_memory_bytes", 0) / MEGABYTE


def _write(weights: Weights, folder: Path) -> None:
    save_file(weights, folder / WEIGHTS)


def at_size(
    stages: int, millions: float, relative: float, folder: Path
) -> Iterator[tuple[object, ...]]:
    """Packing and unpacking all stages through the store, one after the other: seconds and bytes of
    all of them together. What comes back is compared with what was packed."""
    store = Store(folder / "store")
    weights = weights_of(millions, np.random.default_rng(0))
    theta = Recipe("backbone", 1)
    store.get_or_make(theta, partial(_write, weights))
    base = (theta.kind, theta.digest)
    spent: dict[str, tuple[float, float]] = {}
    whole = packed = 0

    def timed(name: str, work: Callable[[], object]) -> None:
        seconds, memory = seconds_of(work)
        before, most = spent.get(name, (0.0, 0.0))
        spent[name] = (before + seconds, max(most, memory))

    for stage in range(1, stages + 1):
        weights = moved(weights, relative, np.random.default_rng(stage))
        recipe = Recipe("trained", 1, {"stage": stage})
        made = store.get_or_make(recipe, partial(_write, weights))
        own = [(recipe.kind, recipe.digest)]
        size, was = made.path(WEIGHTS).stat().st_size, digest_of_file(made.path(WEIGHTS))
        timed("pack, verify, flush", partial(pack, store, own[0], base, WEIGHTS))
        timed(
            "take the whole files away",
            partial(take_whole, folder, store, lambda root: True, own),
        )
        timed("what a plan asks", partial(store.holds, recipe))
        timed("unpack, verify, flush", partial(store.open, *own[0]))
        timed("find it whole", partial(store.open, *own[0]))
        if digest_of_file(store.folder(*own[0]) / WEIGHTS) != was:
            raise SystemExit(f"stage {stage} came back with other bytes")
        take_whole(folder, store, lambda root: True, own)
        whole += size
        packed += (store.places.packed(*own[0]) / "changes").stat().st_size
    for name, (seconds, memory) in spent.items():
        yield name, seconds, memory, whole / MEGABYTE, packed / MEGABYTE


def with_adapters(millions: float, rank: int, folder: Path) -> Iterator[tuple[object, ...]]:
    """A stage that trained LoRA on all matrices of its blocks, without and with what it adds."""
    random = np.random.default_rng(0)
    theta = weights_of(millions, random)
    adapters: Weights = {}
    own, parts = dict(theta), []
    for name, tensor in theta.items():
        if name.startswith("resblocks") and tensor.ndim == 2:
            a = np.float32(0.02) * random.standard_normal((rank, tensor.shape[1]), np.float32)
            b = np.float32(0.002) * random.standard_normal((len(tensor), rank), np.float32)
            adapters |= {f"{name}.a": a, f"{name}.b": b}
            own[name] = tensor + b @ a
            parts.append(LowRankPart(name, 0, f"{name}.a", f"{name}.b", 1.0))
    for name, tensors in {"theta": theta, "own": own, "adapters": adapters}.items():
        save_file(tensors, folder / name)
    size, beside = ((folder / name).stat().st_size for name in ("own", "adapters"))
    for title, low_rank in {"plain": None, "LoRA": LowRank(folder / "adapters", parts)}.items():

        def write(low_rank: LowRank | None = low_rank) -> None:
            write_differences(folder / "own", folder / "theta", folder / "differences", low_rank)

        def bring_back() -> None:
            for _ in restored(folder / "differences", folder / "theta", folder):
                pass

        written, memory = seconds_of(write)
        packed = (folder / "differences").stat().st_size
        seconds, _ = seconds_of(bring_back)
        yield (
            title, written, seconds, memory, size / MEGABYTE, beside / MEGABYTE, packed / MEGABYTE
        )  # fmt: skip


def of_home(home: Home, folder: Path) -> Iterator[tuple[object, ...]]:
    """Each stage over θ₀, and over what it started from."""
    heads = [head for _, _, head in home.heads.all() if head is not None]
    by_version = {head.data_version: head for head in heads if head.kind in _WEIGHTS_KINDS}
    backbones = [head for head in heads if head.kind == "backbone"]

    def weights(head: Head) -> Path | None:
        artifact = home.store.open(*head.artifacts[ONLY])
        return None if artifact is None else artifact.path(WEIGHTS)

    for head in sorted(heads, key=lambda head: head.asset):
        if head.kind not in ("trained", "deployed") or (path := weights(head)) is None:
            continue
        start = by_version.get(head.recipes[ONLY]["inputs"].get("start"))
        before = None if start is None else weights(start)
        theta = next(
            found for other in backbones
            if (found := weights(other)) is not None
            and found.stat().st_size == path.stat().st_size
        )  # fmt: skip
        over_before = None if before is None else share(path, before, folder)
        yield head.asset, plain_share(path), share(path, theta, folder), over_before


_WEIGHTS_KINDS = ("backbone", "trained", "deployed", "start", "live_start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, default=20)
    parser.add_argument("--small", type=float, default=2, help="millions of numbers, by change")
    parser.add_argument("--large", type=float, default=151, help="millions of numbers, timed")
    parser.add_argument("--rank", type=int, default=64, help="of LoRA")
    parser.add_argument("--home", type=Path, help="a home with trained stages")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if arguments.home is not None:
            print_figures(
                f"Percent of the whole files, {arguments.home}",
                ("asset", "zstd alone", "over θ₀", "over its start"),
                list(of_home(Home(arguments.home), folder)),
            )
        print_figures(
            f"Percent of the whole files, {arguments.stages} stages",
            (
                "relative", "steps", "zstd alone", "stage 1", "last over θ₀", "mean over θ₀",
                "mean over the stage before",
            ),
            list(by_change(arguments.stages, arguments.small, folder)),
        )  # fmt: skip
        print_figures(
            f"{arguments.large:g} million numbers, {arguments.stages} steps of 0.001",
            ("work", "seconds", "memory (MB)", "whole (MB)", "packed (MB)"),
            list(at_size(arguments.stages, arguments.large, 1e-3, folder)),
        )
        print_figures(
            f"{arguments.large:g} million numbers, LoRA of rank {arguments.rank}",
            (
                "differences", "seconds", "seconds back", "memory (MB)", "whole (MB)",
                "adapters (MB)", "packed (MB)",
            ),
            list(with_adapters(arguments.large, arguments.rank, folder)),
        )  # fmt: skip


if __name__ == "__main__":
    main()

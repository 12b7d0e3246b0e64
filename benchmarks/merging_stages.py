"""Techniques over matrices, stage after stage: seconds and memory of each merge by the number of
stages.

θ₀ is a random image tower of the size of a ViT-B/16 (345 MB), and each stage's weights are θ₀ with
a random change of rank 16 to every matrix. OPCM merges each stage into what it merged before; the
others merge the first T stages at once, RegMean with second moments of what its layers see (0.6 GB
a stage). Each merge is a process of its own. Peak memory is what is allocated, as in `merging.py`.

    python benchmarks/merging_stages.py [--stages 20] [--at 2 20] [--techniques tsv_merge regmean]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from merging import measured
from pictures import print_figures
from safetensors.torch import save_file

from fomo_dagster.merging.techniques import TECHNIQUES, merge

WIDTH, BLOCKS, RANK = 768, 12, 16


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (197, WIDTH),
        "visual.conv1.weight": (WIDTH, 3, 16, 16),
        "visual.proj": (WIDTH, 512),
    }
    for block in range(BLOCKS):
        prefix = f"visual.transformer.resblocks.{block}"
        found |= {
            f"{prefix}.attn.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{prefix}.attn.in_proj_bias": (3 * WIDTH,),
            f"{prefix}.attn.out_proj.weight": (WIDTH, WIDTH),
            f"{prefix}.mlp.c_fc.weight": (4 * WIDTH, WIDTH),
            f"{prefix}.mlp.c_fc.bias": (4 * WIDTH,),
            f"{prefix}.mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
        }
    return found


def write_stage(path: Path, stage: int) -> None:
    """Stage 0 is θ₀."""
    random, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(stage)
    weights = {}
    for name, shape in shapes().items():
        weights[name] = 0.02 * torch.randn(shape, generator=random)
        if stage and len(shape) > 1:
            rows = weights[name].view(shape[0], -1)
            left = torch.randn(shape[0], RANK, generator=own)
            right = torch.randn(RANK, rows.shape[1], generator=own)
            rows += 1e-4 * (left @ right)
    save_file(weights, path)


def write_inputs(path: Path, stage: int) -> None:
    """Second moments as of some hundred directions, and a little of all."""
    own = torch.Generator().manual_seed(1000 + stage)
    moments = {}
    for name, shape in shapes().items():
        if name.endswith(("in_proj_weight", "mlp.c_fc.weight", "mlp.c_proj.weight")):
            seen = torch.randn(256, shape[1], generator=own)
            moments[name] = seen.T @ seen / 256 + 0.1 * torch.eye(shape[1])
    save_file(moments, path)


def merged(
    technique: str, models: list[Path], output: Path, base: Path, statistics: list[Path]
) -> tuple[float, float]:
    return measured(
        lambda: merge(TECHNIQUES[technique](), models, output, base, statistics=statistics)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stages", type=int, default=20, help="Of OPCM.")
    parser.add_argument("--at", type=int, nargs="*", default=[2, 20], help="T of the others.")
    parser.add_argument("--techniques", nargs="*", default=["tsv_merge"])
    parser.add_argument("--folder", type=Path, help="Where the weights are written.")
    arguments = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    spawn = multiprocessing.get_context("spawn")

    def row(technique: str, stage: int, models: list[Path], output: Path, base: Path) -> None:
        beside = []
        if TECHNIQUES[technique].statistics == "inputs":
            beside = [path.with_name(f"{path.name}.inputs") for path in models]
            for number, path in enumerate(beside):
                if not path.exists():
                    write_inputs(path, number)
        with ProcessPoolExecutor(1, spawn) as process:
            found = process.submit(merged, technique, models, output, base, beside).result()
        rows.append((technique, stage, *found))
        print(*rows[-1], file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        stages = [folder / str(i) for i in range(max([arguments.stages, *arguments.at]) + 1)]
        for i, path in enumerate(stages):
            write_stage(path, i)
        base, before, output = stages[0], folder / "before", folder / "out"
        for stage in range(1, arguments.stages + 1):
            last = [before] if stage > 1 else []
            row("opcm", stage, [*last, stages[stage]], output, base)
            output.replace(before)
        for technique in arguments.techniques:
            for at in arguments.at:
                row(technique, at, stages[1 : at + 1], output, base)
    print_figures("merging_stages", ("technique", "stage", "s", "peak MiB"), rows)


if __name__ == "__main__":
    main()

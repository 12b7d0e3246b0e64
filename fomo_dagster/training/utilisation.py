"""How much of what its devices can do a training did: model FLOPs utilisation (MFU).

Operations of the model per second, as a share of what the devices' tensor cores do at most (PaLM,
arXiv 2204.02311, appendix B). What is computed again to save memory does not count, since it is no
operation of the model.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import polars as pl
import torch

from fomo_dagster.distributed.process_group import ProcessGroup

FLOPS_UTILISATION = "flops_utilisation"
_POOLS = ("update_samples", "buffer_samples", "pretraining_samples")


class Peak(NamedTuple):
    """Of a device, in 10¹² operations a second, without sparsity."""

    fp16: float
    """Summed in fp32; bf16 is as fast, where there is tf32."""
    tf32: float | None
    """None for tensor cores that know neither tf32 nor bf16."""
    fp32: float

    def at(self, precision: str) -> float | None:
        """Operations a second."""
        bf16 = None if self.tf32 is None else self.fp16
        tera = {"fp32": self.fp32, "tf32": self.tf32, "bf16": bf16, "fp16": self.fp16}[precision]
        return None if tera is None else tera * 1e12


# NVIDIA's data sheets, halved where they count sparsity. Words of a name → peak; of those that fit,
# the one with most words is meant. Names with a word of `_OTHERS` are slower devices or parts.
_PEAKS = {
    "B200": Peak(2250, 1125, 75),
    "H200": Peak(989.4, 494.7, 66.9),
    "H200 NVL": Peak(835.5, 417.7, 60),
    "GH200": Peak(989.4, 494.7, 66.9),
    "H100": Peak(989.4, 494.7, 66.9),
    "H100 PCIe": Peak(756, 378, 51.2),
    "H100 NVL": Peak(835.5, 417.7, 60),
    "A100": Peak(312, 156, 19.5),
    "A40": Peak(149.7, 74.8, 37.4),
    "A10": Peak(125, 62.5, 31.2),
    "RTX A6000": Peak(154.8, 77.4, 38.7),
    "L40S": Peak(362, 183, 91.6),
    "L40": Peak(181, 90.5, 90.5),
    "L4": Peak(121, 60, 30.3),
    "V100": Peak(125, None, 15.7),
    "V100 PCIE": Peak(112, None, 14),
    "T4": Peak(65, None, 8.1),
    "RTX 4090": Peak(165.2, 82.6, 82.6),
    "RTX 3090": Peak(71, 35.6, 35.6),
}
_OTHERS = {"MIG", "Laptop", "Ti", "D", "SUPER", "Max", "NVL"}


def peak_of(name: str, precision: str) -> float | None:
    """Operations a second of the device that PyTorch calls so; None if that is not known."""
    words = set(re.findall(r"\w+", name))
    fitting = [known for known in _PEAKS if set(known.split()) <= words]
    if not fitting:
        return None
    best = max(fitting, key=lambda known: len(known.split()))
    is_other = _OTHERS & (words - set(best.split()))
    return None if is_other else _PEAKS[best].at(precision)


def peak_of_all(device: torch.device, precision: str, group: ProcessGroup) -> float | None:
    """Of the devices of all processes, which must all ask; None if one of them is not known."""
    own = None
    if device.type == "cuda":
        own = peak_of(torch.cuda.get_device_name(device), precision)
    (is_unknown,) = group.all_reduce_max(own is None)
    if is_unknown:
        return None
    total = torch.tensor([own], dtype=torch.float64)
    group.all_reduce_sum([total])
    return float(total)


def with_utilisation(
    steps: pl.DataFrame, flops_per_step: int | None, peak: float | None
) -> pl.DataFrame:
    """The steps of a training (columns of `StepMetrics`) with `flops_utilisation`, between 0 and 1;
    null where the operations of a step or the peak (a second) are not known."""
    share = pl.lit(None, pl.Float64)
    if flops_per_step is not None and peak is not None:
        per_second = pl.col("samples_per_second") / pl.sum_horizontal(*_POOLS)
        share = per_second * (flops_per_step / peak)
    return steps.with_columns(share.alias(FLOPS_UTILISATION))

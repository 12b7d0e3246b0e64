import polars as pl
import pytest
import torch

from fomo_dagster.distributed.process_group import SINGLE_PROCESS
from fomo_dagster.training import utilisation
from fomo_dagster.training.utilisation import peak_of, peak_of_all, with_utilisation


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-PCIE-40GB", "tf32", 156),
        ("NVIDIA A100-SXM4-40GB", "fp32", 19.5),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "fp16", 835.5),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA L40S", "bf16", 362),
        ("NVIDIA L4", "bf16", 121),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-PCIE-16GB", "fp16", 112),
        ("Tesla T4", "fp32", 8.1),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
    ],
)
def test_the_peak_of_a_device_by_its_name(name, precision, tera):
    assert peak_of(name, precision) == pytest.approx(tera * 1e12)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "bf16"),  # a part of it
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16"),
        ("NVIDIA A10G", "bf16"),  # not an A10
        ("Tesla V100-SXM2-16GB", "bf16"),  # has no such tensor cores
        ("Tesla T4", "tf32"),
        ("AMD Instinct MI300X", "bf16"),
        ("", "bf16"),
    ],
)
def test_no_peak_is_guessed(name, precision):
    assert peak_of(name, precision) is None


def test_the_peaks_of_all_processes_add_up(monkeypatch):
    class TwoProcesses:
        def all_reduce_max(self, *values):
            return values

        def all_reduce_sum(self, tensors):
            for tensor in tensors:
                tensor.mul_(2)

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    device = torch.device("cuda", 0)
    assert peak_of_all(device, "bf16", SINGLE_PROCESS) == pytest.approx(312e12)
    assert peak_of_all(device, "bf16", TwoProcesses()) == pytest.approx(624e12)
    assert peak_of_all(torch.device("cpu"), "bf16", TwoProcesses()) is None


def test_the_utilisation_of_each_step():
    # 50 and 25 steps a second of 2·10¹² operations, where 4·10¹⁴ a second could be
    steps = pl.DataFrame(
        {
            "samples_per_second": [1600.0, 800.0], "update_samples": [16, 16],
            "buffer_samples": [10, 16], "pretraining_samples": [6, 0],
        }
    )  # fmt: skip
    told = with_utilisation(steps, 2 * 10**12, 4e14)[utilisation.FLOPS_UTILISATION]
    assert told.to_list() == pytest.approx([0.25, 0.125])
    for flops, peak in ((None, 4e14), (2 * 10**12, None)):
        untold = with_utilisation(steps, flops, peak)[utilisation.FLOPS_UTILISATION]
        assert untold.to_list() == [None, None]
        assert untold.dtype == pl.Float64

"""Quantities are written with their unit, to the digits that a person wants."""

import pytest

from fomo_dagster.units import (
    all_in_units,
    byte_size,
    counted,
    duration,
    in_units,
    number,
    operations,
    rate,
)


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0 B"), (1, "1 B"), (1023, "1,023 B"), (1024, "1.00 KiB"),
        (1536, "1.50 KiB"), (10_239, "10.0 KiB"), (2**20 - 1, "1.00 MiB"), (2**30, "1.00 GiB"),
        (151.3 * 2**30, "151 GiB"), (1023.7 * 2**30, "1.00 TiB"), (5 * 2**60, "5,120 PiB"),
    ],
)  # fmt: skip
def test_bytes_are_written_in_binary_units(count, written):
    assert byte_size(count) == written


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0 FLOPs"), (999, "999 FLOPs"), (3_646_368, "3.65 MFLOPs"), (999_600, "1.00 MFLOPs"),
        (1.8e18, "1.80 EFLOPs"), (9.996e12, "10.0 TFLOPs"),
    ],
)  # fmt: skip
def test_operations_are_written_in_decimal_units(count, written):
    assert operations(count) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0.0 s"), (0.26, "0.3 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"),
        (185.4, "3 min 05 s"), (3599.6, "1 h 00 min"), (7980, "2 h 13 min"),
        (86_399, "1 d 00 h"), (273_600, "3 d 04 h"),
    ],
)  # fmt: skip
def test_durations_never_show_sixty_of_a_unit(seconds, written):
    assert duration(seconds) == written


def test_the_name_of_a_column_gives_its_unit():
    assert in_units("peak_device_memory_bytes", 2**31) == "2.00 GiB"
    assert in_units("seconds", 61) == "1 min 01 s"
    assert in_units("samples_per_second", 1234.5) == "1,234 samples/s"
    assert in_units("energy_joules", 12_300) == "12.3 kJ"
    assert in_units("samples", 12_345) == "12,345 samples"
    assert in_units("geometric_mean", 1.0) is None


def test_all_quantities_stand_in_one_line_and_other_numbers_do_not():
    values = {"seconds": 0.8, "steps": 2, "peak_device_memory_bytes": 2**31}
    values |= {"samples_per_second": 330.2, "samples": 18}
    assert all_in_units(values) == ("0.8 s, peak device memory 2.00 GiB, 330 samples/s, 18 samples")


def test_counts_rates_and_numbers():
    assert (counted(1, "asset"), counted(1200, "asset")) == ("1 asset", "1,200 assets")
    assert (rate(9.96), rate(3.14159)) == ("10 samples/s", "3.1 samples/s")
    assert [number(v) for v in (0.00364637, 22.36894, 1234567.4)] == [
        "0.00364637", "22.3689", "1,234,567",
    ]  # fmt: skip

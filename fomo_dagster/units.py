"""Quantities for people: bytes, operations, durations, energies, counts.

Programs get plain numbers, in fields and columns whose names end with the unit (`bytes`, `flops`,
`seconds`, `energy_joules`, `samples_per_second`). `in_units` reads the unit from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", "k", "M", "G", "T", "P", "E", "Z", "Y")


def byte_size(count: float) -> str:
    """`512 B`, `1.50 KiB`, `12.3 GiB`."""
    number, unit = _scaled(count, 1024, _BINARY)
    return f"{number} {unit}"


def operations(count: float) -> str:
    """Floating-point operations: `3.65 MFLOPs`."""
    return _decimal(count, "FLOPs")


def energy(joules: float) -> str:
    """`12.3 kJ`."""
    return _decimal(joules, "J")


def duration(seconds: float) -> str:
    """`0.2 s`, `3 min 05 s`, `2 h 13 min`, `3 d 04 h`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours:02d} h"


def counted(number: float, noun: str) -> str:
    """`1 asset`, `12,345 assets`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def rate(per_second: float) -> str:
    """`812 samples/s`; below 10, with a decimal."""
    return f"{per_second:,.{0 if round(per_second, 1) >= 10 else 1}f} samples/s"


def number(value: float) -> str:
    """Any number, to six significant digits, and whole from 100,000 on."""
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:,.6g}"


def in_units(name: str, value: float) -> str | None:
    """A value in the unit that the name of its field or column ends with; None if that is none.

    `in_units("peak_device_memory_bytes", 2**31)` is `2.00 GiB`.
    """
    written = _BY_UNIT.get(name.rpartition("_")[2])
    if name.endswith("_per_second"):
        written = rate
    return None if written is None else written(value)


def all_in_units(values: Mapping[str, float]) -> str:
    """The values that have a unit, in one line: `0.8 s, peak device memory 2.00 GiB`."""
    written = {name: in_units(name, value) for name, value in values.items()}
    labels = {name: " ".join(name.removesuffix("_per_second").split("_")[:-1]) for name in written}
    return ", ".join(f"{labels[n]} {text}".strip() for n, text in written.items() if text)


def _decimal(count: float, unit: str) -> str:
    number, prefix = _scaled(count, 1000, _DECIMAL)
    return f"{number} {prefix}{unit}"


def _scaled(count: float, step: int, names: tuple[str, ...]) -> tuple[str, str]:
    """The number in the largest unit in which it is 1 or more, to three digits; whole numbers of
    the first unit exactly."""
    scaled, place = float(count), 0
    # 999.6 would be rounded to 1,000
    while abs(scaled) >= step - 0.5 and place + 1 < len(names):
        scaled, place = scaled / step, place + 1
    if place == 0 and scaled == round(scaled):
        return f"{scaled:,.0f}", names[0]
    places = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:,.{places}f}", names[place]


_BY_UNIT: Mapping[str, Callable[[float], str]] = {
    "bytes": byte_size,
    "flops": operations,
    "joules": energy,
    "samples": "{:,} samples".format,
    "seconds": duration,
}

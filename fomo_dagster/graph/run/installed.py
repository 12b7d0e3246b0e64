"""What computes on a machine: the versions on which it depends what is made, and how."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fomo_dagster.errors import InputError

EXPECTED = "FOMO_EXPECTED"  # the variable: what the process has that launched this one, as JSON
_CODE = "fomo-dagster's code"
_PACKAGES = (
    "torch", "open_clip_torch", "numpy", "pillow", "polars", "safetensors", "pydantic", "dagster",
)  # fmt: skip
_SHOWN_DIGITS = 12


@cache
def installed() -> Mapping[str, str]:
    """Name → version of what this process computes with, its own code by a digest."""
    code = hashlib.sha256()
    package = Path(__file__).resolve().parents[2]
    for path in sorted(package.rglob("*.py")):
        code.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    found = {_CODE: code.hexdigest()[:_SHOWN_DIGITS], "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What another machine has in another version, both named; empty where all are the same."""
    return ", ".join(
        f"{name} {there.get(name, 'none')}, here {own}"
        for name, own in here.items()
        if there.get(name) != own
    )


def check_expected(machine: str) -> None:
    """Raises `InputError` where the process that launched this one has other versions."""
    expected = json.loads(os.environ.get(EXPECTED, "{}"))
    if different := differences(installed(), expected):
        raise InputError(
            f"{machine} has other versions: {different}: have the same where the run and its work "
            "are, such as in one image"
        )

"""What a command imports before it does anything: what nobody waits for."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "open_clip", "matplotlib", "scipy", "dagster", "duckdb")


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("fomo_dagster.cli.main", (*HEAVY, "polars", "numpy", "pydantic")),
        ("fomo_dagster.cli.planning", HEAVY),
        ("fomo_dagster.cli.running", tuple({*HEAVY} - {"duckdb"})),
    ],
)
def test_a_command_starts_without_what_takes_long(module, without):
    code = f"import sys, {module}; print(sorted({{*{without}}} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"

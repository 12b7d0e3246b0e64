"""The packages that a server needs beside this project's dependencies."""

from __future__ import annotations

from importlib.util import find_spec
from types import MappingProxyType

from fomo_dagster.errors import InputError

EXTRA = "serving"
PACKAGES = MappingProxyType(
    {
        "fastapi": "fastapi",
        "uvicorn": "uvicorn",
        "python_multipart": "python-multipart",
        "prometheus_client": "prometheus-client",
        "onnxruntime": "onnxruntime",
    }
)
"""Import name → distribution."""


def check_packages() -> None:
    """Raise `InputError` if a package is missing, with the command that installs it."""
    missing = [of for name, of in PACKAGES.items() if find_spec(name) is None]
    if missing:
        raise InputError(
            f"`fomo serve` needs {', '.join(missing)}: pip install 'fomo-dagster[{EXTRA}]'"
        )

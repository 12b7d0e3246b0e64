"""Whether `assets` and `resources`, which stand at the top level, are fomo-dagster's own.

They have common names. Another distribution, or the folder that Python was started in, can have a
package of the same name: then one hides the other, or pip has written one over the other.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

from fomo_dagster.errors import InputError

OURS = "fomo-dagster"
TOP_LEVEL = ("assets", "resources")
_HOUSE = Path(__file__).resolve().parents[2]


def check_packages() -> None:
    """Raise `InputError` where a package of such a name is in the way: which file, what to do."""
    for sentence in packages_in_the_way():
        raise InputError(sentence)


def packages_in_the_way() -> Iterator[str]:
    """A sentence for each of `TOP_LEVEL` that is not our own. Nothing of them is imported."""
    for name in TOP_LEVEL:
        ours = _HOUSE / name / "__init__.py"
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found is None:
            yield (
                f"fomo-dagster's package {name!r} is missing: {ours} is not there; repair it with "
                f"`pip install --force-reinstall --no-deps {OURS}`"
            )
        elif found != ours:
            yield f"{found} is in the way of fomo-dagster's package {name!r}: {_way_out(found)}"
        elif (changed := _overwritten(name)) is not None:
            yield (
                f"{changed} is not the file that fomo-dagster installed there: "
                + (f"{_whose(name)}; then " if _whose(name) else "")
                + f"`pip install --force-reinstall --no-deps {OURS}` puts it back"
            )


def _overwritten(name: str) -> Path | None:
    """A file of the package that differs from what pip noted when it installed it."""
    try:
        files = distribution(OURS).files or ()
    except PackageNotFoundError:  # used from a checkout
        return None
    for file in files:
        if file.parts[0] != name or file.hash is None or file.hash.mode != "sha256":
            continue
        path = Path(str(file.locate()))
        try:
            digest = hashlib.sha256(path.read_bytes()).digest()
        except OSError:
            return path
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != file.hash.value:
            return path
    return None


def _whose(name: str) -> str:
    """Which other distributions bring a package of that name, and what to do; empty for none."""
    others = sorted({*packages_distributions().get(name, ())} - {OURS})
    if not others:
        return ""
    return (
        f"it belongs to {' and '.join(others)}: uninstall that, or install {OURS} into an "
        "environment of its own (`python -m venv`)"
    )


def _way_out(path: Path) -> str:
    if said := _whose(path.parent.name):
        return said
    if path.is_relative_to(Path.cwd()):
        return "rename that folder, or start from another one and set FOMO_PROJECT to this"
    return "rename that folder, or take the folder that holds it from PYTHONPATH"

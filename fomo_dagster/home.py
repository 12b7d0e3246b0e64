"""Where things are: the project's declarations and its home folder.

FOMO_PROJECT: the folder with `experiments/` and `datasets/`. By default the working folder if it
has `experiments/`, else the nearest project above it (as `fomo init` creates them), else the
checkout that this package is used from, else the working folder.

FOMO_HOME: everything that is made; by default `.fomo/` in the project.

FOMO_STORE: an fsspec URL that the artifact store mirrors; by default none.

FOMO_DEVICES: which devices work may claim; see `graph/run/devices.py`.

FOMO_LOCKS, FOMO_LEASE_SECONDS: how leases are held; see `store/kernel_locks.py`, `store/claims.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fomo_dagster.errors import InputError
from fomo_dagster.paths import problem_of
from fomo_dagster.shipped import checkout
from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.heads import Heads
from fomo_dagster.store.remotes import Remote
from fomo_dagster.store.users import HomeName
from fomo_dagster.texts import is_text

DEFINITIONS = "fomo_dagster.definitions"  # what Dagster loads, by which a project is known
UI = "FOMO_UI"  # the variable with host:port of the UI, which `fomo ui` sets
SHOWN = "FOMO_SHOWN"  # and that with the experiments that it shows, joined by commas; else all


def project_folder() -> Path:
    """The folder that holds `experiments/` and `datasets/`."""
    named = os.environ.get("FOMO_PROJECT")
    if named:
        folder = _in_text(Path(named).expanduser().resolve())
        if (problem := problem_of(folder, "folder")) is not None:
            raise InputError(f"FOMO_PROJECT is {named!r}: {problem}")
        return folder
    here = Path.cwd()
    if (here / "experiments").is_dir():
        return _in_text(here)
    for above in here.parents:
        if _is_laid_out(above):
            return _in_text(above)
    return checkout() or _in_text(here)


def _is_laid_out(folder: Path) -> bool:
    """Whether a folder is a project: others have `experiments/` too, and know nothing of us."""
    if not (folder / "experiments").is_dir():
        return False
    for name in ("workspace.yaml", "pyproject.toml"):
        try:
            if DEFINITIONS in (folder / name).read_text(errors="replace"):
                return True
        except OSError:
            continue
    return False


def _in_text(folder: Path) -> Path:
    """The folder. Raises `InputError` if its path is not UTF-8: no table holds such names."""
    if not is_text(str(folder)):
        raise InputError(
            f"the path {folder} is not UTF-8: rename that folder, or set FOMO_PROJECT and FOMO_HOME"
        )
    return folder


@dataclass(frozen=True)
class Home:
    """The folder of everything that is made."""

    root: Path
    remote_url: str | None = None

    @classmethod
    def from_environment(cls) -> Home:
        named = os.environ.get("FOMO_HOME")
        root = Path(named).expanduser() if named else project_folder() / ".fomo"
        root = root.resolve()
        there = next(path for path in (root, *root.parents) if path.exists())
        if not there.is_dir():
            raise InputError(
                f"FOMO_HOME is {root}, and {there} is no folder: name a folder, or one to be made"
            )
        return cls(_in_text(root), os.environ.get("FOMO_STORE", "").strip() or None)

    @property
    def store(self) -> Store:
        remote = Remote(self.remote_url, HomeName(self.root)) if self.remote_url else None
        return Store(self.root / "store", remote)

    @property
    def heads(self) -> Heads:
        return Heads(self.root / "heads")

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME."""
        return self.root / "dagster"

    def check_dagster(self) -> None:
        """Raise `InputError` where Dagster cannot keep its databases here: in the addresses that
        it gives SQLite, a path ends at the first `?`."""
        if "?" in str(self.dagster):
            raise InputError(
                f"Dagster cannot keep its databases in {self.dagster}, for the path has a `?`: set "
                "FOMO_HOME to a folder whose path has none, or rename the folder"
            )

    @property
    def resume_points(self) -> Path:
        return self.root / "resume"

    @property
    def cache(self) -> Path:
        """What can be deleted at no cost but time."""
        return self.root / "cache"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

"""Where things are: the project's declarations and its home folder.

FOMO_PROJECT: the folder with `experiments/` and `datasets/`; else the working folder when it has an
`experiments/` folder, else the folder this package stands in.
FOMO_HOME: everything that is made; `.fomo/` in the project by default.
FOMO_STORE: an fsspec URL that the artifact store mirrors; none by default.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fomo_dagster.store.artifacts import Store
from fomo_dagster.store.heads import Heads
from fomo_dagster.store.remotes import Remote


def project_folder() -> Path:
    """The folder that holds `experiments/` and `datasets/`."""
    named = os.environ.get("FOMO_PROJECT")
    if named:
        return Path(named).expanduser().resolve()
    here = Path.cwd()
    return here if (here / "experiments").is_dir() else Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Home:
    """The folder of everything made."""

    root: Path
    remote_url: str | None = None

    @classmethod
    def from_environment(cls) -> Home:
        named = os.environ.get("FOMO_HOME")
        root = Path(named).expanduser() if named else project_folder() / ".fomo"
        return cls(root.resolve(), os.environ.get("FOMO_STORE") or None)

    @property
    def store(self) -> Store:
        remote = Remote(self.remote_url) if self.remote_url else None
        return Store(self.root / "store", remote)

    @property
    def heads(self) -> Heads:
        return Heads(self.root / "heads")

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME."""
        return self.root / "dagster"

    @property
    def resume_points(self) -> Path:
        return self.root / "resume"

    @property
    def cache(self) -> Path:
        """What can be deleted at no loss but time."""
        return self.root / "cache"

    @property
    def leases(self) -> Path:
        return self.root / "leases"

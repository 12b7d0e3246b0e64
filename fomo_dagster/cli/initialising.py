"""`fomo init`: lay out a project, and a first experiment over a person's own images."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from fomo_dagster.cli.bars import Bars
from fomo_dagster.cli.output import Terminal, say
from fomo_dagster.data.benchmark.registry import by_any_name
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.declared_datasets import shipped_datasets
from fomo_dagster.graph.build.names import RESERVED, WORDS
from fomo_dagster.home import DEFINITIONS, Home
from fomo_dagster.project.layout import FIRST, files_of, write_new
from fomo_dagster.project.looking import Looked, look_at

LONGEST = 240  # characters of a sentence about images


def lay_out(root: Path, images: Path | None, console: Console) -> None:
    """Write the files of a project into `root`, and say what was found, written and is next.

    Raises what `look_at` and `write_new` raise; where the images cannot be used, nothing is there.
    """
    root = root.expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: name the folder that the project should be in")
    looked = _look(images, root, console) if images is not None else None
    name = FIRST if looked is None else looked.name
    say(console, ("project ", "bold"), str(root))
    for file, written in write_new(root, files_of(looked)).items():
        state = ("wrote  ", "green") if written else ("kept   ", "yellow")
        say(
            console, "  ", state, file, "" if written else " (it was there; nothing is overwritten)"
        )
    if DEFINITIONS not in (root / "pyproject.toml").read_text(errors="replace"):
        say(
            console,
            "  pyproject.toml does not name Dagster's definitions: add module_name = "
            f'"{DEFINITIONS}" below [tool.dagster], and `dagster` finds them',
        )
    _say_next(root, name, console)


def _look(images: Path, root: Path, console: Console) -> Looked:
    taken = {*RESERVED, *WORDS, *shipped_datasets().declared, *by_any_name(), FIRST}
    cache = _home_of(root).cache
    with Bars(Terminal(stderr=True)) as bars:
        looked = look_at(images, root / "datasets", cache, taken, bars)
    say(console, (looked.name, "bold"), f"  {looked.path}")
    for sentence in looked.sentences():
        more = f"… (all of it: fomo datasets show {looked.name})" if len(sentence) > LONGEST else ""
        say(console, f"  {sentence[:LONGEST]}{more}")
    return looked


def _home_of(root: Path) -> Home:
    return Home.from_environment() if os.environ.get("FOMO_HOME") else Home(root / ".fomo")


def _say_next(root: Path, name: str, console: Console) -> None:
    """The commands that go on from here."""
    say(console, ("next", "bold"))
    if root != Path.cwd():
        say(console, f"  cd {root}")
    for command, does in (
        (f"fomo plan {name}", "what would be computed, and for how long"),
        (f"fomo run {name}", "compute it, and print the scores"),
        ("fomo ui", "Dagster's UI, on this machine alone"),
    ):
        say(console, f"  {command:{len(name) + 10}}  # {does}")
    project = os.environ.get("FOMO_PROJECT")
    if project and Path(project).expanduser().resolve() != root.resolve():
        say(console, f"  FOMO_PROJECT is {project}: unset it, or commands go on using that project")

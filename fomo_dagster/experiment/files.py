"""Where the files of a project's declarations are, and those that ship with the package."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.paths import problem_of, said_of
from fomo_dagster.shipped import shipped_folder

SUFFIXES = (".yaml", ".yml")


def experiment_files(project: Path) -> dict[str, Path]:
    """Experiment name → file, for every file in the project's `experiments/` folder; of two that
    differ in their suffixes alone, which are refused when they are read, the second by all of it.
    """
    return files_by_name(project / "experiments")


def files_by_name(folder: Path) -> dict[str, Path]:
    """Name → file, for every declaration in a folder; see `experiment_files`."""
    files: dict[str, Path] = {}
    for path in declaration_files(folder):
        files[path.name if path.stem in files else path.stem] = path
    return files


def is_declaration(path: Path) -> bool:
    """Whether its name ends as those of experiments and datasets do; hidden files, such as editors
    and macOS leave, are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def declaration_files(folder: Path) -> Iterator[Path]:
    """The declarations in a folder, in the order of their names."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise InputError(said_of(error, folder)) from error
    yield from filter(is_declaration, (folder / name for name in names))


def check_has_no_twin(path: Path) -> None:
    """Raises `InputError` where another file differs from this one in its suffix alone."""
    twins = [p.name for p in path.parent.glob("*") if p.stem == path.stem and is_declaration(p)]
    if len(twins) > 1:
        raise InputError(
            f"{path}: {' and '.join(sorted(twins))} would both be {path.stem!r}: rename or delete "
            "one"
        )


def find_file(name_or_path: str, project: Path) -> Path:
    """The file that a name or a path stands for, the project's before one that ships with the
    package; `InputError` if there is none."""
    known: set[str] = set()
    for folder in (project / "experiments", shipped_folder() / "experiments"):
        files = experiment_files(folder.parent)
        if name_or_path in files:
            return files[name_or_path]
        for suffix in SUFFIXES:  # of a folder below, which Dagster does not load
            below = folder / f"{name_or_path}{suffix}"
            if "/" in name_or_path and below.resolve().is_relative_to(folder.resolve()):
                if below.is_file():
                    return below
                files |= {f"{p.parent.name}/{p.stem}": p for p in below.parent.glob(f"*{suffix}")}
        known |= files.keys()
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() in SUFFIXES:
        if path.is_file():
            return path.resolve()
        raise InputError(problem_of(path, "file") or f"{path} is no file of an experiment")
    raise InputError(
        f"there is no experiment {name_or_path!r} in {project / 'experiments'}; "
        + nearest(name_or_path, known)
    )


def find_declared(name_or_path: str, project: Path, folder: str, what: str) -> Path | None:
    """The file that `FOLDER/NAME`, or a path to one, stands for, the project's before one that
    ships with the package; None for what names none of that folder.

    what: what a file of the folder declares. Raises `InputError` for the name of one that there is
    not.
    """
    path = Path(name_or_path)
    if path.suffix.lower() in SUFFIXES:
        there = path.expanduser().resolve().parent
        is_one = there.name == folder and there.parent.name != "experiments"
        return path.expanduser().resolve() if is_one and path.expanduser().is_file() else None
    folder_named, _, name = name_or_path.rpartition("/")
    if folder_named != folder:
        return None
    known: set[str] = set()
    for root in (project, shipped_folder()):
        files = files_by_name(root / folder)
        if name in files:
            return files[name]
        known |= files.keys()
    try:
        find_file(name_or_path, project)  # an experiment of a folder that is called alike
    except InputError:
        raise InputError(
            f"there is no {what} {name!r} in {project / folder}; " + nearest(name, known)
        ) from None
    return None


def name_of_file(path: Path) -> str:
    """The name of what a file declares. Raises `InputError` where it is no name, or another file
    has the same."""
    check_has_no_twin(path)
    try:
        return check_safe_name(path.stem)
    except ValueError as error:
        raise InputError(f"{path}: {error}: rename the file") from error

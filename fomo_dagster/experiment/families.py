"""The experiments that a file declares: one, or those of its sweep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.extending import merged, nested
from fomo_dagster.experiment.loading import (
    Datasets,
    Loaded,
    declared_in,
    experiment_files,
    experiment_from,
    find_file,
    load_datasets,
)
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.shared_names import with_shared_names
from fomo_dagster.experiment.sweeping import EXTENDS, SWEEP, Point, points_of


@dataclass(frozen=True)
class Family:
    """The experiments of one file. sweep: the name of their sweep; None where there is none."""

    reference: str
    path: Path
    sweep: str | None
    members: tuple[Loaded, ...]

    @property
    def names(self) -> list[str]:
        return [member.experiment.name for member in self.members]

    def member(self, name: str) -> Loaded:
        """The member of a name, whole or without the sweep's; `InputError` if there is none."""
        endings = {self.ending(one.experiment.name): one for one in self.members}
        by_name = {one.experiment.name: one for one in self.members}
        found = endings.get(name) or by_name.get(name)
        if found is None:
            raise InputError(
                f"{self.reference} has no experiment {name!r}; " + nearest(name, endings)
            )
        return found

    def only(self) -> Loaded:
        """The one experiment; `InputError` where there are several to choose from."""
        if len(self.members) > 1:
            raise InputError(
                f"{self.reference} is a sweep of {len(self.members)} experiments: name one, as in "
                f"{self.reference}/{self.ending(self.names[0])}"
            )
        return self.members[0]

    def ending(self, name: str) -> str:
        """A member's name without the sweep's."""
        return name.removeprefix(f"{self.sweep}_")


def load_family(name_or_path: str, project: Path, overrides: Sequence[str] = ()) -> Family:
    """Read what a name or a path to a YAML file stands for: an experiment, a sweep, or one member
    of it (`SWEEP/MEMBER`, or the member's own name where the sweep is in `experiments/` itself).

    overrides: as of `load_experiment`, for every member. Raises `InputError` likewise.
    """
    try:
        path = find_file(name_or_path, project)
    except InputError as not_there:
        found = _member(name_or_path, project, overrides)
        if found is None:
            raise not_there from None
        return found
    return _family(name_or_path, path, project, overrides, load_datasets(project))


def load_all(project: Path) -> list[Loaded]:
    """Every experiment of the project, the members of its sweeps among them."""
    datasets = load_datasets(project)
    files = experiment_files(project).items()
    families = (_family(name, path, project, (), datasets) for name, path in files)
    return [member for family in families for member in family.members]


def _member(reference: str, project: Path, overrides: Sequence[str]) -> Family | None:
    of, _, name = reference.rpartition("/")
    if of:
        try:
            find_file(of, project)
        except InputError:
            return None
        family = load_family(of, project, overrides)
        return replace(family, members=(family.member(name),)) if family.sweep else None
    for file in experiment_files(project):
        try:
            family = load_family(file, project, overrides)
        except InputError:
            continue  # its own commands say what is wrong with it
        if name in family.names and family.sweep:
            return replace(family, members=(family.member(name),))
    return None


def _family(
    reference: str, path: Path, project: Path, overrides: Sequence[str], datasets: Datasets
) -> Family:
    data = declared_in(path, project)
    sweep = data.pop(SWEEP, None)
    if sweep is None:
        return Family(
            reference, path, None, (experiment_from(data, path, project, overrides, datasets),)
        )
    try:
        points = points_of(sweep)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    _check_overrides(overrides, points, path)
    name = str(data["name"])
    made = [(_of_point(point, data, path, project, overrides, datasets), point) for point in points]
    kept = _without_repetitions(made)
    for member, times in Counter(member.experiment.name for member, _ in kept).items():
        if times > 1:
            raise InputError(
                f"{path}: {times} experiments of the sweep are called {member!r}: name the values "
                "that tell them apart, as in `seed: {first: 0, second: 1}`"
            )
    return Family(reference, path, name, tuple(with_shared_names(kept, name)))


def _of_point(
    point: Point,
    data: Mapping[str, Any],
    path: Path,
    project: Path,
    overrides: Sequence[str],
    datasets: Datasets,
) -> Loaded:
    values = dict(data)
    if point.extends is not None:
        parent = declared_in(Path(point.extends), project)
        if parent.pop(SWEEP, None) is not None:
            raise InputError(f"{path}: sweep.{EXTENDS} names {point.extends}, which is a sweep")
        values = merged({k: v for k, v in parent.items() if k != "name"}, values)
    for key, value in point.changes.items():
        values = merged(values, nested(key, value))
    values["name"] = f"{data['name']}_{point.label}"
    where = f"{path} ({point.label})"
    loaded = experiment_from(values, path, project, overrides, datasets, where)
    told = ", ".join(f"{column} {value}" for column, value in point.shown.items())
    description = f"{loaded.experiment.description} ({told})".strip()
    experiment = loaded.experiment.model_copy(update={"description": description})
    return replace(loaded, experiment=experiment, sweep=str(data["name"]), swept=point.shown)


def _check_overrides(overrides: Sequence[str], points: Sequence[Point], path: Path) -> None:
    swept = dict.fromkeys(key for point in points for key in point.changes)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in ("name", SWEEP):
            raise InputError(f"--set {override!r}: {path} is a sweep, whose {key} its file says")
        if key in swept:
            raise InputError(
                f"--set {override!r}: {path} sweeps over {key}; run the one experiment that has "
                "the value, or change the file"
            )


def _without_repetitions(made: Sequence[tuple[Loaded, Point]]) -> list[tuple[Loaded, Point]]:
    """The members, but for those that declare what an earlier one does."""
    kept: list[tuple[Loaded, Point]] = []
    seen: list[Experiment] = []
    for member, point in made:
        bare = member.experiment.model_copy(update={"name": "", "description": ""})
        if bare not in seen:
            seen.append(bare)
            kept.append((member, point))
    return kept

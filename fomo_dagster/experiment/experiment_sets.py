"""The experiments that a file declares, one or those of its sweep; and those of all files.

A fault of one of them is a `Trouble`, and leaves the others alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from fomo_dagster.errors import FomoError, InputError, nearest
from fomo_dagster.experiment.comparison import FOLDER as COMPARISONS
from fomo_dagster.experiment.comparison import LoadedComparison
from fomo_dagster.experiment.declared_datasets import Datasets, load_datasets
from fomo_dagster.experiment.extending import apply_override, merged, nested
from fomo_dagster.experiment.files import experiment_files, find_file
from fomo_dagster.experiment.gallery import LoadedGallery
from fomo_dagster.experiment.loading import Loaded, declared_in, experiment_from
from fomo_dagster.experiment.shared_names import with_shared_names
from fomo_dagster.experiment.sweeping import (
    EXTENDS,
    OF_FILES,
    OF_REPLICATES,
    SWEEP,
    Point,
    points_of,
    with_replicates,
)
from fomo_dagster.galleries.declaration import FOLDER as GALLERIES

T = TypeVar("T")

_PLAIN = frozenset({str, int, float, bool, type(None)})  # what most values of declarations are
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trouble:
    """An experiment, a comparison, a gallery, or a whole file, that cannot be used, and why.

    name: the experiment's, or the sweep's; if nobody knows it, the file's; `comparisons/NAME` or
    `galleries/NAME`.
    loaded: the experiment, if its file is valid by itself.
    """

    name: str
    path: Path
    error: FomoError
    sweep: str | None = None
    loaded: Loaded | None = None

    @property
    def called(self) -> str:
        """What it is, and its name."""
        is_other = self.name.startswith((f"{COMPARISONS}/", f"{GALLERIES}/"))
        return self.name if is_other else f"experiment {self.name}"

    @property
    def sentence(self) -> str:
        """Why, in one line that names the file."""
        said = "; ".join(str(self.error).splitlines())
        return said if str(self.path) in said else f"{self.path}: {said}"


@dataclass(frozen=True)
class ExperimentSet:
    """The experiments of one file, or those that a comparison is about. sweep: the name of their
    sweep; None if there is none. comparison: None if it is of no comparison. gallery: the one that
    is meant, which is about no experiments; None where experiments are.

    troubles: its members that cannot be used; of a file that is no sweep there are none.
    """

    reference: str
    path: Path
    sweep: str | None
    members: tuple[Loaded, ...]
    troubles: tuple[Trouble, ...] = ()
    comparison: LoadedComparison | None = None
    gallery: LoadedGallery | None = None

    @property
    def name(self) -> str:
        """The comparison's or the gallery's, as commands know it, that of the method whose
        replicates they are, the sweep's, or that of the one experiment."""
        if self.gallery is not None:
            return self.gallery.reference
        if self.comparison is not None:
            return self.comparison.reference
        if self.is_several and self.sweep is not None:
            methods = {member.replicate_of for member in self.members}
            return (methods.pop() if len(methods) == 1 else None) or self.sweep
        return self.only().experiment.name

    @property
    def names(self) -> list[str]:
        return [member.experiment.name for member in self.members]

    @property
    def all_names(self) -> list[str]:
        """The names of all members, including those that cannot be used."""
        return [*self.names, *(trouble.name for trouble in self.troubles)]

    @property
    def is_several(self) -> bool:
        """Whether it is several experiments, usable or not."""
        return len(self.all_names) > 1

    def named(self, name: str) -> tuple[Loaded, ...]:
        """The member of a name, whole or without the sweep's, or all replicates of a method of that
        name; `InputError` if there is none."""
        for trouble in self.troubles:
            if name in (trouble.name, self.ending(trouble.name)):
                raise trouble.error
        found: dict[str, tuple[Loaded, ...]] = {}
        for one in self.members:
            found[one.experiment.name] = (one,)
            if one.replicate_of is not None:
                found[one.replicate_of] = (*found.get(one.replicate_of, ()), one)
        by_ending = {self.ending(whole): members for whole, members in found.items()}
        members = by_ending.get(name) or found.get(name)
        if members is None:
            raise InputError(
                f"{self.reference} has no experiment {name!r}; " + nearest(name, by_ending)
            )
        return members

    def knows(self, name: str) -> bool:
        """Whether a member, usable or not, or a method is called so."""
        return name in self.all_names or name in {one.replicate_of for one in self.members}

    def only(self) -> Loaded:
        """The one experiment; `InputError` where there are several to choose from."""
        if self.is_several:
            count, first = len(self.all_names), self.ending(self.names[0])
            raise InputError(
                f"{self.reference} is a sweep of {count} experiments: name one, as in "
                f"{self.reference}/{first}"
            )
        if self.gallery is not None:
            raise InputError(
                f"{self.reference} is a gallery, and an experiment was expected: name one"
            )
        return self.members[0]

    def ending(self, name: str) -> str:
        """A member's name without the sweep's, if it is in one."""
        return name if self.sweep is None else name.removeprefix(f"{self.sweep}_")


def load_experiment_set(
    name_or_path: str, project: Path, overrides: Sequence[str] = ()
) -> ExperimentSet:
    """Read what a name or a path to a YAML file stands for: an experiment, a sweep, or one member
    of it (`SWEEP/MEMBER`, or the member's own name where the sweep is in `experiments/` itself), or
    all replicates of a method of the sweep, named alike.

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


@dataclass(frozen=True)
class Declared:
    """What the files of a project declare, as far as they can be used."""

    experiment_sets: tuple[ExperimentSet, ...]
    datasets: Datasets
    troubles: tuple[Trouble, ...]

    @property
    def experiments(self) -> list[Loaded]:
        """All of them, the members of sweeps among them."""
        return [
            member for experiment_set in self.experiment_sets for member in experiment_set.members
        ]


def load_all(project: Path, overrides: Sequence[str] = ()) -> Declared:
    """Every experiment that a project declares; raises nothing that one of its files is the reason
    of. overrides: as of `load_experiment`, for each."""
    datasets = load_datasets(project)
    experiment_sets: list[ExperimentSet] = []
    troubles: list[Trouble] = []
    for name, path in experiment_files(project).items():
        found = attempted(partial(_family, name, path, project, overrides, datasets), path)
        if isinstance(found, ExperimentSet):
            experiment_sets.append(found)
            troubles += found.troubles
        else:
            troubles.append(Trouble(name, path, found))
    return Declared(tuple(experiment_sets), datasets, tuple(troubles))


def attempted(make: Callable[[], T], path: Path) -> T | FomoError:
    """What `make` makes of a file, or why it cannot, be it by a fault of this program."""
    try:
        return make()
    except FomoError as error:
        return error
    except Exception as error:
        logger.debug("%s", path, exc_info=True)
        kind = type(error).__name__
        return FomoError(f"{path}: a fault of fomo-dagster stops this file ({kind}: {error})")


def _member(reference: str, project: Path, overrides: Sequence[str]) -> ExperimentSet | None:
    of, _, name = reference.rpartition("/")
    if of:
        try:
            find_file(of, project)
        except InputError:
            return None
        experiment_set = load_experiment_set(of, project, overrides)
        return _only(experiment_set, name) if experiment_set.sweep else None
    for file, path in experiment_files(project).items():
        found = attempted(partial(load_experiment_set, file, project, overrides), path)
        if isinstance(found, ExperimentSet) and found.sweep and found.knows(name):
            return _only(found, name)
    return None


def _only(experiment_set: ExperimentSet, name: str) -> ExperimentSet:
    return replace(experiment_set, members=experiment_set.named(name), troubles=())


def _family(
    reference: str, path: Path, project: Path, overrides: Sequence[str], datasets: Datasets
) -> ExperimentSet:
    data = declared_in(path, project)
    of_file = [one for one in overrides if one.partition("=")[0].strip() in OF_REPLICATES]
    for override in of_file:
        apply_override(data, override)
    overrides = [one for one in overrides if one not in of_file]
    sweep = data.pop(SWEEP, None)
    try:
        points = with_replicates(data, points_of(sweep) if sweep is not None else ())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if sweep is None and not points:
        return ExperimentSet(
            reference, path, None, (experiment_from(data, path, project, overrides, datasets),)
        )
    _check_overrides(overrides, points, path)
    name = str(data["name"])
    made: list[tuple[Loaded, Point]] = []
    troubles: list[Trouble] = []
    for point in points:
        make = partial(_of_point, point, data, path, project, overrides, datasets)
        found = attempted(make, path)
        if isinstance(found, Loaded):
            made.append((found, point))
        else:
            troubles.append(Trouble(f"{name}_{point.label}", path, found, sweep=name))
    if not made:
        raise troubles[0].error
    kept = _without_repetitions(made)
    for member, times in Counter(member.experiment.name for member, _ in kept).items():
        if times > 1:
            raise InputError(
                f"{path}: {times} experiments of the sweep are called {member!r}: name the values "
                "that tell them apart, as in `seed: {first: 0, second: 1}`"
            )
    return ExperimentSet(
        reference, path, name, tuple(with_shared_names(kept, name)), tuple(troubles)
    )


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
        is_sweep = parent.get(SWEEP) is not None
        parent = {key: value for key, value in parent.items() if key not in OF_FILES}
        if is_sweep:
            raise InputError(f"{path}: sweep.{EXTENDS} names {point.extends}, which is a sweep")
        values = merged({k: v for k, v in parent.items() if k != "name"}, values)
    for key, value in point.changes.items():
        values = merged(values, nested(key, value))
    values["name"] = f"{data['name']}_{point.label}"
    where = f"{path} ({point.label})"
    loaded = experiment_from(
        values, path, project, overrides, datasets, where, swept=tuple(point.changes)
    )
    told = ", ".join(f"{column} {value}" for column, value in point.shown.items())
    description = f"{loaded.experiment.description} ({told})".strip()
    experiment = loaded.experiment.model_copy(update={"description": description})
    method = "_".join(filter(None, (str(data["name"]), point.without_replicate)))
    return replace(
        loaded, experiment=experiment, sweep=str(data["name"]), swept=point.shown,
        replicate_of=method if point.replicate else None, replicate=point.replicate,
    )  # fmt: skip


def _check_overrides(overrides: Sequence[str], points: Sequence[Point], path: Path) -> None:
    swept = dict.fromkeys(key for point in points for key in point.changes)
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in ("name", SWEEP):
            raise InputError(
                f"--set {override!r}: {path} is a sweep, and only its file can set {key}"
            )
        if key in swept:
            raise InputError(
                f"--set {override!r}: {path} sweeps over {key}; run the one experiment that has "
                "the value, or change the file"
            )


def _without_repetitions(made: Sequence[tuple[Loaded, Point]]) -> list[tuple[Loaded, Point]]:
    """The members, except for those that declare what an earlier one does."""
    kept: list[tuple[Loaded, Point]] = []
    seen = set[Hashable]()
    for member, point in made:
        bare = _frozen(member.experiment.model_copy(update={"name": "", "description": ""}))
        if bare not in seen:
            seen.add(bare)
            kept.append((member, point))
    return kept


def _frozen(value: Any) -> Hashable:
    """What is equal, and has one hash, where values of declarations are equal."""
    kind = type(value)
    if kind in _PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, BaseModel):
        return kind, _frozen(vars(value))
    if isinstance(value, Mapping):
        return frozenset((key, _frozen(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return kind, tuple(map(_frozen, value))
    return frozenset(value) if isinstance(value, set) else value

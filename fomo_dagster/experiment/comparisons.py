"""Which experiments the methods of comparisons are; a comparison as a set of experiments.

A fault of one comparison is a `Trouble`, and leaves the others alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fomo_dagster.errors import FomoError, InputError, nearest
from fomo_dagster.experiment.comparison import (
    FEW,
    LoadedComparison,
    comparison_files,
    find_comparison,
    read_comparison,
    reference_of,
)
from fomo_dagster.experiment.experiment_sets import (
    Declared,
    ExperimentSet,
    Trouble,
    attempted,
    load_all,
    load_experiment_set,
)
from fomo_dagster.experiment.files import experiment_files, find_file
from fomo_dagster.experiment.galleries import gallery_named
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.validating import Place
from fomo_dagster.shipped import shipped_folder


def load_named(name_or_path: str, project: Path, overrides: Sequence[str] = ()) -> ExperimentSet:
    """What a name or a path stands for: a comparison's experiments, a gallery, or as
    `load_experiment_set`.

    overrides: as of `load_experiment`, for every experiment. Raises `InputError` likewise.
    """
    gallery = gallery_named(name_or_path, project)
    if gallery is not None:
        if overrides:
            raise InputError(
                f"--set {overrides[0]!r}: {gallery.reference} is a gallery, and the values are "
                f"those of experiments: change {gallery.path}"
            )
        return gallery
    path = find_comparison(name_or_path, project)
    if path is None:
        return load_experiment_set(name_or_path, project, overrides)
    methods = _Methods(load_all(project, overrides), project, overrides)
    comparison = _loaded(path, methods)
    return ExperimentSet(
        comparison.reference, path, None, comparison.members, comparison=comparison
    )


def load_comparisons(
    project: Path, declared: Declared
) -> tuple[list[LoadedComparison], list[Trouble]]:
    """The comparisons of a project, and those that cannot be used. declared: its experiments."""
    methods, loaded, troubles = _Methods(declared, project), [], []
    for name, path in comparison_files(project).items():
        found = attempted(partial(_loaded, path, methods), path)
        if isinstance(found, LoadedComparison):
            loaded.append(found)
        else:
            troubles.append(Trouble(reference_of(name), path, found))
    return loaded, troubles


def _loaded(path: Path, methods: _Methods) -> LoadedComparison:
    name, declared = read_comparison(path)
    found: dict[str, tuple[Loaded, ...]] = {}
    for written in declared.baseline_first:
        try:
            method, members = methods.of(written)
        except FomoError as error:
            key = "methods" if written in declared.methods else "baseline"
            where = Place(path).begin(str(path), [key])
            raise type(error)(f"{where}: {key} names {written!r}, which {error}") from error
        found[method] = members
    if len(found) < 2:
        raise InputError(f"{path}: " + FEW.format(", ".join(declared.methods)))
    return LoadedComparison(name, path, declared, found)


class _Methods:
    """Methods by their names, among what a project declares and what ships with the package."""

    def __init__(self, declared: Declared, project: Path, overrides: Sequence[str] = ()) -> None:
        self._declared = declared
        self._project = project
        self._overrides = overrides

    def of(self, written: str) -> tuple[str, tuple[Loaded, ...]]:
        """The method's name, and its experiments. Raises `FomoError` with the rest of a sentence
        that begins with what is written, for what is none or cannot be used."""
        name = written.replace("/", "_")
        for trouble in self._declared.troubles:
            if trouble.name in (written, name):
                raise _unusable(trouble.error, trouble.sentence)
        found = _named(name, self._declared.experiments)
        if not found:
            of_file = self._file(written)
            found = _named(name, of_file.members)
            if not found:
                name, found = _only_method(of_file), of_file.members
        for trouble in self._declared.troubles:
            if trouble.sweep == found[0].sweep and trouble.name.startswith(f"{name}_"):
                raise _unusable(trouble.error, trouble.sentence)
        return name, found

    def _file(self, written: str) -> ExperimentSet:
        """What a file declares that is known by another name than its experiments, or is not among
        the project's own."""
        for experiment_set in self._declared.experiment_sets:
            if experiment_set.reference == written:
                return experiment_set
        if not any(map(self._is_file, (written, written.rpartition("/")[0]))):
            experiments = self._declared.experiments
            known = {one.experiment.name for one in experiments}
            known |= {one.replicate_of for one in experiments if one.replicate_of is not None}
            known |= experiment_files(shipped_folder()).keys()
            raise InputError("is no experiment; " + nearest(written, known))
        try:
            return load_experiment_set(written, self._project, self._overrides)
        except FomoError as error:
            raise _unusable(error, str(error)) from error

    def _is_file(self, written: str) -> bool:
        try:
            find_file(written, self._project)
        except InputError:
            return False
        return True


def _named(name: str, experiments: Sequence[Loaded]) -> tuple[Loaded, ...]:
    """The replicates of a name, or else the experiment that has it."""
    replicates = tuple(one for one in experiments if one.replicate_of == name)
    return replicates or tuple(one for one in experiments if one.experiment.name == name)


def _only_method(of_file: ExperimentSet) -> str:
    """The name that all experiments of a file share; `InputError` where it is no single method."""
    names = dict.fromkeys(one.replicate_of or one.experiment.name for one in of_file.members)
    if len(names) > 1:
        raise InputError(
            f"is a sweep of {len(names)} methods: name those that are to be compared, such as "
            f"{', '.join(list(names)[:2])}"
        )
    return next(iter(names))


def _unusable(error: FomoError, sentence: str) -> FomoError:
    return type(error)(f"cannot be used: {sentence}")

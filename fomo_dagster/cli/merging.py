"""`fomo merge`: one file of weights from several, by any technique of merging."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pydantic import TypeAdapter

from fomo_dagster.cli.mergekit_recipes import Recipe, read_recipe
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.extending import apply_override
from fomo_dagster.experiment.validating import validated
from fomo_dagster.merging.technique import Technique
from fomo_dagster.merging.techniques import TECHNIQUES, merge
from fomo_dagster.store.files import replacing
from fomo_dagster.units import byte_size, duration
from fomo_dagster.weights_files import format_of

SAFETENSORS = ".safetensors"
PICKLED = (".pt", ".pth", ".bin")


def declared_technique(name: str, settings: Sequence[str]) -> Technique:
    """The technique of that name with parameters as `key=value`, a dotted key and a YAML value.

    Raises `InputError` for an unknown technique or parameter, and for values it cannot have.
    """
    if name not in TECHNIQUES:
        raise InputError(f"there is no technique {name!r}: {nearest(name, TECHNIQUES)}")
    chosen = TECHNIQUES[name]
    parameters: dict[str, object] = {"technique": name}
    for setting in settings:
        apply_override(parameters, setting)
    technique: Technique = validated(
        TypeAdapter(chosen), parameters, name, chosen, whole="the parameters"
    )
    return technique


def asked_for(
    files: Sequence[Path],
    technique: str | None,
    base: Path | None,
    settings: Sequence[str],
    recipe: Path | None,
) -> Recipe:
    """What to merge, from the command line or from a recipe of mergekit.

    Raises `InputError` for both and for neither, and as `declared_technique` and `read_recipe`.
    """
    beside = {"files": files, "--technique": technique, "--base": base, "--set": settings}
    if recipe is not None:
        if given := [name for name, value in beside.items() if value]:
            raise InputError(
                f"{recipe} says what to merge, and so do {', '.join(given)}: give either"
            )
        return read_recipe(recipe)
    if not files or technique is None:
        missing = "there are no files to merge" if not files else "there is no --technique"
        raise InputError(f"{missing}: give files and --technique, or --recipe alone")
    return Recipe(declared_technique(technique, settings), tuple(files), base)


def merge_files(
    output: Path,
    files: Sequence[Path],
    base: Path | None,
    technique: Technique,
    statistics: Sequence[Path] = (),
) -> str:
    """Write the merge of the files, oldest first, over θ₀; returns what to tell.

    statistics: of what each file was trained on, for the techniques that need them.
    The files are safetensors, or PyTorch files of tensors alone, as their first bytes say; the
    latter are put beside the output as safetensors for the time of the merge. The output replaces
    what was there, whole or not at all.
    Raises `DataError` for a file that is neither; `InputError` for an output of another suffix or
    that is one of the inputs, and for a repair, which takes samples and a model to run them
    through; otherwise as `fomo_dagster.merging.techniques.merge`.
    """
    if technique.repair is not None:
        raise InputError(
            "repair takes samples, and a model to run them through, which files of weights do not "
            "bring: merge in an experiment, or leave repair out"
        )
    given = [*files, *statistics, *([base] if base is not None else [])]
    if output.suffix not in (SAFETENSORS, *PICKLED):
        raise InputError(
            f"{output}: weights are {SAFETENSORS} or {', '.join(PICKLED)}, not {output.suffix!r}"
        )
    if output.resolve() in [path.resolve() for path in given]:
        raise InputError(f"{output} is one of the files to merge: write to another one")
    started = time.monotonic()
    labels: dict[Path, str] = {}
    with replacing(output, named=True) as written, ExitStack() as stack:

        def readable(number: int, path: Path) -> Path:
            if format_of(path) == "safetensors":
                return path
            place = stack.enter_context(_beside(output, f"input{number}"))
            _convert(path, place)
            labels[place] = str(path)
            return place

        models = [readable(number, path) for number, path in enumerate(files, 1)]
        beside = [readable(number, path) for number, path in enumerate(statistics, len(files) + 1)]
        theta = readable(0, base) if base is not None and technique.needs_base else None
        if output.suffix == SAFETENSORS:
            merge(technique, models, written, theta, labels, beside)
        else:
            merged = stack.enter_context(_beside(output, "merged"))
            merge(technique, models, merged, theta, labels, beside)
            _pickle(merged, written)
    return _told(output, files, theta is not None, technique, time.monotonic() - started)


@contextmanager
def _beside(output: Path, purpose: str) -> Iterator[Path]:
    """A path of the form that `replacing` clears away after a process that was killed."""
    place = output.with_name(f".{output.name}.{os.getpid()}-{purpose}")
    try:
        yield place
    finally:
        place.unlink(missing_ok=True)


def _convert(path: Path, place: Path) -> None:
    from safetensors.torch import save_file

    from fomo_dagster.models.weights import read

    # Tensors may share memory in the file, which safetensors do not.
    save_file({name: tensor.contiguous().clone() for name, tensor in read(path).items()}, place)


def _pickle(merged: Path, written: Path) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(merged), written)


def _told(
    output: Path, files: Sequence[Path], over_base: bool, technique: Technique, seconds: float
) -> str:
    parameters = technique.model_dump(mode="json", exclude_none=True, exclude={"technique"})
    shown = ", ".join(f"{name} {value}" for name, value in parameters.items())
    return (
        f"{output}: {technique.technique}{f' ({shown})' * bool(shown)} of "
        f"{', '.join(str(path) for path in files)} (oldest first){' over θ₀' * over_base}, "
        f"{byte_size(output.stat().st_size)} in {duration(seconds)}"
    )

"""What launched processes do, as JSON: nothing that others could have written is ever unpickled.

A task holds the experiment or gallery as it was read, so a process builds the same graph whatever
has changed in the project's files since. The assets' data are checked by digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fomo_dagster.errors import StoreError
from fomo_dagster.experiment.gallery import LoadedGallery
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.graph.build.graph import Graph
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.home import Home
from fomo_dagster.store.recipes import Recipe

_LOADED = TypeAdapter(Loaded)
_GALLERY = TypeAdapter(LoadedGallery)
_OF_GALLERY = "declared"  # a field that experiments do not have


class Task(BaseModel):
    """Make the artifacts of a node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    declared: dict[str, Any]
    """The experiment or gallery that brought the node; see `as_data`."""
    galleries: list[dict[str, Any]] = []
    """Those that an experiment's node asks beside it."""
    home: Home
    key: str
    digests: dict[str, str]
    """Of the recipes, by the names of the artifacts to make."""
    folder: Path | None
    """Where all make one artifact together; None: each makes whole ones, into the store."""
    threads: int | None
    """Of each process, for what runs on the CPU; None: its part of those that PyTorch takes."""
    sharing: int
    """How many such works divide the cores of the machine among themselves."""
    processes: int
    """How many may share what each does, as in `NodeContext`."""
    host: str
    """The machine of the launching process."""
    tells_steps: bool
    """Whether anyone there wants to know the steps of a training."""

    @classmethod
    def read(cls, path: Path) -> Task:
        """The task in a file; raises `StoreError` if it is not one."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise StoreError(f"the task {path} cannot be read ({error}): run again") from error

    def graph(self) -> Graph:
        """The graph of the experiment or gallery alone, or with the galleries that it asks."""
        found = [from_data(one) for one in (self.declared, *self.galleries)]
        return build_graph(
            [one for one in found if isinstance(one, Loaded)],
            galleries=[one for one in found if isinstance(one, LoadedGallery)],
        )

    def recipes(self, node: Node, run_context: RunContext) -> dict[str, Recipe]:
        """The recipes of what there is to make, from what the inputs are here and now.

        Raises `StoreError` if they are not those of the launching process.
        """
        recipes = node.settled(node.input_facts(run_context), run_context)
        for name, digest in self.digests.items():
            found = recipes[name].digest if name in recipes else "nothing of that name"
            if found != digest:
                raise StoreError(
                    f"{node.key}: an input changed after its processes were launched ({name}: "
                    f"{digest[:12]} was expected, but here it is {found[:12]}). Another run "
                    "changed it, or this machine has another version of the code or the data: "
                    "run again"
                )
        return {name: recipes[name] for name in self.digests}


def as_data(loaded: Loaded | LoadedGallery) -> dict[str, Any]:
    """An experiment or a gallery and its datasets as plain data: what was given of each
    declaration, since some may not say even what is the default, and what tells the forms of a
    declaration apart."""
    data: dict[str, Any] = _plain(vars(loaded))
    return data


def from_data(data: Mapping[str, Any]) -> Loaded | LoadedGallery:
    """Raises `StoreError` if the data are not what `as_data` gives."""
    try:
        if _OF_GALLERY in data:
            named = [data[_OF_GALLERY]["dataset"]]
            return _GALLERY.validate_python(data, context={"declared": named})
        return _LOADED.validate_python(data, context={"declared": data["datasets"]})
    except (ValidationError, LookupError, TypeError) as error:
        raise StoreError(f"a task holds no experiment or gallery ({error}): run again") from error


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        given = {name for name in fields if name in value.model_fields_set}
        tags = {name for name, field in fields.items() if _is_tag(field.annotation)}
        return {name: _plain(getattr(value, name)) for name in fields if name in given | tags}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _is_tag(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1

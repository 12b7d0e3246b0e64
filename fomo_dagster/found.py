"""Classes that a package is found to declare, so that adding a file adds them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")


def found_in(room: ModuleType, base: type[T], *, packages: bool = False) -> Iterator[type[T]]:
    """The subclasses of `base` that the modules of the package `room` define, in the order of the
    modules' names and as they stand in each; those that begin with `_` and `base` are left out.

    packages: look only into the packages within it, not into single files.
    """
    names = [module.name for module in iter_modules(room.__path__) if module.ispkg or not packages]
    for name in sorted(names):
        module = import_module(f"{room.__name__}.{name}")
        for thing in vars(module).values():
            if (
                isinstance(thing, type)
                and issubclass(thing, base)
                and thing is not base
                and thing.__module__ == module.__name__
                and not thing.__name__.startswith("_")
            ):
                yield thing

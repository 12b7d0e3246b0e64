"""Writes forms of a model into a folder: all of them, each checked, or none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from fomo_dagster.errors import InputError
from fomo_dagster.exporting.form import Export, Form, Written
from fomo_dagster.exporting.registry import forms_named
from fomo_dagster.exporting.subject import Subject
from fomo_dagster.store.files import new_folder

LeftOut: TypeAlias = Callable[[str, InputError], None]
"""Is told of a form that the model cannot have, and why."""


def write_forms(
    names: Sequence[str], subject: Subject, folder: Path, left_out: LeftOut | None = None
) -> Mapping[str, Written]:
    """Write the named forms below `folder`, which appears when all of them are there. Returns what
    each wrote.

    left_out: leaves out the forms that the model cannot have; None: these are an error.

    Raises `InputError` for an unknown form, a model that cannot have one, a package that is
    missing, or a folder that is there and not empty; `DataError` for what does not compute what
    the model does; `StoreError` for a disk that is full or read-only.
    """
    forms = forms_named(names)
    for form in forms:
        form.check_packages()
    possible = [form for form in forms if _can_have(form, subject, left_out)]
    with new_folder(folder) as place, tempfile.TemporaryDirectory(dir=place) as scratch:
        export = Export(subject=subject, scratch=Path(scratch))
        for form in possible:
            export.written[form.name] = form.write(export, place)
        return dict(export.written)


def _can_have(form: Form, subject: Subject, left_out: LeftOut | None) -> bool:
    try:
        form.check(subject)
    except InputError as error:
        if left_out is None:
            raise
        left_out(form.name, error)
        return False
    return True


def write_form(name: str, subject: Subject, folder: Path) -> Written:
    """`write_forms` of one form."""
    return write_forms([name], subject, folder)[name]

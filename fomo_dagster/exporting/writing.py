"""Writes forms of a model into a folder: all of them, each checked, or none."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from fomo_dagster.exporting.form import Export, Written
from fomo_dagster.exporting.registry import forms_named
from fomo_dagster.exporting.subject import Subject
from fomo_dagster.store.files import new_folder


def write_forms(names: Sequence[str], subject: Subject, folder: Path) -> Mapping[str, Written]:
    """Write the named forms below `folder`, which appears when all of them are there. Returns what
    each wrote.

    Raises `InputError` for an unknown form, a model that cannot have one, a package that is
    missing, or a folder that is there and not empty; `DataError` for what does not compute what
    the model does; `StoreError` for a disk that is full or read-only.
    """
    forms = forms_named(names)
    for form in forms:
        form.check_packages()
    for form in forms:
        form.check(subject)
    with new_folder(folder) as place, tempfile.TemporaryDirectory(dir=place) as scratch:
        export = Export(subject=subject, scratch=Path(scratch))
        for form in forms:
            export.written[form.name] = form.write(export, place)
        return dict(export.written)


def write_form(name: str, subject: Subject, folder: Path) -> Written:
    """`write_forms` of one form."""
    return write_forms([name], subject, folder)[name]

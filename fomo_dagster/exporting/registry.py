"""The forms that a model can be exported in, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.exporting import forms
from fomo_dagster.exporting.form import Form
from fomo_dagster.found import found_in


@cache
def all_forms() -> Mapping[str, Form]:
    """Name → form, in the order in which they are written: a form that tells of others is last."""
    found = [form() for form in found_in(forms, Form)]  # type: ignore[type-abstract]
    return MappingProxyType({form.name: form for form in sorted(found, key=lambda one: one.last)})


def forms_named(names: Iterable[str]) -> list[Form]:
    """The forms, each once, in the order of `all_forms`. Raises `InputError` for another name."""
    known, wanted = all_forms(), set(names)
    for name in sorted(wanted - set(known)):
        raise InputError(f"there is no form {name!r}: {nearest(name, known)}")
    return [form for name, form in known.items() if name in wanted]

"""What all declarations share: their base, fields that were added later, and unions of forms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
)

LARGEST_COUNT = 10**12  # of training steps, which at a millisecond each take 32 years
LARGEST_SEED = 2**63 - 1  # what a column of a table holds


class Declaration(BaseModel):
    """Base of everything declared: frozen, without unknown keys, and without whole numbers of what
    nobody lives to see."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_no_impossible_number(cls, value: Any, info: ValidationInfo) -> Any:
        largest = LARGEST_SEED if info.field_name == "seed" else LARGEST_COUNT
        for number in _whole_numbers(value):
            if abs(number) > largest:
                within = "" if number == value else f", and {number} is in it"
                raise ValueError(f"a whole number must be at most {largest:,}{within}")
        return value


def _whole_numbers(value: Any) -> Iterator[int]:
    """Those in a value, which can be a list or a mapping of them."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, list | tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(one)


def at_default_left_out(default: Any, **field: Any) -> Any:
    """A field that was added when artifacts were already stored. At its default it is left out of
    dumps, and so out of recipes, which keep their digests."""
    return Field(default, exclude_if=lambda value: value == default, **field)


def chosen_by(key: str, default: str | None = None) -> Discriminator:
    """Tells the forms of a union apart by the value of `key`, or `default` if it is not given."""

    def tag(value: Any) -> Any:
        if isinstance(value, dict):
            return value.get(key, default)
        return getattr(value, key, None)

    return Discriminator(tag)


def one_of(forms: Sequence[type[Declaration]], key: str, default: str | None = None) -> Any:
    """The type of a field that holds any of these forms, told apart by the possible values of their
    field `key` (a Literal); `default` if it is not given."""
    branches = tuple(
        Annotated[form, Tag(tag)]
        for form in forms
        for tag in get_args(form.model_fields[key].annotation)
    )
    return Annotated[Union[branches], chosen_by(key, default)]  # noqa: UP007

"""Which parameters a stage trains, as an experiment file says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from fomo_dagster.data.declarations import Declaration


class Parameters(Declaration):
    """Parameters by the globs that their names match; `*` stands for dots too."""

    include: tuple[str, ...] = Field(("*",), min_length=1)
    exclude: tuple[str, ...] = Field((), description="Not trained, though included.")


def _written_as(value: Any) -> str:
    return "globs" if isinstance(value, dict | Parameters) else "a name"


Train = Annotated[
    Annotated[
        Literal["all", "locked_image", "locked_text", "layer_norms", "biases", "projections"],
        Tag("a name"),
    ]
    | Annotated[Parameters, Tag("globs")],
    Discriminator(_written_as),
]

"""The declaration of the parameters that a stage trains."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from fomo_dagster.data.declarations import Declaration


class Parameters(Declaration):
    """Parameters selected by globs over their names. `*` matches dots too."""

    include: tuple[str, ...] = Field(
        ("*",), min_length=1, description="Globs of parameters to train."
    )
    exclude: tuple[str, ...] = Field((), description="Globs of included parameters not to train.")


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

"""What keeps earlier abilities while new ones are learnt, as an experiment file says it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from fomo_dagster.data.declarations import Declaration


class Preservation(Declaration):
    """What all have; what it does is the engine's (`methods/`), in a file of its name."""

    name: str
    carries: ClassVar[bool] = False
    """Whether a stage leaves something in its artifact that the next one starts with."""
    weights_themselves: ClassVar[bool] = False
    """Whether it holds the weights that are trained, so that these must be the model's own."""

    @property
    def reference(self) -> Literal["initial", "deployed"] | None:
        """The weights that a stage looks at beside those it starts from: θ₀ or those deployed
        before it; None: no others."""
        return None

    @property
    def pools(self) -> tuple[Literal["buffer", "pretraining"], ...]:
        """The pools that the mixture must draw from."""
        return ()


class L2(Preservation):
    """`strength / 2 · ‖θ - θ*‖²` beside the loss."""

    name: Literal["l2"]
    weights_themselves: ClassVar[bool] = True
    strength: float = Field(1.0, gt=0)
    to: Literal["start", "initial"] = Field(
        "start", description="θ*: the weights that the stage starts from, or θ₀."
    )

    @property
    def reference(self) -> Literal["initial"] | None:
        return "initial" if self.to == "initial" else None


def _name(value: Any) -> Any:
    return value.get("name") if isinstance(value, dict) else getattr(value, "name", None)


AnyPreservation = Annotated[Annotated[L2, Tag("l2")], Discriminator(_name)]

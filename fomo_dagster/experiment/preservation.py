"""What keeps earlier abilities while new ones are learnt, as an experiment file says it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Tag

from fomo_dagster.data.declarations import Declaration, chosen_by
from fomo_dagster.experiment.backbone import Backbone


class Preservation(Declaration):
    """What all have; what it does is the engine's (`methods/`), in a file of its name."""

    name: str
    carries: ClassVar[bool] = False
    """Whether a stage leaves something in its artifact that the next one starts with."""
    carried_version: ClassVar[int] = 1
    """Raised where a stage makes something else of what the one before left it."""
    of_carried: ClassVar[frozenset[str]] = frozenset()
    """The parameters that act on what was carried alone, and so not at the first stage."""
    of_each_pair: ClassVar[bool] = False
    """Whether it takes gradients of single pairs, each in one process."""
    leaves_replay_features: ClassVar[bool] = False
    """Whether a stage leaves features of its samples for all that come after it."""
    of_likelihood: ClassVar[bool] = False
    """Whether it looks at logits or probabilities, which are what the loss makes of features."""

    @property
    def weights_themselves(self) -> bool:
        """Whether it holds the weights that are trained, so that these must be the model's own."""
        return False

    @property
    def reference(self) -> Literal["initial", "deployed"] | Backbone | None:
        """The weights that a stage looks at beside those it starts from: θ₀, those deployed
        before it, or those of another model; None: no others."""
        return None

    @property
    def pools(self) -> tuple[Literal["update", "buffer", "pretraining"], ...]:
        """The pools that every batch must hold samples of, but that the first stage has no
        buffer."""
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


class _Weighed(Preservation):
    """Holds each weight as much as it counted in the stages before; the first has no penalty."""

    carries: ClassVar[bool] = True
    of_carried: ClassVar[frozenset[str]] = frozenset({"strength", "decay"})
    weights_themselves: ClassVar[bool] = True


class EWC(_Weighed):
    """`strength / 2 · Σ F (θ - θ*)²` beside the loss, F the Fisher information of earlier data."""

    name: Literal["ewc"]
    of_likelihood: ClassVar[bool] = True
    strength: float = Field(1.0, gt=0)
    decay: float = Field(
        1.0, ge=0, le=1, description="Of the Fisher information of all stages before, each stage."
    )
    samples: int = Field(
        2048, ge=1, description="Of the chunk, from which it is estimated; no more than it has."
    )
    batch_size: int = Field(
        64, ge=2, description="Of the estimate: as many texts are told apart for each image."
    )


class SI(_Weighed):
    """`strength · Σ Ω (θ - θ*)²` beside the loss, Ω what each weight did for the loss earlier."""

    name: Literal["si"]
    carried_version: ClassVar[int] = 2  # 1 cut each stage's importances at 0, and not their sum
    strength: float = Field(0.5, gt=0)
    damping: float = Field(0.1, gt=0, description="ξ, added to squared changes of weights.")


class MAS(_Weighed):
    """`strength · Σ Ω (θ - θ*)²` beside the loss, Ω how sensitive outputs of earlier data are."""

    name: Literal["mas"]
    of_each_pair: ClassVar[bool] = True
    strength: float = Field(1.0, gt=0)
    decay: float = Field(
        1.0, ge=0, le=1, description="Of the sensitivities of all stages before, each stage."
    )
    samples: int = Field(
        512, ge=1, description="Of the chunk, each with a backward pass; no more than it has."
    )


class _Distilled(Preservation):
    """Learns from an earlier model too."""

    of_likelihood: ClassVar[bool] = True
    teacher: Literal["initial", "deployed"]
    strength: float = Field(1.0, gt=0)
    temperature: float = Field(2.0, gt=0, description="Divides the logits that are compared.")

    @property
    def reference(self) -> Literal["initial", "deployed"]:
        return self.teacher


class LwF(_Distilled):
    """The teacher's similarities of new images to new texts."""

    name: Literal["lwf"]
    teacher: Literal["initial", "deployed"] = Field(
        "deployed", description="The weights deployed before the stage, or θ₀ at every stage."
    )

    @property
    def pools(self) -> tuple[Literal["update"]]:
        return ("update",)


class ZSCL(_Distilled):
    """The teacher's similarities of reference images and texts, both ways."""

    name: Literal["zscl"]
    teacher: Literal["initial", "deployed"] = Field(
        "initial", description="θ₀, or the weights deployed before the stage."
    )
    l2: float = Field(
        1.0, ge=0, description="`l2 · ‖θ - θ*‖²` to the weights that the stage starts from."
    )

    @property
    def weights_themselves(self) -> bool:
        return self.l2 > 0

    @property
    def pools(self) -> tuple[Literal["update", "pretraining"], ...]:
        return ("update", "pretraining")


class _Replayed(Preservation):
    """Treats the buffer's rows in another way than the others."""

    @property
    def pools(self) -> tuple[Literal["buffer"]]:
        return ("buffer",)


class ER(_Replayed):
    """A contrastive loss of the buffer's rows for themselves."""

    name: Literal["er"]
    alpha: float = Field(1.0, gt=0, description="Times the loss of the buffer's rows.")


class DER(_Replayed):
    """The buffer's rows keep the logits that they had."""

    name: Literal["der"]
    leaves_replay_features: ClassVar[bool] = True
    of_likelihood: ClassVar[bool] = True
    alpha: float = Field(0.3, gt=0, description="Times the squared difference of logits.")


class DERPP(_Replayed):
    """DER++: the buffer's rows keep the logits that they had, and are learnt beside."""

    name: Literal["derpp"]
    leaves_replay_features: ClassVar[bool] = True
    of_likelihood: ClassVar[bool] = True
    alpha: float = Field(0.1, gt=0, description="Times the squared difference of logits.")
    beta: float = Field(0.5, gt=0, description="Times the loss of the buffer's rows.")


class Transfer(Preservation):
    """What another model knows, where it knows it better than the weights at the stage's start."""

    name: Literal["transfer"]
    of_likelihood: ClassVar[bool] = True
    teacher: Backbone = Field(
        exclude=True,  # it is an asset of its own, whose identity is that of what depends on it
        description="Any OpenCLIP model, with an image size and a tokeniser of its own.",
    )
    supervised: bool = Field(
        True,
        description="An image is learnt from the model that finds its text the more probable; "
        "false: from the one whose highest probability is the higher.",
    )
    strength: float = Field(1.0, gt=0)
    temperature: float = Field(2.0, gt=0, description="Divides the logits that are compared.")

    @property
    def reference(self) -> Backbone:
        return self.teacher


AnyPreservation = Annotated[
    Annotated[L2, Tag("l2")]
    | Annotated[EWC, Tag("ewc")]
    | Annotated[SI, Tag("si")]
    | Annotated[MAS, Tag("mas")]
    | Annotated[LwF, Tag("lwf")]
    | Annotated[ZSCL, Tag("zscl")]
    | Annotated[ER, Tag("er")]
    | Annotated[DER, Tag("der")]
    | Annotated[DERPP, Tag("derpp")]
    | Annotated[Transfer, Tag("transfer")],
    chosen_by("name"),
]

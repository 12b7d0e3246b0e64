"""The declaration of a model: an architecture, and where its weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from fomo_dagster.data.dataset import PretrainingPool
from fomo_dagster.data.declarations import Declaration, at_default_left_out
from fomo_dagster.errors import nearest
from fomo_dagster.experiment.backbone_names import BACKBONES, name_of, whole_backbone
from fomo_dagster.experiment.names import check_safe_name
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.methods.loss.declaration import AnyLoss

ORIGINS = ("pretrained", "weights", "pretraining")
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")

_Scale = Annotated[float, Field(gt=0)]


def can_be_a_folder(weights: Any) -> bool:
    """Whether it is a path, and as it is written not that of a file of weights."""
    return isinstance(weights, str | Path) and Path(weights).suffix not in WEIGHTS_SUFFIXES


class PretrainingRecipe(TrainingSettings):
    """θ₀ trained here from random weights, on a pretraining pool."""

    pool: PretrainingPool = Field(description="The pool to train on.")
    seed: int = Field(0, description="Seed of the initial weights and of the training.")

    @model_validator(mode="after")
    def _is_no_stage(self) -> PretrainingRecipe:
        if self.budget.mafs is not None:
            raise ValueError(
                "budget.mafs is divided among the stages of a stream, and pretraining has "
                "none: give its budget in samples, steps or epochs"
            )
        return self


class Preprocessing(Declaration):
    """What images must look like. What you leave out is the model's own."""

    mean: tuple[float, float, float] | None = Field(
        None, description="Subtracted from the red, green and blue of an image in [0, 1]."
    )
    std: tuple[_Scale, _Scale, _Scale] | None = Field(None, description="Divides what remains.")
    interpolation: Literal["bicubic", "bilinear"] | None = Field(
        None, description="How images are resized."
    )
    resize_mode: Literal["shortest", "longest", "squash"] | None = Field(
        None,
        description="How an image becomes square in evaluation. shortest: fit the shortest side "
        "and crop the centre. longest: fit the longest side and pad. squash: fit "
        "both.",
    )


class Backbone(Declaration):
    """An OpenCLIP architecture, and where its weights come from.

    A text can stand for all of it: a name of `BACKBONES`, or OpenCLIP's `architecture/tag`.
    """

    name: str = Field(
        description="Names the asset `backbones/<name>`; a backbone given as text names itself."
    )
    architecture: str | dict[str, Any] = Field(
        "",
        description="The name of an OpenCLIP architecture, a model configuration in its format, "
        "or a text for architecture and weights (openclip_vit_b32, "
        "ViT-B-32/laion2b_s34b_b79k). Leave it out if weights are a folder, which "
        "says it.",
    )
    pretrained: str | None = Field(None, description="An OpenCLIP pretrained tag.")
    weights: Path | None = Field(
        None,
        description="A local file in OpenCLIP's format, or a folder in Hugging Face's layout: "
        "with open_clip_config.json, or with config.json of transformers' CLIPModel. "
        "Together with a tag: a file of that tag's weights.",
    )
    pretraining: PretrainingRecipe | None = Field(
        None, description="Train the weights here, by this recipe."
    )
    preprocessing: Preprocessing | None = at_default_left_out(
        None, description="Prepare images differently from what the model says."
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        described = "openclip_vit_b32 and the like, or an OpenCLIP architecture/tag."
        return {"anyOf": [{"type": "string", "description": described}, handler(schema)]}

    @property
    def images(self) -> dict[str, Any]:
        """The declared preprocessing, as plain data."""
        if self.preprocessing is None:
            return {}
        return self.preprocessing.model_dump(mode="json", exclude_none=True)

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, data: Any) -> Any:
        """Texts become what they stand for, so that both are one and the same."""
        if isinstance(data, str):
            if whole_backbone(data) is None:
                raise ValueError(
                    "a text must be the name of a backbone or architecture/tag; "
                    + nearest(data, BACKBONES)
                )
            data = {"architecture": data}
        text = data.get("architecture") if isinstance(data, dict) else None
        named = whole_backbone(text)
        if named is None:
            return data
        for other in ("pretrained", "pretraining"):
            if data.get(other) is not None:
                raise ValueError(
                    f"architecture {text!r} also names weights, and {other} names others: give "
                    f"only the architecture, {named.architecture!r}"
                )
        if named.pretrained is None and data.get("weights") is None:
            raise ValueError(
                f"OpenCLIP has no tag for the weights of {text!r}: give their file as `weights`"
            )
        return {"name": name_of(str(text)), **data, **named._asdict()}

    @model_validator(mode="after")
    def _has_one_origin(self) -> Backbone:
        check_safe_name(self.name)
        given = [k for k in ORIGINS if getattr(self, k) is not None]
        if len(given) != 1 and given != ["pretrained", "weights"]:
            raise ValueError(
                "exactly one of pretrained, weights, pretraining must be given (or pretrained and "
                f"weights, for a file of the tag's weights), not {given or 'none'}"
            )
        if not self.architecture and not can_be_a_folder(self.weights):
            raise ValueError(
                "architecture is missing: you can leave it out only if weights are a folder "
                "that states it"
            )
        if self.pretraining is not None:
            self.check_goes_with(self.pretraining.loss)
        return self

    def check_goes_with(self, loss: AnyLoss) -> None:
        """Raises `ValueError` if the loss needs what the configuration does not give. The
        configuration of an architecture that is a name is not known here."""
        if loss.name != "siglip" or isinstance(self.architecture, str):
            return
        if self.architecture.get("init_logit_bias") is None:
            raise ValueError(
                f"loss.name is siglip, and the architecture of {self.name} has no init_logit_bias: "
                "give it one, -10 as SigLIP's"
            )

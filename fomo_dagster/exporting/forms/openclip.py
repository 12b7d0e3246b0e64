"""The form of OpenCLIP: safetensors, with the architecture beside them if it has no name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fomo_dagster.errors import DataError
from fomo_dagster.exporting.form import Export, Form, Written

if TYPE_CHECKING:
    from fomo_dagster.exporting.features import FeatureErrors
    from fomo_dagster.models.backbones import Model


class OpenClipForm(Form):
    """Weights that `open_clip.create_model` loads."""

    name = "openclip"
    description = "safetensors that `open_clip.create_model` loads"
    needs_samples = False

    def write(self, export: Export, folder: Path) -> Written:
        from fomo_dagster.models.backbones import export as write_openclip

        subject = export.subject
        file = f"{subject.provenance.file_name}.safetensors"
        place = folder / self.name / file
        architecture = subject.model.architecture
        write_openclip(subject.model.module.state_dict(), architecture, place)
        name = architecture if isinstance(architecture, str) else place.stem
        lines = ["import open_clip", ""]
        if not isinstance(architecture, str):
            lines.append(f'open_clip.add_model_config("{self.name}/{place.stem}.json")')
        lines.append(f'model = open_clip.create_model("{name}", pretrained="{self.name}/{file}")')
        lines.append(f'tokenise = open_clip.get_tokenizer("{name}")')
        return Written(
            place=self.name, loading="\n".join(lines), errors=_errors(export, place),
            notes=tuple(_notes(subject.model)),
        )  # fmt: skip


def _errors(export: Export, file: Path) -> FeatureErrors | None:
    """How far what was written is from the model; None where only others can load it."""
    from fomo_dagster.exporting.features import TOLERANCE, FeatureErrors, on_cpu, unit_features
    from fomo_dagster.exporting.samples import made_up_samples
    from fomo_dagster.models.backbones import load_exported

    model = export.subject.model
    if _tower_of_others(model) is not None:
        return None
    samples = export.samples if export.subject.evaluated else made_up_samples(model)
    with on_cpu(model) as own:
        expected = unit_features(own, samples, "the model")
    written = load_exported(model.architecture, file)
    errors = FeatureErrors.of(unit_features(written, samples, file.name), expected)
    if errors.greatest > TOLERANCE:
        raise DataError(
            f"{file.name}, read again, computes other features than the model: they differ by up "
            f"to {errors.greatest:.1e}, and {TOLERANCE:.0e} is allowed"
        )
    return errors


def _tower_of_others(model: Model) -> str | None:
    """The text tower of Hugging Face that a configuration names, whose own files lie elsewhere."""
    architecture = model.architecture
    if isinstance(architecture, str):
        return None
    name: str | None = architecture["text_cfg"].get("hf_model_name")
    return name


def _notes(model: Model) -> Iterator[str]:
    told = {
        "mean": model.mean, "std": model.std, "interpolation": model.interpolation,
        "resize_mode": model.resize_mode,
    }  # fmt: skip
    usual = model.module.visual.preprocess_cfg
    other = {key: value for key, value in told.items() if value != usual[key]}
    if other:
        settings = ", ".join(f"{key} {value}" for key, value in other.items())
        yield f"images are prepared otherwise than by OpenCLIP's transforms by default: {settings}"
    if (tower := _tower_of_others(model)) is not None:
        yield f"it was not read again, since the files of its text tower {tower!r} lie elsewhere"
    architecture = model.architecture
    if isinstance(architecture, dict) and architecture["text_cfg"].get("hf_tokenizer_name"):
        name = architecture["text_cfg"]["hf_tokenizer_name"]
        yield f"its tokeniser {name!r} lies in the folder that θ₀'s weights came from: copy it"

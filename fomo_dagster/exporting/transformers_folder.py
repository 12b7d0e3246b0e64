"""Writes a model as a folder that Hugging Face's transformers loads, with its processor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from torch import nn

from fomo_dagster.errors import DataError, InputError
from fomo_dagster.exporting.equivalents import equivalent, features
from fomo_dagster.exporting.fast_tokeniser import END, START, fast_tokeniser, mended
from fomo_dagster.exporting.features import TOLERANCE, FeatureErrors, on_cpu, unit_features
from fomo_dagster.exporting.form import Export, Written
from fomo_dagster.exporting.samples import Samples
from fomo_dagster.exporting.subject import Subject
from fomo_dagster.models.backbones import Model

_RESAMPLING = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers
_WAY_OUT = "The forms openclip and onnx work"


def check(subject: Subject) -> None:
    """Raise `InputError` if transformers has no equivalent of the model."""
    if subject.model.resize_mode == "longest":
        raise InputError(
            f"transformers cannot prepare the images of the architecture {_named(subject)}, which "
            f"are padded to a square (resize_mode: longest). {_WAY_OUT}"
        )
    equivalent(subject.model, _named(subject))
    _tokeniser(subject, [""])


def write_folder(export: Export, folder: Path, name: str) -> Written:
    """Write `folder / name`. Raises as `Form.write` does."""
    subject, samples = export.subject, export.samples
    place = folder / name
    module = equivalent(subject.model, _named(subject))
    kind = type(module).__name__
    with _without_bars():
        module.save_pretrained(place)
        written = type(module).from_pretrained(place).eval()
    errors = _errors(written, subject.model, samples)
    if errors.greatest > TOLERANCE:
        raise DataError(
            f"transformers' {kind} of the architecture {_named(subject)}, read again, computes "
            f"other features than the model: they differ by up to {errors.greatest:.1e}, and "
            f"{TOLERANCE:.0e} is allowed"
        )
    images = _image_processor(subject.model, kind)
    images.save_pretrained(place)  # where versions before 5 look for it
    tokeniser = _tokeniser(subject, samples.texts)
    _processor_class(kind)(image_processor=images, tokenizer=tokeniser).save_pretrained(place)
    return Written(
        place=name,
        loading=_loading(kind, name),
        errors=errors,
        notes=_notes(subject.model, kind, samples.texts),
    )


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers shows a bar for writing a single file."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _named(subject: Subject) -> str:
    architecture = subject.model.architecture
    if isinstance(architecture, str):
        return architecture
    return f"that {subject.provenance.experiment} configures"


def _errors(module: Any, model: Model, samples: Samples) -> FeatureErrors:
    with on_cpu(model) as own:
        expected = unit_features(own, samples, "the model")
    found = [
        nn.functional.normalize(one, dim=-1)
        for one in features(module, samples.images, samples.tokens)
    ]
    return FeatureErrors.of((found[0], found[1]), expected)


def _processor_class(kind: str) -> Any:
    import transformers

    return transformers.CLIPProcessor if kind == "CLIPModel" else transformers.SiglipProcessor


def _image_processor(model: Model, kind: str) -> Any:
    import transformers

    size = model.image_size
    told: dict[str, Any] = {
        "image_mean": list(model.mean), "image_std": list(model.std),
        "resample": _RESAMPLING[model.interpolation], "do_convert_rgb": True,
    }  # fmt: skip
    square = {"height": size, "width": size}
    if model.resize_mode == "squash":
        told |= {"size": square, "do_center_crop": False}
        if kind == "SiglipModel":
            del told["do_center_crop"]
            return transformers.SiglipImageProcessor(**told)
        return transformers.CLIPImageProcessor(**told)
    # SigLIP's own image processor cannot cut: CLIP's serves both kinds.
    told |= {"size": {"shortest_edge": size}, "crop_size": square, "do_center_crop": True}
    return transformers.CLIPImageProcessor(**told)


def _tokeniser(subject: Subject, texts: Sequence[str]) -> Any:
    import transformers

    tokenize: Any = subject.model.tokenize
    try:
        made = fast_tokeniser(tokenize, texts)
    except InputError as reason:
        raise InputError(
            f"transformers has no equivalent of the architecture {_named(subject)}: {reason}. "
            + _WAY_OUT
        ) from reason
    length = int(tokenize.context_length)
    if not isinstance(tokenize, open_clip.SimpleTokenizer):
        inner = tokenize.tokenizer
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=made, model_max_length=length, padding_side="right",
            model_input_names=["input_ids"], **inner.special_tokens_map,
        )  # fmt: skip
    # Padding comes after a text's end, which nothing before it sees: any token does.
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=length, **special
    )


def _loading(kind: str, place: str) -> str:
    processor = _processor_class(kind).__name__
    return "\n".join(
        [
            f"from transformers import {kind}, {processor}",
            "",
            f'model = {kind}.from_pretrained("{place}").eval()',
            f'processor = {processor}.from_pretrained("{place}", backend="pil")',
            'inputs = processor(text=["a photo of a cat"], images=[image], return_tensors="pt",',
            '                   padding="max_length", truncation=True)',
            "similarities = model(**inputs).logits_per_image",
        ]
    )


def _notes(model: Model, kind: str, texts: Sequence[str]) -> tuple[str, ...]:
    notes = [
        'backend="pil" resizes images as they were evaluated; the default of transformers, '
        "torchvision, gives pixels that differ a little",
        "OpenCLIP mends broken encodings and HTML's entities in texts first, and transformers does "
        "not" + (f": {count} of {len(texts)} texts here" if (count := len(mended(texts))) else ""),
    ]
    if kind == "CLIPModel" and getattr(model.module, "logit_bias", None) is not None:
        bias = float(model.module.logit_bias.detach())
        notes.append(
            f"CLIPModel has no bias of similarities, and the model has {bias:g}: the order of "
            "similarities and their softmax are the same, the sigmoid's probabilities are not"
        )
    return tuple(notes)

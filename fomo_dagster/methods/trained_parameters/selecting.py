"""Which of a model's parameters a stage trains, and in which mode each part of the model trains.

The image tower is OpenCLIP's `visual`. Everything else, including the logit scale, is the text
tower (`freeze_features` and `freeze_head` of FoMo-in-Flux, arXiv 2408.14471).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase

from torch import nn

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.methods.trained_parameters.declaration import Parameters, Train
from fomo_dagster.models.backbones import Clip

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

# As OpenCLIP's towers name them: its own, those from timm and Hugging Face, and its ResNets'.
_PROJECTIONS: Mapping[str, tuple[str, ...]] = {
    "image": ("visual.proj", "visual.proj.*", "visual.head.proj.*", "visual.attnpool.c_proj.*"),
    "text": (
        "text_projection", "text_projection.*", "text.text_projection", "text.text_projection.*",
        "text.proj", "text.proj.*",
    ),
}  # fmt: skip


def select_trained(module: Clip, train: Train) -> dict[str, nn.Parameter]:
    """Make the module ready to train, and return the parameters that shall, by name.

    `train` is one of:

    - all, or one tower: locked_image, locked_text;
    - layer_norms (LNFit): gains and biases of all layer norms, `ln_pre`, `ln_post` and `ln_final`
      among them;
    - biases (BitFit, arXiv 2106.10199): of all layers, those of norms among them;
    - projections (linear probing): of both towers into the space that they share;
    - globs over names. What they include is trained except for what they exclude.

    The logit scale is trained by all, by locked_image and by globs that include it, and by nothing
    else, as in the benchmark. A parameter that is not trained asks for no gradient, so that no
    backward pass is paid for what lies before it. What the architecture itself keeps fixed (a
    sine-cosine position embedding) stays so. For modes see `set_modes`.

    Raises `InputError` for another value of `train`, and where it selects nothing: a glob that
    matches no parameter, a tower without such a projection.
    """
    names = [name for name, value in module.named_parameters() if value.requires_grad]
    selected = set(_select(module, train, names))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in selected)
    set_modes(module)
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def set_modes(module: Clip) -> None:
    """Training mode where there is something to train. A tower without trained parameters is in
    evaluation mode, without dropout. So is a batch norm whose parameters are not trained, so its
    statistics stay as they are."""
    trained = [name for name, value in module.named_parameters() if value.requires_grad]
    towers = {tower_of(name) for name in trained}
    module.train()
    for name, part in module.named_children():
        if tower_of(name) not in towers:
            part.eval()
    for part in module.modules():
        own = list(part.parameters(recurse=False))
        if isinstance(part, BATCH_NORMS) and own and not any(p.requires_grad for p in own):
            part.eval()


def _select(module: Clip, train: Train, names: Collection[str]) -> Collection[str]:
    if isinstance(train, Parameters):
        return _by_globs(train, names)
    if train not in _BY_NAME:
        raise InputError(f"method.train has no {train!r}: {nearest(train, _BY_NAME)}")
    chosen = _BY_NAME[train](module)
    selected = [name for name in names if name in chosen]
    if not selected:
        raise InputError(f"method.train is {train}, but the architecture has none of them to train")
    return selected


def _towers(*trained: str) -> Callable[[Clip], set[str]]:
    return lambda module: {n for n, _ in module.named_parameters() if tower_of(n) in trained}


def _layer_norms(module: Clip) -> set[str]:
    return {
        f"{name}.{own}"
        for name, part in module.named_modules()
        if isinstance(part, nn.LayerNorm)
        for own, _ in part.named_parameters()
    }


def _biases(module: Clip) -> set[str]:
    """`bias` of a layer and `in_proj_bias` of an attention, but not SigLIP's `logit_bias`, which
    belongs to the loss."""
    return {
        name
        for name, _ in module.named_parameters()
        if f"_{name.rpartition('.')[2]}".endswith("_bias") and name != "logit_bias"
    }


def _projections(module: Clip) -> set[str]:
    names = [name for name, _ in module.named_parameters()]
    chosen = set()
    for tower, globs in _PROJECTIONS.items():
        found = {name for name in names if any(fnmatchcase(name, glob) for glob in globs)}
        if not found:
            raise InputError(
                f"method.train is projections, but the {tower} tower has none that is known by its "
                "name: give it as a glob, `train: {include: [...]}`"
            )
        chosen |= found
    return chosen


_BY_NAME: Mapping[str, Callable[[Clip], set[str]]] = {
    "all": _towers("image", "text"),
    "locked_image": _towers("text"),
    "locked_text": _towers("image"),
    "layer_norms": _layer_norms,
    "biases": _biases,
    "projections": _projections,
}


def _by_globs(train: Parameters, names: Collection[str]) -> Collection[str]:
    matched: dict[str, set[str]] = {}
    for key, globs in (("include", train.include), ("exclude", train.exclude)):
        matched[key] = set()
        for glob in globs:
            found = {name for name in names if fnmatchcase(name, glob)}
            if not found:
                raise InputError(
                    f"method.train.{key} has {glob!r}, which matches none of the model's "
                    f"parameters: {nearest(glob, names)}"
                )
            matched[key] |= found
    selected = matched["include"] - matched["exclude"]
    if not selected:
        raise InputError("method.train excludes everything that it includes: nothing is trained")
    return selected


def tower_of(name: str) -> str:
    """image or text, from the name of a parameter or part of a module."""
    return "image" if name.partition(".")[0] == "visual" else "text"

"""Finds classes that no model can tell apart, because its tokeniser gives the same tokens for all
their prompts.

`Crane` and `crane` are the same to a tokeniser that lowers its texts. Names that differ only past
the context length are the same to any. CLIP's tokeniser is asked without PyTorch. Any other is
loaded once, as are OpenCLIP's sets of templates, and the result is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fomo_dagster.errors import FomoError
from fomo_dagster.evaluation.prompts import PLACE, templates_of
from fomo_dagster.experiment.evaluation import Prompts, Waffle
from fomo_dagster.models.clip_tokens import AROUND, context_length, tokens_of, words_of
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.files import skipped_where_refused, write_bytes

Groups = tuple[tuple[str, ...], ...]
"""Classes, each group those that are one to the model."""

VERSION = 1  # raised when the same classes would be grouped otherwise


def alike_classes(
    classes: Sequence[str],
    prompts: Prompts,
    own_prompt: str,
    architecture: str | Mapping[str, Any],
    folder: Path | None,
    kept: Path,
    *,
    may_fetch: bool = False,
) -> Groups | None:
    """The classes whose texts have equal token rows in every template; None if nobody knows.

    prompts, own_prompt: see `templates_of`. folder: the folder of the weights, if it states the
    architecture. kept: a folder for results. may_fetch: whether to fetch a tokeniser that only a
    hub has.
    """
    is_set = isinstance(prompts, Waffle) or prompts in ("openai", "simple")
    length = context_length(architecture)
    if length is not None and not is_set:
        return _of_clip(classes, templates_of(prompts, own_prompt), length)
    path = kept / f"{_identity(classes, prompts, own_prompt, architecture, folder)}.json"
    try:
        return tuple(map(tuple, json.loads(path.read_bytes())))
    except (OSError, ValueError):
        pass
    if length is None and isinstance(architecture, str) and not may_fetch:
        return None
    templates = templates_of(prompts, own_prompt)
    if length is not None:
        groups = _of_clip(classes, templates, length)
    else:
        try:
            groups = equal_in_all(classes, templates, _tokens(architecture, folder))
        except FomoError:  # whoever encodes texts with it will say so
            return None
    with skipped_where_refused():
        write_bytes(path, json.dumps(groups).encode())
    return groups


def said_of(dataset: str, groups: Groups) -> str:
    """The sentence about a dataset's classes that are alike."""
    pairs = [" and ".join(map(repr, group[:5])) for group in groups]
    more = f" and {len(pairs) - 5} more groups" if len(pairs) > 5 else ""
    return (
        f"dataset {dataset!r} has {sum(map(len, groups))} classes that no model can tell apart, "
        f"since their prompts have the same tokens: {'; '.join(pairs[:5])}{more}. Rename them, or "
        "make each group one class"
    )


def equal_in_all(
    classes: Sequence[str], templates: Sequence[str], key: Callable[[str], Hashable]
) -> Groups:
    """The classes, in groups of two and more, whose texts have equal keys in every template."""
    groups = [list(classes)]
    for template in templates:
        parts: list[list[str]] = []
        for group in groups:
            by_key: dict[Hashable, list[str]] = {}
            for name in group:
                by_key.setdefault(key(template.replace(PLACE, name)), []).append(name)
            parts += by_key.values()
        groups = [part for part in parts if len(part) > 1]
    return tuple(map(tuple, groups))


def _of_clip(classes: Sequence[str], templates: Sequence[str], length: int) -> Groups:
    """What CLIP's tokeniser of that context length makes equal.

    A token stands for one byte or more, so that only texts whose first bytes are equal are worth
    tokenising.
    """
    room = length - AROUND
    begin = equal_in_all(classes, templates, lambda t: "".join(words_of(t)).encode()[:room])
    may_be = {name for group in begin for name in group}
    names = [name for name in classes if name in may_be]  # so that groups are in their order
    return equal_in_all(names, templates, lambda text: tokens_of(text)[:room])


def _tokens(
    architecture: str | Mapping[str, Any], folder: Path | None
) -> Callable[[str], Hashable]:
    from fomo_dagster.models.tokenisers import tokeniser_of  # with PyTorch

    tokenise = tokeniser_of(architecture, folder)
    return lambda text: tuple(tokenise([text])[0].tolist())


def _identity(
    classes: Sequence[str],
    prompts: Prompts,
    own_prompt: str,
    architecture: str | Mapping[str, Any],
    folder: Path | None,
) -> str:
    files = [] if folder is None else sorted(p for p in folder.iterdir() if p.is_file())
    return digest_of(
        {
            "version": VERSION,
            "open_clip": version("open_clip_torch"),
            "classes": list(classes),
            "prompts": prompts.model_dump() if isinstance(prompts, Waffle) else prompts,
            "prompt": own_prompt,
            "architecture": architecture,
            "files": [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files],
        }
    )

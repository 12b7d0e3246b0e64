"""The page about an exported model, as Markdown. It tells only what is known: equal input, equal
page."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fomo_dagster.exporting.form import Export, Written
from fomo_dagster.exporting.licences import NOT_DECLARED, said_of
from fomo_dagster.exporting.score_loss import ROLES, Change, ScoreLoss, mean_score, score_intervals
from fomo_dagster.exporting.subject import Provenance, Subject
from fomo_dagster.statistics.intervals import Interval
from fomo_dagster.units import byte_size, counted

_SOFTWARE = ("fomo-dagster", "torch", "open_clip_torch", "transformers", "onnx", "onnxruntime")
_NO_CODE = str.maketrans({"|": "\\|", "\n": " ", "<": "&lt;"})


def model_card(export: Export, folder: Path) -> str:
    """The page, about the forms that are written below `folder` so far."""
    subject = export.subject
    parts = [
        _front_matter(export), f"# {subject.provenance.title}", *_about(subject),
        "## Data", *_data(subject.provenance),
        "## Scores", *_scores(subject),
        *_files(export, folder), *_loading(export),
        "## Limits", *_limits(subject),
        "## Digests", *_digests(subject.provenance),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; whatever cells hold stays in them."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).translate(_NO_CODE) for cell in line) + " |" for line in lines
    )


def _front_matter(export: Export) -> str:
    library = "transformers" if "transformers" in export.written else "open_clip"
    return (
        f"---\nlibrary_name: {library}\npipeline_tag: zero-shot-image-classification\n"
        "tags: [clip, continual-pretraining, fomo-dagster]\n---"
    )


def _about(subject: Subject) -> Iterator[str]:
    of = subject.provenance
    if of.description:
        yield of.description
    updates = of.stage if of.updates is None else of.updates
    kept = (
        f"It was updated in {counted(updates, 'stage')} by {of.method}"
        if updates else "These are the weights that it starts from"
    )  # fmt: skip
    parameters = sum(one.numel() for one in subject.model.module.parameters())
    size = f"{subject.model.image_size}×{subject.model.image_size} pixels"
    yield (
        f"A CLIP-like model of {parameters:,} parameters for images of {size}. θ₀ is "
        f"{of.backbone}. {kept}."
    )


def _data(of: Provenance) -> Iterator[str]:
    if of.data:
        yield table(
            ("dataset", "use", "samples", "licence"),
            [
                (
                    one.dataset, one.use,
                    "not counted" if one.samples is None else f"{one.samples:,}",
                    one.licence or NOT_DECLARED,
                )
                for one in of.data
            ],
        )  # fmt: skip
    else:
        yield "No dataset of this project was trained on."
    yield from (f"- {one}" for one in of.foreign)
    if sentences := said_of(of.data):
        yield "What the declared licences say against passing these weights on:"
        yield "\n".join(f"- {sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
        yield (
            "Whether weights are derived from the data that they were trained on is not settled "
            "everywhere. This list only repeats what was declared."
        )


def _scores(subject: Subject) -> Iterator[str]:
    if not subject.evaluated:
        yield "It was not evaluated."
        return
    of_datasets, of_means = score_intervals(subject.evaluated)
    means = {role: mean_score(subject.evaluated, role) for role in ROLES}
    rows: list[Sequence[object]] = [
        (
            one.name, one.role.replace("_", " "), one.evaluation_set.dataset.task,
            f"{one.score:.2f}", _interval(of_datasets.get(one.name)),
        )
        for one in sorted(subject.evaluated, key=lambda one: (one.role, one.name))
    ]  # fmt: skip
    for role, value in means.items():
        if value is not None:
            mean = ROLES[role]
            rows.append((f"**{mean}**", role.replace("_", " "), "mean", f"{value:.2f}",
                         _interval(of_means.get(mean))))  # fmt: skip
    known = [value for value in means.values() if value is not None]
    if len(known) == len(means):
        geometric = f"{math.sqrt(math.prod(known)):.2f}"
        rows.append(("**GM**", "all", "√(KA·ZS)", geometric, _interval(of_means.get("GM"))))
    yield table(("dataset", "role", "task", "score in %", "95% interval"), rows)
    yield (
        "Accuracy for classification; for retrieval, the mean of image-to-text and text-to-image "
        "recall@5. Intervals are over test samples alone: another training could differ by more."
    )


def _interval(found: Interval | None) -> str:
    return "" if found is None else f"{found.low:.2f} to {found.high:.2f}"


def _files(export: Export, folder: Path) -> Iterator[str]:
    if not export.written:
        return
    yield "## Files"
    rows = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and export.scratch not in path.parents:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            rows.append((path.relative_to(folder), byte_size(path.stat().st_size), f"`{digest}`"))
    yield table(("file", "size", "SHA-256"), rows)
    checked = [(name, one) for name, one in export.written.items() if one.errors is not None]
    if checked:
        yield "How far features of length 1 are from the model's, at most, in a component:"
        yield table(
            ("form", "images", "texts", "samples"), [_error_row(name, one) for name, one in checked]
        )
    for name, one in export.written.items():
        if one.loss is not None:
            yield f"What the form {name} changes in score, on the same test samples:"
            yield _loss_table(one.loss)
    notes = [f"- {name}: {note}." for name, one in export.written.items() for note in one.notes]
    if notes:
        yield "\n".join(notes)


def _error_row(name: str, one: Written) -> Sequence[object]:
    assert one.errors is not None
    counts = f"{one.errors.image_count} images, {one.errors.text_count} texts"
    return (name, f"{one.errors.images:.1e}", f"{one.errors.texts:.1e}", counts)


def _loss_table(loss: ScoreLoss) -> str:
    rows = [*loss.datasets.items(), *((f"**{mean}**", one) for mean, one in loss.means.items())]
    return table(
        ("dataset", "model", "exported", "change in points", "95% interval"),
        [(name, *_change_cells(change)) for name, change in rows],
    )


def _change_cells(change: Change) -> Sequence[str]:
    before, after = f"{change.before:.2f}", f"{change.after:.2f}"
    return (before, after, f"{change.points:+.2f}", _interval(change.difference))


def _loading(export: Export) -> Iterator[str]:
    found = {name: one.loading for name, one in export.written.items() if one.loading}
    if found:
        yield "## How to load"
    for name, code in found.items():
        yield f"The form {name}, from the folder of this page:"
        yield f"```python\n{code}\n```"


def _limits(subject: Subject) -> Iterator[str]:
    model = subject.model
    length = int(model.tokenize([""]).shape[1])
    limits = [
        "It was measured on the datasets above and on nothing else: expect other scores on other "
        "images, prompts and languages.",
        f"Texts are cut after {length} tokens. Images are reduced to "
        f"{model.image_size}×{model.image_size} pixels ({model.resize_mode}).",
        "Scores of classes are comparable among the given names alone: the model takes every image "
        "for one of them.",
        "Nobody looked for bias against groups of people here.",
    ]
    if subject.provenance.foreign:
        limits.append("What θ₀ was trained on elsewhere is not known to this project.")
    yield "\n".join(f"- {limit}" for limit in limits)


def _digests(of: Provenance) -> Iterator[str]:
    yield table(("what", "digest"), [(what, f"`{digest}`") for what, digest in of.digests.items()])
    yield f"Made with {', '.join(_software())}, Python {platform.python_version()}."


def _software() -> Iterator[str]:
    for name in _SOFTWARE:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue

"""`fomo label`: which images of a gallery to label first."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_csv, print_json
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home

PROMPT = "a photo of a {}"


class By(StrEnum):
    """Why an image is labelled early."""

    uncertainty = "uncertainty"
    coverage = "coverage"
    both = "both"


def label(
    gallery: Annotated[
        str, typer.Argument(metavar="GALLERY", help="Of images, a file of galleries/.")
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME", help="What an image may be; give at least two."),
    ] = None,
    classes_file: Annotated[
        Path | None, typer.Option("--classes", metavar="FILE", help="The same, one on each line.")
    ] = None,
    by: Annotated[
        By, typer.Option(help="Those it is least sure of, those that stand for most, or both.")
    ] = By.both,
    most: Annotated[int, typer.Option(min=1, help="How many to show.")] = 20,
    concept: Annotated[
        str | None,
        typer.Option(help="Only images of this concept, such as a folder of unlabelled ones."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What a class is written into.")] = PROMPT,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show which images to label first, and what each probably is.

    The release that embedded the gallery guesses. Labelling tools read the CSV or the JSON.
    """
    from fomo_dagster.cli.rows import print_frame
    from fomo_dagster.evaluation.prompts import PLACE, class_texts
    from fomo_dagster.galleries.files import EmbeddingsReader
    from fomo_dagster.galleries.finding import embedded_gallery
    from fomo_dagster.galleries.labelling import to_label
    from fomo_dagster.graph.run.gallery_search import GallerySearch

    if as_json and as_csv:
        raise InputError("--json and --csv ask for several formats: choose one")
    if PLACE not in prompt:
        raise InputError(f"--prompt is {prompt!r}, and has no {PLACE} for the class: add it")
    names = [*(classes or ()), *(_lines(classes_file) if classes_file is not None else ())]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"the class {twice[0]!r} is named twice: name each once")
    home = Home.from_environment()
    found = embedded_gallery(home, gallery)
    if found.facts["of"] != "images":
        raise InputError(f"galleries/{gallery} is of texts, and images are labelled: name another")
    if not found.is_whole:
        raise InputError(
            f"galleries/{gallery} is being refreshed in pieces: `fomo run galleries/{gallery}` "
            "embeds the rest"
        )
    reader, look = EmbeddingsReader(found.file), GallerySearch.of(home, found, exact=True)
    of_classes, scale = None, 1.0
    if len(names) > 1:
        of_classes = look.encoder.texts(class_texts(names, [prompt])).numpy()
        scale = float(look.encoder.model.scale)
    rows = to_label(
        reader, by.value, most, concept=concept, classes=names, of_classes=of_classes, scale=scale
    )
    if as_json:
        print_json({"gallery": found.name, "number": found.number, "images": rows.to_dicts()})
    elif as_csv:
        print_csv(rows)
    else:
        shown = rows.select("rank", "split", "key", "suggested", "probability", "second", "margin")
        title = f"What to label first of galleries/{gallery}, by {found.embedded_by}"
        print_frame(shown, title, Terminal())


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as text ({error}): name a file of classes"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]

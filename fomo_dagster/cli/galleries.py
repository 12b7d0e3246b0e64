"""What `fomo search` shows, and `fomo run` of a gallery."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fomo_dagster.cli.output import say
from fomo_dagster.home import Home, project_folder
from fomo_dagster.units import counted

if TYPE_CHECKING:
    import polars as pl
    from PIL import Image

    from fomo_dagster.galleries.finding import FoundGallery
    from fomo_dagster.graph.run.gallery_search import GallerySearch

TILES = 24


def print_gallery(name: str, home: Home, console: Console) -> None:
    """What a gallery is, in a line."""
    from fomo_dagster.galleries.finding import head_of

    head = head_of(home, name)
    number, rows = head.facts.get("number"), head.facts["rows"]
    name = head.facts["release"]
    if number is None:
        said = f"empty, since nothing is {head.facts['follows']} as {name}"
    else:
        count = counted(rows, head.facts["of"].removesuffix("s"))
        said = f"{count}, embedded by release {number} of {name}"
    if not head.facts.get("whole", True):
        say(console, f"{head.asset} has {said} so far: `fomo run {head.asset}` embeds the others")
        return
    say(console, f"{head.asset} is up to date: {said}")


def say_left_by(release: str, alias: str, home: Home, console: Console) -> None:
    """Which galleries follow an alias that was just removed."""
    from fomo_dagster.galleries.declaration import FOLDER
    from fomo_dagster.store.roots import GALLERY

    for key in home.heads.below(FOLDER):
        head = home.heads.look(key)
        if head is None or head.kind != GALLERY:
            continue
        if (head.facts["release"], head.facts["follows"]) == (release, alias):
            say(
                console,
                f"{key} follows it, and is searched as it is until `fomo run {key}`, or a run of "
                f"an experiment of {release}, empties it: give the alias to a release, or have "
                "the gallery's file follow another",
            )


def say_embedded_by(search: GallerySearch, console: Console) -> None:
    """Which releases' weights answer, whether another one is live, and whether by an index."""
    from fomo_dagster.galleries.files import EmbeddingsReader

    gallery = search.gallery
    say(console, f"galleries/{gallery.name}, embedded by {gallery.embedded_by}")
    if gallery.number != gallery.followed:
        alias, way = gallery.facts["follows"], f"`fomo run galleries/{gallery.name}`"
        if gallery.followed is None:
            say(console, f"nothing is {alias} now: {way} empties the gallery")
        else:
            say(
                console,
                f"release {gallery.followed} is {alias} now: {way} embeds the gallery by it",
            )
    if not gallery.is_whole:
        rows = counted(EmbeddingsReader(gallery.file).rows, "row")
        others = " and ".join(f"release {part.number}" for part in gallery.rest)
        rest = f"the others are found by {others}" if others else "the others are not found"
        say(console, f"it has embedded {rows} so far; {rest}")
    if not search.is_exact:
        say(console, "by its index, which finds most of the nearest: `--exact` looks at all")


def shown(found: pl.DataFrame) -> pl.DataFrame:
    """The rows for people: similarities to four places, without what nobody reads."""
    import polars as pl

    similarity = pl.col("similarity").map_elements(lambda x: f"{x:.4f}", return_dtype=pl.String)
    text = pl.col("text").fill_null("")
    return found.select("rank", similarity, "split", "key", "concept", text)


def as_data(search: GallerySearch, found: pl.DataFrame) -> dict[str, Any]:
    """All of it, for JSON."""
    gallery = search.gallery
    return {
        "gallery": gallery.name,
        "release": gallery.facts["release"],
        "number": gallery.number,
        "followed": gallery.followed,
        "exact": search.is_exact,
        "whole": gallery.is_whole,
        "rest_by": [part.number for part in gallery.rest],
        "found": found.to_dicts(),
    }


def write_sheet(gallery: FoundGallery, found: pl.DataFrame, title: str, path: Path) -> None:
    """A contact sheet of up to `TILES` images that were found, or that the texts belong to. Raises
    `InputError` if no image can be shown, and for a path that is not that of a PNG."""
    from fomo_dagster.cli.prediction_errors import check_is_png
    from fomo_dagster.graph.build.builder import build_project
    from fomo_dagster.graph.run.run_context import RunContext
    from fomo_dagster.graph.work.sample_images import SampleImages
    from fomo_dagster.plots.contact_sheet import Tile, contact_sheet
    from fomo_dagster.store.files import write_bytes

    check_is_png(path, "--to")
    image_of: Callable[[str, str, str], Image.Image | None] = SampleImages(
        lambda: RunContext(build_project(project_folder()), Home.from_environment())
    )
    tiles = []
    for row in found.head(TILES).iter_rows(named=True):
        image = image_of(gallery.facts["dataset"], row["key"], row["split"])
        if image is not None:
            heading = f"{row['rank']}: {row['concept']}"
            tiles.append(Tile(image, heading, f"{row['similarity']:.4f} {row['text'] or ''}"))
    write_bytes(path, contact_sheet(tiles, title), named=True)

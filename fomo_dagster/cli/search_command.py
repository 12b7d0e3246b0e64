"""`fomo search`: what in a gallery is nearest to a text or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fomo_dagster.cli.datasets_commands import AsJson
from fomo_dagster.cli.output import Terminal, print_json
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home

MOST_FOUND = 1_000_000


def search(
    query: Annotated[
        str | None, typer.Argument(metavar="TEXT", help='What to look for: "red kite over water".')
    ] = None,
    gallery: Annotated[
        str, typer.Option(metavar="NAME", help="The gallery, a file of galleries/.")
    ] = "",
    image: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Look for what is like this image.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=MOST_FOUND, help="How many to show.")] = 10,
    release: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            help="The gallery as this release embedded it, if it is still in the store.",
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw what is found into this file.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Look at every row, though there is an index.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what in a gallery is nearest to a text or an image.

    The query is embedded by the release that embedded the gallery. The search is exact, unless the
    gallery has an index. Similarities are cosines; those of different releases cannot be compared.
    While a gallery is refreshed in pieces, both releases answer, on the scale of the newer one.
    """
    from fomo_dagster.cli.galleries import as_data, say_embedded_by, shown, write_sheet
    from fomo_dagster.cli.prediction_errors import check_is_png
    from fomo_dagster.cli.rows import print_frame
    from fomo_dagster.galleries.finding import embedded_gallery
    from fomo_dagster.graph.run.gallery_search import GallerySearch

    if (query is None) == (image is None):
        raise InputError(
            'give either a text to look for, or --image FILE: fomo search "a red kite"'
        )
    if not gallery:
        raise InputError("--gallery is missing: name a gallery, a file of galleries/")
    if query is not None and not query.strip():
        raise InputError("the text to look for is empty")
    if to is not None:
        check_is_png(to, "--to")
    home = Home.from_environment()
    found_in = embedded_gallery(home, gallery, release)
    look = GallerySearch.of(home, found_in, exact=exact)
    if image is not None:
        found = look.by_image(image, top)
    else:
        assert query is not None
        found = look.by_text(query, top)
    if to is not None:
        write_sheet(found_in, found, query or str(image), to)
    if as_json:
        print_json(as_data(look, found))
        return
    say_embedded_by(look, Terminal(stderr=True))
    print_frame(shown(found), None, Terminal(), narrow="text")

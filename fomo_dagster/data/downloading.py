"""The rules of every download: time-outs, a size limit, and https where an address says so."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import requests

from fomo_dagster.errors import InputError
from fomo_dagster.units import byte_size

PIECE = 1 << 16  # bytes read at once, and at most lost when a connection breaks
TIMEOUT_SECONDS = (30.0, 60.0)  # to connect; between two pieces
LIMIT = "FOMO_DOWNLOAD_LIMIT_GIB"
LIMIT_GIB = 256.0  # of one file, where the variable does not say otherwise
GIB = 2**30


def limit_bytes() -> int:
    """The largest size of a file; raises `InputError` if the variable is not a number."""
    text = os.environ.get(LIMIT) or str(LIMIT_GIB)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise InputError(f"{LIMIT} is {text!r}: a number of GiB above 0 was expected")
    return int(limit * GIB)


def check_size(what: str, size: int) -> None:
    """Raises `InputError` if a download has, or would have, more bytes than the limit."""
    limit = limit_bytes()
    if size > limit:
        raise InputError(
            f"{what} exceeds the limit of {limit / GIB:g} GiB per download (it is at "
            f"{byte_size(size)}): if that is right, set {LIMIT} higher"
        )


def opened(
    session: requests.Session, url: str, headers: Mapping[str, str] | None = None
) -> requests.Response:
    """The response to a request, its body not read yet.

    Raises `requests.RequestException`, and `InputError` if an https address leads to another kind,
    since anyone could have sent what came from there.
    """
    response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
    steps = [*(one.url for one in response.history), response.url]
    if url.startswith("https://") and not all(step.startswith("https://") for step in steps):
        response.close()
        raise InputError(
            f"{url} leads to {steps[-1]}, which is not https, so anyone in between could "
            "change the data: use another address"
        )
    return response


def pieces(response: requests.Response, what: str, received: int = 0) -> Iterator[bytes]:
    """The body in pieces, up to the limit. received: how many bytes were there before."""
    for piece in response.iter_content(PIECE):
        received += len(piece)
        check_size(what, received)
        yield piece


def download(url: str, path: Path) -> None:
    """Write what is at `url` to `path`. Raises `OSError` (of which `requests.RequestException` is
    one) if it does not arrive whole, and `InputError` as `check_size` and `opened` do."""
    with requests.Session() as session, opened(session, url) as response:
        response.raise_for_status()
        declared = response.headers.get("Content-Length", "")
        if declared.isdecimal():
            check_size(url, int(declared))
        with path.open("wb") as file:
            for piece in pieces(response, url):
                file.write(piece)

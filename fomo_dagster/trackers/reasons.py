"""Why a tracker failed, in words. What libraries raise was written for their programmers."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

from pydantic import ValidationError

from fomo_dagster.paths import said_of

_LONGEST = 300  # characters: it may be a page of HTML
_OF_NETWORKS = (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
_SECRETS = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def reason_of(error: Exception) -> str:
    """The fault of the network below an error, where there is one, and else what it says first."""
    network = [one for one in _chain(error) if isinstance(one, _OF_NETWORKS) and one.strerror]
    if network:
        said = str(network[-1].strerror)
    elif isinstance(error, OSError) and error.errno is not None:
        said = said_of(error)
    elif isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        said = f"{'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}"
    else:
        said = str(error).strip().partition("\n")[0]
    said = without_secrets(said).rstrip(".: ") or f"it gives no reason ({type(error).__name__})"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"


def without_secrets(text: str) -> str:
    """A text without the users and passwords of the addresses in it."""
    return _SECRETS.sub("…", text)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it, down to the first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__

"""Whether a server can listen where it is asked to, told before it is started."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

from fomo_dagster.errors import InputError

LOOKED_AT = 50  # ports after one that is taken, for one that is free


def check_is_free(host: str, port: int) -> None:
    """Raises `InputError` where nothing could listen at `host`:`port`, with a way out."""
    problem = _problem(host, port)
    if problem is None:
        return
    if problem in (errno.EADDRINUSE, errno.EACCES):
        start = max(port, 1023) + 1
        after = range(start, min(start + LOOKED_AT, 65536))
        free = next((one for one in after if _problem(host, one) is None), None)
        reason = "is taken" if problem == errno.EADDRINUSE else "needs root, as all below 1024 do"
        instead = "name another with --port" if free is None else f"--port {free} is free"
        raise InputError(f"port {port} of {host} {reason}: {instead}")
    raise InputError(
        f"nothing can listen at --host {host!r} ({os.strerror(problem)}): leave it out for "
        "127.0.0.1, which this machine alone reaches; 0.0.0.0 is every address it has"
    )


def is_open_to_others(host: str) -> bool:
    """Whether other machines reach what listens there, as far as addresses tell."""
    found = socket.getaddrinfo(host, None)
    return not all(ipaddress.ip_address(str(one[4][0])).is_loopback for one in found)


def _problem(host: str, port: int) -> int | None:
    """The number of the error with which listening there ends; None: it works. Of the addresses
    that a name stands for some may not be there, as where there is no IPv6."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):  # the latter of an empty label, or one too long
        return errno.EADDRNOTAVAIL
    problems: list[int | None] = []
    for family, _, _, _, address in found:
        try:
            socket.create_server(address, family=family).close()
            problems.append(None)
        except OSError as error:
            problems.append(error.errno)
    others = [problem for problem in problems if problem != errno.EADDRNOTAVAIL]
    return next((problem for problem in others if problem), None if others else problems[0])

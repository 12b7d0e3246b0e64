"""Whether a Ray cluster may answer at an address, asked before Ray is: it waits long, and says
little."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from fomo_dagster.errors import InputError

ADDRESS = "RAY_ADDRESS"
_TLS = "RAY_USE_TLS"
_SECONDS_TO_ANSWER = 10.0
_SETTINGS, _FRAME_HEAD = 4, 9  # the type of a frame of HTTP/2, and the bytes before its content
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0))


def probe(address: str) -> None:
    """Raises `InputError` where nothing listens at an address, or something that does not speak
    gRPC: Ray asks for more than a minute, and then ends the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER) as there:
            if not os.environ.get(_TLS) and not _speaks_grpc(there):
                raise InputError(
                    f"{ADDRESS} is {address!r}, and what answers there is no Ray cluster: name the "
                    "port of its head, which is 6379 unless `ray start --port` said otherwise"
                )
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"{ADDRESS} is {address!r}, and nothing answers there ({error}): is the head of the "
            "Ray cluster running, and is this its address?"
        ) from error


def _speaks_grpc(there: socket.socket) -> bool:
    """Whether a greeting of HTTP/2 is answered by one, which begins with a frame of settings (RFC
    9113, section 3.4)."""
    there.sendall(_GREETING)
    answer = b""
    with suppress(ConnectionError, TimeoutError):
        while len(answer) < _FRAME_HEAD and (more := there.recv(_FRAME_HEAD - len(answer))):
            answer += more
    return len(answer) == _FRAME_HEAD and answer[3] == _SETTINGS

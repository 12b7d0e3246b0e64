"""Small JSON files that begin with a checksum of the rest, so that a changed bit is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fomo_dagster.store.digests import digest_of_bytes

CHECKSUM, END = b'{"checksum": "', b'", '  # what stands before and after it


def sealed(fields: Mapping[str, Any]) -> bytes:
    """The file of some fields, of which there is at least one."""
    body = json.dumps(fields).encode()
    return CHECKSUM + digest_of_bytes(body).encode() + END + body[1:]


def unsealed(data: bytes) -> Any:
    """What is in such a file, without the checksum, or in one from before there were any. Raises
    `ValueError` if it is damaged."""
    if data.startswith(CHECKSUM):
        found, _, rest = data.removeprefix(CHECKSUM).partition(END)
        data = b"{" + rest
        if digest_of_bytes(data).encode() != found:
            raise ValueError("its checksum is that of other bytes")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError(str(error)) from error

"""By how much this process's resident memory grew at its peak. Linux alone tells."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # man 5 proc: resets VmHWM


class ProcessMemory:
    """Looks from its making on. What the process had freed before is filled up first; one that is
    made while another looks takes that one's peak away."""

    def __init__(self) -> None:
        self._resident: int | None = None
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            return
        self._resident = _status_bytes("VmRSS")

    def costs(self) -> dict[str, int]:
        """`peak_process_memory_bytes`, or nothing if nobody tells."""
        peak = _status_bytes("VmHWM")
        if self._resident is None or peak is None:
            return {}
        return {"peak_process_memory_bytes": max(0, peak - self._resident)}


def _status_bytes(name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None

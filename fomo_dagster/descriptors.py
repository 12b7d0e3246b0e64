"""How many files a process may have open at once."""

from __future__ import annotations

import contextlib
import resource

WANTED = 8192
LEAST = 256  # a run needs about 40, loader processes and Dagster some more


def raise_limit() -> str | None:
    """Raise the limit of open files as far as is wanted and allowed; child processes inherit it.
    Returns a warning for the user if it stays too low."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return None
    wanted = WANTED if most == resource.RLIM_INFINITY else min(WANTED, most)
    if allowed < wanted:
        with contextlib.suppress(ValueError, OSError):  # as in some sandboxes
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < LEAST:
        return (
            f"a process may open only {allowed} files here, and at least {LEAST} are "
            "recommended: if something fails because of that, raise the limit (ulimit "
            "-Hn, or `nofile` in /etc/security/limits.conf)"
        )
    return None

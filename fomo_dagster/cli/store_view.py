"""What `fomo store` and `fomo store clean` print, and what `--keep` names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import polars as pl
from rich.console import Console

from fomo_dagster.cli.output import Terminal, say
from fomo_dagster.cli.rows import print_frame
from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.comparisons import load_named
from fomo_dagster.home import Home, project_folder
from fomo_dagster.store.cleaning import Cleaning, nothing
from fomo_dagster.store.pushing import Pushed
from fomo_dagster.store.roots import Root, roots
from fomo_dagster.store.usage import OTHERS, Share, Usage
from fomo_dagster.units import byte_size, counted

SHOWN = 20  # experiments, of many
_SIZES = ("size", "packed", "nothing needs", "it alone")


def checked_home(home: Home) -> Home:
    """The home; `InputError` where there is none."""
    if not any((home.root / name).is_dir() for name in ("store", "heads")):
        raise InputError(
            f"{home.root} is no home: nothing was made there. Set FOMO_HOME, or begin in the "
            "folder of the project"
        )
    return home


def waiting(holder: str) -> None:
    """Say who cleans already."""
    say(Terminal(stderr=True), f"waiting for process {holder}, which is cleaning")


def given_up(keep: Sequence[str], home: Home) -> Callable[[Root], bool]:
    """Whether the weights of a root may go: those of experiments that `keep` does not name, where
    it names any. Raises `InputError` for a name of none."""
    if not keep:
        return nothing
    known = {root.experiment for root in roots(home.root) if root.experiment is not None}
    kept = {name for pattern in keep for name in _named(pattern, known)}
    return lambda root: root.is_weights and root.experiment not in kept


def _named(pattern: str, known: Iterable[str]) -> set[str]:
    """The experiments of a home that a name or a pattern stands for."""
    found = {name for name in known if fnmatchcase(name, pattern)}
    if not found and "*" not in pattern:
        try:
            found = set(load_named(pattern, project_folder(), []).names).intersection(known)
        except InputError:
            found = set()
    if not found:
        raise InputError(
            f"--keep {pattern!r}: no experiment of this home has that name: "
            + nearest(pattern, known)
        )
    return found


def forget_home(name: str, home: Home, console: Console) -> None:
    """Have another home need nothing on the remote any more."""
    remote = home.store.remote
    if remote is None:
        raise InputError("--forget needs FOMO_STORE, the remote store on which that home is known")
    homes = {user for users in remote.users.of_artifacts().values() for user in users}
    if name not in homes - {remote.users.name}:
        raise InputError(f"--forget {name!r}: {nearest(name, homes - {remote.users.name})}")
    say(console, f"{counted(remote.users.forget(name), 'artifact')} were needed by {name}")


def print_pushed(found: Pushed, console: Console) -> None:
    """What was copied to the remote."""
    pushed = f"{counted(found.artifacts, 'artifact')} pushed, {byte_size(found.bytes)}"
    say(console, f"{pushed}; {found.there:,} were there")


def print_usage(found: Usage, home: Home, console: Console) -> None:
    """What takes how much."""
    say(console, f"{home.root}: {byte_size(found.bytes)}")
    is_packed = any(one.packed for one in found.kinds)
    kinds = [
        (
            one.kind, one.artifacts, byte_size(one.bytes),
            *([byte_size(one.packed)] if is_packed else []), byte_size(one.unneeded),
        )
        for one in found.kinds
    ]  # fmt: skip
    columns = ("kind", "artifacts", "size", *(["packed"] if is_packed else []), "nothing needs")
    _print(columns, kinds, "The store", console)
    shares = [*found.experiments[:SHOWN], found.shared]
    if rest := found.experiments[SHOWN:]:
        more = Share(
            f"({len(rest)} more)",
            sum(one.artifacts for one in rest),
            sum(one.bytes for one in rest),
            sum(one.alone for one in rest),
        )
        shares.insert(-1, more)
    _print_shares("experiment", shares, console)
    if found.releases:
        _print_shares("release", found.releases, console)
    others = [(f"{name}/", byte_size(size), OTHERS[name]) for name, size in found.others.items()]
    if others:
        _print(("folder", "size", "what it is"), others, "Beside the store", console)
    if found.remote is not None:
        there = found.remote
        say(
            console,
            f"{home.store.remote.url if home.store.remote else ''}: "
            f"{counted(there.artifacts, 'artifact')}, {byte_size(there.bytes)}; this home uses "
            f"{there.used:,}, others {there.by_others:,}; of {there.unknown:,} nobody knows",
        )
    free = found.unneeded.bytes + found.leftovers
    if free:
        say(console, f"`fomo store clean` frees {byte_size(free)}")


def print_cleaning(found: Cleaning, console: Console, *, is_done: bool) -> None:
    """What goes, or went."""
    sizes, counts = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for address, size in found.artifacts.items():
        row = found.why[address], address[0]
        sizes[row] += size
        counts[row] += 1
    rows: list[tuple[Any, ...]] = [
        (why, kind, counts[why, kind], byte_size(sizes[why, kind])) for why, kind in sorted(sizes)
    ]
    if found.leftovers:
        left = byte_size(sum(found.leftovers.values()))
        rows.append(("left behind or damaged", "", len(found.leftovers), left))
    if rows:
        title = "What went" if is_done else "What would go"
        _print(("why", "kind", "artifacts", "size"), rows, title, console)
    for holder, number in sorted(found.kept_for.items()):
        say(console, f"{counted(number, 'artifact')} more stay for {holder}")
    if found.remote:
        there = byte_size(sum(found.remote.values()))
        said = "went from" if is_done else "go, if no other home needs them, from"
        say(console, f"{counted(len(found.remote), 'artifact')} ({there}) {said} the remote store")
    if not rows and not found.remote:
        say(console, "nothing to clean")
    elif is_done:
        say(console, f"{byte_size(found.bytes)} were freed")
    else:
        say(console, f"`--yes` frees {byte_size(found.bytes)}")


def as_data(found: Cleaning, *, is_done: bool) -> dict[str, Any]:
    """For programs."""
    return {
        "done": is_done,
        "bytes": found.bytes,
        "artifacts": [
            {"kind": kind, "digest": digest, "bytes": size, "why": found.why[kind, digest]}
            for (kind, digest), size in found.artifacts.items()
        ],
        "leftovers": [{"path": str(p), "bytes": size} for p, size in found.leftovers.items()],
        "kept_for": dict(found.kept_for),
        "remote": [
            {"kind": kind, "digest": digest, "bytes": size}
            for (kind, digest), size in found.remote.items()
        ],
    }


def _print_shares(sort: str, shares: Sequence[Share], console: Console) -> None:
    rows = [(s.name, s.artifacts, byte_size(s.bytes), byte_size(s.alone)) for s in shares]
    _print((sort, "artifacts", "size", "it alone"), rows, f"By {sort}", console)


def _print(
    names: Sequence[str], rows: Sequence[tuple[Any, ...]], title: str, console: Console
) -> None:
    frame = pl.DataFrame(rows, schema=list(names), orient="row")
    numbers = [name for name in names if name in _SIZES]
    print_frame(frame, title, console, numbers)

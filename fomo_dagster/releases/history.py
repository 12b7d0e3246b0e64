"""A history as a table for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from fomo_dagster.exporting.licences import said_of
from fomo_dagster.releases.records import History, Record

_COLUMNS = {
    "entry": pl.Int64(), "at (UTC)": pl.String(), "by": pl.String(), "what": pl.String(),
    "live": pl.Int64(), "why": pl.String(),
}  # fmt: skip


def history_frame(history: History) -> pl.DataFrame:
    """A row for each record, in order: when (UTC), by whom, what, the number that was live from
    then on, and why."""
    return pl.DataFrame([_row(record) for record in history.records], schema=_COLUMNS, orient="row")


def sentence_of(record: Record) -> str:
    """What a record says, to whoever made it."""
    if record.kind == "alias" and record.release is None:
        return f"no release of {record.name} is called {record.alias} any more"
    if record.kind == "alias":
        return f"{record.alias} of {record.name} is release {record.release}"
    if record.kind == "files":
        return f"release {record.release} of {record.name} is written as {_forms(record)}"
    of = f" ({record.candidate.shown})" if record.candidate is not None else ""
    return f"release {record.release}{of} is live as {record.name}"


def licences_said(history: History) -> list[str]:
    """What the licences of the data of what is live ask of who passes it on, a sentence each, as
    they were declared when it was released."""
    candidate = history.live_candidate
    if candidate is None or candidate.provenance is None:
        return []
    return said_of(candidate.provenance.data)


def minute(moment: str) -> str:
    """A moment as people read it."""
    return moment[:16].replace("T", " ")


def _row(record: Record) -> tuple[Any, ...]:
    candidate = record.candidate.shown if record.candidate is not None else ""
    what = {
        "release": f"release {record.release}: {candidate}",
        "refusal": f"refused: {candidate}",
        "rollback": f"back to release {record.release}",
        "alias": f"{_called(record)} is called {record.alias}",
        "files": f"files of release {record.release}: {_forms(record)}",
    }[record.kind]
    at, why = minute(record.recorded_at), "; ".join(_reasons(record))
    return record.entry, at, record.by, what, record.live, why


def _called(record: Record) -> str:
    return "nothing" if record.release is None else f"release {record.release}"


def _forms(record: Record) -> str:
    return ", ".join(record.forms)


def _reasons(record: Record) -> Iterator[str]:
    if record.reason:
        yield record.reason
    if record.kind == "refusal":
        yield from (one.said for one in record.gates if not one.passed)
    elif record.kind == "release":
        passed = sum(one.passed for one in record.gates)
        yield f"{passed} of {len(record.gates)} gates, {record.approval}"

"""The heads of a home at one moment: those that are as they were gathered, and the others read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.heads import Head, Heads
from fomo_dagster.tables.gathered import SIGNATURE, Gathered, Gathering, is_worthwhile
from fomo_dagster.tables.selects import ARTIFACTS, INTACT

_FILES = {"asset": pl.String(), **SIGNATURE}
_MEMBERS = {
    **_FILES, "digest": pl.String(), "kind": pl.String(), "seconds": pl.Float64(),
    "samples": pl.Float64(),
    "tables": pl.List(pl.Struct({"table": pl.String(), "checksum": pl.String()})),
}  # fmt: skip


@dataclass(frozen=True)
class KnownHeads:
    """What is known of the heads.

    signatures: asset → that of its head's file, in the order of assets. gathering: of the rows of
    the view `artifacts`; kept: its members that are heads still. read: the other heads, as of
    `Heads.all`.
    """

    gathered: Gathered
    signatures: dict[str, list[int]]
    gathering: Gathering | None
    kept: pl.DataFrame
    read: list[tuple[Path, bytes, Head | None]]

    @classmethod
    def of(cls, home: Path) -> KnownHeads:
        """Look at the heads of a home. A damaged one is said, and is None."""
        heads = Heads(home / "heads")
        signatures = heads.signatures()
        gathered = Gathered(home, "heads", digest_of([ARTIFACTS, INTACT, list(_MEMBERS)]))
        gathering = gathered.read()
        kept = pl.DataFrame(schema=_MEMBERS)
        if gathering is not None:
            there = [(asset, *one) for asset, one in signatures.items() if one]
            now = pl.DataFrame(there, schema=_FILES, orient="row")
            kept = now.join(gathering.members, on=list(_FILES), maintain_order="left")
        known = set(kept["asset"])
        read = list(heads.each(asset for asset in signatures if asset not in known))
        return cls(gathered, signatures, gathering, kept, read)

    @cached_property
    def places(self) -> dict[str, int]:
        """Asset → its place in the order of assets."""
        return {asset: place for place, asset in enumerate(self.signatures)}

    def files(self, table: str) -> list[tuple[str, str, str | None]]:
        """Asset, digest and checksum of each file with rows of a table, in order. Without checksum
        where the head is from before there were any, and says of no table whether it has rows."""
        kept = self.kept.select("asset", "digest", "tables").explode("tables").unnest("tables")
        found: list[tuple[str, str, str | None]] = [
            *kept.filter(table=table).select("asset", "digest", "checksum").iter_rows()
        ]
        for _, _, head in self.read:
            if head is not None and (head.tables is None or table in head.tables):
                found.append((head.asset, head.digest, (head.tables or {}).get(table)))
        return sorted(found, key=lambda one: self.places[one[0]])

    def to_gather(self) -> pl.DataFrame | None:
        """The members to gather; None where it is not worthwhile. A head that is damaged, or says
        nothing of its tables, is read each time."""
        rows = [_member(head, self.signatures[head.asset]) for _, _, head in self.read if head]
        read = pl.DataFrame([row for row in rows if row], schema=_MEMBERS, orient="row")
        before = 0 if self.gathering is None else self.gathering.members.height
        if not is_worthwhile(read.height + before - self.kept.height, self.kept.height):
            return None
        order = pl.col("asset").replace_strict(self.places, return_dtype=pl.Int64)
        return pl.concat([self.kept, read]).sort(order)

    @property
    def costs(self) -> pl.DataFrame:
        """`digest`, `kind`, `seconds` and `samples` of each, in order; null where not known."""
        rows = [(h.asset, *_cost(h)) for _, _, h in self.read if h is not None]
        columns = ("asset", "digest", "kind", "seconds", "samples")
        schema = {column: _MEMBERS[column] for column in columns}
        read = pl.DataFrame(rows, schema=schema, orient="row")
        order = pl.col("asset").replace_strict(self.places, return_dtype=pl.Int64)
        return pl.concat([self.kept.select(columns), read]).sort(order)


def _cost(head: Head) -> tuple[str, str, float | None, float | None]:
    took = (head.cost.get(name) for name in ("seconds", "samples"))
    seconds, samples = (None if one is None else float(one) for one in took)
    return head.digest, head.kind, seconds, samples


def _member(head: Head, signature: list[int]) -> tuple[object, ...] | None:
    """Of _MEMBERS; None where it cannot be gathered."""
    if head.tables is None or not signature:
        return None
    tables = [{"table": table, "checksum": sum_} for table, sum_ in head.tables.items()]
    return head.asset, *signature, *_cost(head), tables

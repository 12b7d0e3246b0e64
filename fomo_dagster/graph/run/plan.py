"""What a run would do, without doing it: every asset as a hit or to be computed, and why.

A plan looks at the sources and otherwise reads only heads and the store; it needs no run history.
It assumes that images it has not seen before can be read. If content can be known only once
something was made, such as a stream's order by scores, the plan says so and lists what follows as
to be computed. A run then computes only what is really missing. What several assets have in common
is computed for the first of them, and is a hit for the others. What was cleaned is computed again
only if something else is made from it.
"""

from __future__ import annotations

import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fomo_dagster.collecting import uncollected
from fomo_dagster.data.pixel_rules import PARAMETER
from fomo_dagster.graph.core.facts import ONLY, Facts, identity
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.store.heads import Head
from fomo_dagster.store.notes import Note
from fomo_dagster.store.recipes import Difference, Recipe, differences
from fomo_dagster.tables.intact import Verified

REASONS_SHOWN = 3


@dataclass(frozen=True)
class Planned:
    """One asset of a plan.

    compute: names of the artifacts to be made; the asset's others are in the store, or will be once
    assets before it in the plan are made.
    current: nothing at all would change, not even what the asset points to or its rows.
    made_by: assets before it in the plan that make what it has in common with them.
    """

    asset: str
    kind: str
    stage: int | None
    compute: tuple[str, ...]
    hits: tuple[str, ...]
    current: bool
    reasons: tuple[str, ...]
    samples: int | None
    estimated_seconds: float | None
    made_by: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        return "compute" if self.compute else "hit"


def plan(nodes: Iterable[Node], context: RunContext) -> list[Planned]:
    """Plan `nodes`, in their order. Raises `InputError` for what a run would refuse at once."""
    with uncollected(), Verified(context.home.root) as verified:
        return _planned(nodes, context, verified)


@dataclass(frozen=True)
class _Look:
    """What there is of a node.

    known: the facts of its inputs. awaited: as of `Facts`, of these. absent: names of the artifacts
    that are not in the store. notes: of those of them that were cleaned. is_recorded: whether its
    head is that of these recipes. damages: what is wrong with its rows then. is_whole: whether
    nothing of it would change, but for what is absent.
    """

    node: Node
    recipes: Mapping[str, Recipe]
    known: Mapping[str, Facts]
    awaited: str
    head: Head | None
    absent: tuple[str, ...]
    notes: Mapping[str, Note]
    is_recorded: bool
    damages: tuple[str, ...]
    is_whole: bool

    @property
    def may_stay_cleaned(self) -> bool:
        """Whether all that it says of itself is there, and what is absent was cleaned."""
        wanted = any(note.is_wanted for note in self.notes.values())
        all_cleaned = set(self.absent) <= self.notes.keys()
        return self.is_recorded and not self.damages and all_cleaned and not wanted


def _planned(nodes: Iterable[Node], context: RunContext, verified: Verified) -> list[Planned]:
    facts: dict[str, Facts] = {}
    changing: set[str] = set()  # assets that a run would materialise
    looks = []
    for node in nodes:
        looks.append(look := _look(node, facts, changing, context, verified))
        if not look.is_whole or (look.absent and not look.may_stay_cleaned):
            changing.add(node.key)
    stays_cleaned = _staying_cleaned(looks)
    speeds = _Speeds(context.home.root)
    entries = []
    makers: dict[str, str] = {}  # digest of what is to be made → the first asset that makes it
    for look in looks:
        node, recipes, awaited = look.node, look.recipes, look.awaited
        absent = () if node.key in stays_cleaned else look.absent
        shared = {n: makers[recipes[n].digest] for n in absent if recipes[n].digest in makers}
        made_by = tuple(dict.fromkeys(shared.values()))
        missing = tuple(name for name in absent if name not in shared)
        makers |= {recipes[name].digest: node.key for name in missing}
        samples = node.samples(look.known) if missing else 0
        if samples and len(recipes) > 1:
            samples = round(samples * len(missing) / len(recipes))
        entries.append(
            Planned(
                asset=node.key,
                kind=node.kind,
                stage=node.stage,
                compute=missing,
                hits=tuple(name for name in recipes if name not in missing),
                current=look.is_whole and not absent,
                reasons=(
                    (f"{awaited} is computed first",)
                    if awaited and missing
                    else (
                        *_reasons(look, missing),
                        *(f"computed once, for {key}" for key in made_by),
                        *_said_of_cleaned(look, stays_cleaned),
                        *look.damages,
                    )
                ),
                samples=samples,
                estimated_seconds=speeds.seconds(node.kind, samples) if missing else 0.0,
                made_by=made_by,
            )
        )
    return entries


def _look(
    node: Node,
    facts: dict[str, Facts],
    changing: Container[str],
    context: RunContext,
    verified: Verified,
) -> _Look:
    """facts: of all nodes before; this one's are added. changing: those that would change."""
    for key in node.inputs:
        if key in context.graph.sources:
            facts[key] = context.facts(key)
    outside = node.outside_facts(context)
    known: Mapping[str, Facts] = {**facts, **outside} if outside else facts
    if node.takes_what_is_there:
        known = {**node.input_facts(context), **facts}
    recipes = node.settled(known, context)
    context.say(node.remarks(known, context))
    head = context.heads.read(node.key)
    absent = tuple(n for n, recipe in recipes.items() if not context.store.holds(recipe))
    awaited = next((f.awaited for k in node.inputs if (f := known.get(k)) and f.awaited), "")
    if not awaited and not node.is_settled(known, context):
        awaited = next((key for key in node.comes_after if key in changing), "")
    predicted = node.predict(recipes, context)
    facts[node.key] = replace(predicted, awaited=awaited) if awaited else predicted
    notes = {name: context.store.note(recipes[name]) for name in absent}
    is_recorded = head is not None and head.digest == identity(recipes)
    damages = damages_of(head, node, verified) if head is not None and is_recorded else ()
    is_as_declared = head is not None and head.code_version == context.graph.code_versions[node.key]
    return _Look(
        node, recipes, known, awaited, head, absent,
        {name: note for name, note in notes.items() if note.day is not None}, is_recorded, damages,
        is_whole=is_recorded and is_as_declared and not damages and not awaited
        and (bool(absent) or node.is_followed_up(context)),
    )  # fmt: skip


def _staying_cleaned(looks: Sequence[_Look]) -> set[str]:
    """The nodes whose artifacts were cleaned, and from which nothing is made."""
    needed: set[str] = set()
    staying: set[str] = set()
    for look in reversed(looks):
        if not look.absent:
            continue
        if look.may_stay_cleaned and look.node.key not in needed:
            staying.add(look.node.key)
        else:
            needed.update(look.node.inputs)
    return staying


def _said_of_cleaned(look: _Look, staying: Container[str]) -> tuple[str, ...]:
    if look.node.key not in staying:
        return ()
    days = sorted({str(note.day) for note in look.notes.values()})
    return (f"cleaned on {' and '.join(days)}; nothing is made from it",)


def damages_of(head: Head, node: Node, verified: Verified) -> tuple[str, ...]:
    """What is wrong with the files of a node's rows, which are written again from its artifacts."""
    if head.tables is None:
        return ("what was recorded of it is written again, with checksums",)
    problems = {table: verified.problem(head, table) for table in node.table_names}
    return tuple(
        f"its rows in the table {table} are written again: {problem}"
        for table, problem in problems.items()
        if problem is not None
    )


class _Speeds:
    """Seconds a sample of each kind of work, as it went on this machine so far.

    What several assets have in common, as experiments that begin alike do, counts once.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    @cached_property
    def _medians(self) -> tuple[dict[str, float], dict[str, float]]:
        """Kind → seconds a sample, and seconds at all: read where something is to be made."""
        from fomo_dagster.tables.known_heads import KnownHeads

        known = KnownHeads.of(self._home).costs.unique("digest", keep="last").drop_nulls("seconds")
        costs: dict[str, list[float]] = {}
        fixed: dict[str, list[float]] = {}
        for kind, seconds, samples in known.select("kind", "seconds", "samples").iter_rows():
            fixed.setdefault(kind, []).append(seconds)
            if samples:
                costs.setdefault(kind, []).append(seconds / samples)
        speeds, of_any = (
            {kind: statistics.median(values) for kind, values in found.items()}
            for found in (costs, fixed)
        )
        return speeds, of_any

    def seconds(self, kind: str, samples: int | None) -> float | None:
        """None if nothing of the kind was ever computed here."""
        speeds, of_any = self._medians
        if samples is None:
            return of_any.get(kind)
        speed = speeds.get(kind)
        return None if speed is None else speed * samples


def _reasons(look: _Look, missing: tuple[str, ...]) -> tuple[str, ...]:
    head, reasons = look.head, list[str]()
    for name in missing:
        prefix = "" if name == ONLY or head is None else f"{name}: "
        old = head.recipes.get(name) if head is not None else None
        changes = differences(Recipe.from_data(old), look.recipes[name]) if old is not None else []
        # That images will be read in another way is never why: alone, it changes nothing.
        told = [change for change in changes if change.path != ("parameters", PARAMETER)]
        said = dict.fromkeys(_explain(look.node, change) for change in told)
        reasons += [prefix + text for text in said]
        if name in look.notes:
            reasons.append(f"{prefix}cleaned on {look.notes[name].day}")
        elif old is None:
            reasons.append(f"{prefix}never computed")
        elif not changes:
            reasons.append(f"{prefix}its artifact is missing from the store or was damaged")
    return tuple(dict.fromkeys(reasons))


def _explain(node: Node, change: Difference) -> str:
    """A change of a recipe in words: values for parameters, the role for inputs."""
    top, *rest = change.path
    if top == "parameters":
        return node.parameter_changes.get(rest[0] if rest else "", str(change))
    if top == "version":
        return f"the code of {node.kind} changed (version {change.old} → {change.new})"
    role = rest[0] if rest else ""
    return node.reason(role)

"""What moves a release name: promotions, rollbacks, refusals and aliases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fomo_dagster.errors import InputError, nearest
from fomo_dagster.experiment.names import SAFE_NAME
from fomo_dagster.experiment.release import RESERVED_ALIASES
from fomo_dagster.experiment.retention import restoring
from fomo_dagster.releases.records import (
    PREVIOUS,
    Candidate,
    OvertakenError,
    Record,
    ReleaseLog,
)
from fomo_dagster.releases.verdicts import Verdict


def promote(
    log: ReleaseLog,
    candidate: Candidate,
    verdicts: Sequence[Verdict],
    reference: int | None,
    approval: str,
    *,
    first: bool = False,
    reason: str = "",
    check: Callable[[Candidate], None] | None = None,
) -> Record:
    """Put a candidate live, as the next number.

    reference: what it was held against, which must be live still. first: nothing is live yet, and
    gates that compare with it do not count. check: raises for what may not go live for another
    reason; asked last, since that may take a while. Raises `InputError` for what may not go live,
    and `OvertakenError` where another went live since it was judged.
    """
    history = log.read()
    live = history.live
    if live is None and not first:
        raise InputError(
            f"nothing is live as {log.name} yet, so {candidate.shown}, can be compared with "
            "nothing: `--first` puts it live by the gates that need no comparison"
        )
    if live is not None and first:
        raise InputError(
            f"release {live} of {log.name} is live, so this is not the first one: leave out --first"
        )
    if (number := history.released_as(candidate.checkpoint)) is not None:
        way = (
            "it is live" if number == live
            else f"`fomo rollback {log.name} --to {number}` puts it live again"
        )  # fmt: skip
        raise InputError(f"{candidate.shown}, is release {number} of {log.name} already: {way}")
    if live is not None and reference != live:
        held = "nothing" if reference is None else f"release {reference}"
        raise OvertakenError(
            f"{candidate.shown}, was held against {held}, and release {live} of {log.name} is live "
            f"now: `fomo run {candidate.experiment}` holds it against that"
        )
    wrong = [one for one in verdicts if not one.passed and not (first and one.needs_live)]
    if wrong:
        said = "; ".join(one.sentence for one in wrong)
        raise InputError(f"{candidate.shown}, does not pass the gates of {log.name}: {said}")
    _check_there(log, candidate, f"the weights of {candidate.shown},")
    if check is not None:
        check(candidate)
    number = max(history.releases, default=0) + 1
    return log.append(
        history, "release", release=number, live=number, reference=reference, candidate=candidate,
        gates=tuple(verdicts), approval=approval, reason=reason,
    )  # fmt: skip


def refuse(
    log: ReleaseLog, candidate: Candidate, verdicts: Sequence[Verdict], reference: int | None
) -> Record | None:
    """Record that a candidate did not pass, once for what it was held against."""
    history = log.read()
    for record in history.records:
        there = record.candidate
        if (
            record.kind == "refusal"
            and there is not None
            and (there.checkpoint, record.reference) == (candidate.checkpoint, reference)
            and record.gates == tuple(verdicts)
        ):
            return None
    return log.append(
        history, "refusal", reference=reference, candidate=candidate, gates=tuple(verdicts)
    )


def roll_back(log: ReleaseLog, to: int | None = None, *, reason: str = "") -> Record:
    """Put an earlier release live again: by default the one that was live before. Raises
    `InputError` where there is none, or its weights are no longer in the store."""
    history = log.read()
    number = to if to is not None else history.aliases.get("previous")
    if number is None:
        there = "nothing" if history.live is None else f"no other release than {history.live}"
        raise InputError(f"{log.name} has nothing to go back to: {there} was ever live")
    release = history.release(number)
    if number == history.live:
        raise InputError(f"release {number} of {log.name} is live already")
    candidate = release.candidate
    assert candidate is not None
    of = f"the weights of release {number} of {log.name} ({candidate.shown})"
    _check_there(log, candidate, of)
    return log.append(history, "rollback", release=number, live=number, reason=reason)


def give_alias(log: ReleaseLog, alias: str, number: int, *, move: bool = False) -> Record:
    """Give a release an alias beside `live`. move: the alias may be another's now. Raises
    `InputError` for one that is taken or cannot be given."""
    if alias in RESERVED_ALIASES:
        raise InputError(f"the alias {alias!r} follows what is live, and cannot be given")
    if not SAFE_NAME.fullmatch(alias):
        raise InputError(
            f"{alias!r} is no alias: use letters, digits and underscores (at most 100), a letter "
            "or digit first"
        )
    if alias.isdigit():
        raise InputError(f"the alias {alias!r} reads like a release's number: use a letter in it")
    history = log.read()
    history.release(number)
    there = history.aliases.get(alias)
    if there == number:
        raise InputError(f"{alias} of {log.name} is release {number} already")
    if there is not None and not move:
        raise InputError(
            f"{alias} of {log.name} is release {there}: `--move` gives it to release {number}"
        )
    return log.append(history, "alias", release=number, alias=alias)


def remove_alias(log: ReleaseLog, alias: str) -> Record:
    """Have an alias stand for nothing. Raises `InputError` for one that nothing has, and for those
    that follow what is live."""
    if alias in RESERVED_ALIASES:
        raise InputError(f"the alias {alias!r} follows what is live, and cannot be removed")
    history = log.read()
    given = history.aliases.keys() - {PREVIOUS}
    if alias not in given:
        there = nearest(alias, given) if given else "no alias was given"
        raise InputError(f"no release of {log.name} has the alias {alias!r}: {there}")
    return log.append(history, "alias", alias=alias)


def _check_there(log: ReleaseLog, candidate: Candidate, of: str) -> None:
    """Raises `InputError` where a candidate's weights are no longer in the store."""
    if log.home.store.open(*candidate.weights) is None:
        raise InputError(
            f"{of} are no longer in the store: {restoring(candidate.experiment)} makes them "
            "again, if nothing of it changed since"
        )

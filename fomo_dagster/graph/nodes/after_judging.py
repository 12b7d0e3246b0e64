"""What follows for a stage once the gates judged it: it is refused, goes live, or waits for
somebody."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fomo_dagster.experiment.release import Release
from fomo_dagster.releases.history import licences_said
from fomo_dagster.releases.promoting import promote, refuse
from fomo_dagster.releases.records import Candidate, History, OvertakenError, ReleaseLog
from fomo_dagster.releases.verdicts import Verdict


@dataclass(frozen=True)
class AfterJudging:
    """Of the stage of an experiment that the asset `key` judges."""

    key: str
    release: Release
    experiment: str
    stage: int
    is_last: bool

    def follow_up(
        self,
        log: ReleaseLog,
        checkpoint: str,
        verdicts: Sequence[Verdict],
        reference: int | None,
        candidate: Callable[[], Candidate],
    ) -> Iterator[str]:
        """Record a refusal, or put it live where nobody has to approve; what is to be said of it.

        checkpoint: the version of the weights. reference: the release that they were held against.
        candidate: makes what would be released.
        """
        history, name = log.read(), self.release.name
        if history.released_as(checkpoint) is not None:
            return
        try:
            if history.live is None:
                if self.is_last:
                    yield self._nothing_live
            elif not passes(verdicts):
                refused = candidate()
                if refuse(log, refused, verdicts, reference) is not None:
                    wrong = "; ".join(one.said for one in verdicts if not one.passed)
                    yield f"{refused.shown}, is refused as {name}: {wrong}"
            elif self._goes_live_by_itself:
                promote(log, candidate(), verdicts, reference, "automatic")
                yield from (f"what is live as {name}: {s}" for s in licences_said(log.read()))
        except OvertakenError as error:
            yield f"{error}; the next run holds {self.key} against what is live then"

    def is_followed_up(
        self, history: History, checkpoint: str, verdicts: Callable[[], Sequence[Verdict]]
    ) -> bool:
        """Whether `follow_up` has nothing left to record."""
        if history.live is None or history.released_as(checkpoint) is not None:
            return True
        if passes(verdicts()):
            return not self._goes_live_by_itself
        return history.was_refused(checkpoint, history.live)

    @property
    def _goes_live_by_itself(self) -> bool:
        """Once it passes. θ₀ learnt nothing: gates that it passes are no reason to replace what is
        live by it, as after an experiment was changed and its stages were refused."""
        return self.release.approval == "automatic" and self.stage > 0

    @property
    def _nothing_live(self) -> str:
        return (
            f"nothing is live as {self.release.name} yet: `fomo promote {self.experiment} --first` "
            f"puts stage {self.stage} live, and what comes after it is held against that"
        )


def passes(verdicts: Sequence[Verdict]) -> bool:
    """Whether no gate refuses it."""
    return all(one.passed for one in verdicts)

"""What a gate found."""

from __future__ import annotations

from dataclasses import dataclass

NOTHING_LIVE = "nothing is live yet"


@dataclass(frozen=True)
class Verdict:
    """Whether a gate opens.

    gate: its name, with what it is about: the dataset or concept that it protects, what the data
    may not be, or what may not cost more. asked: what must hold. estimate, low, high: in percent or
    points, of a gallery's cosine from -1 to 1, with the 95 % interval; None where there is none.
    limit: what they are held against.
    samples: how many test samples it comes from, samples that the stage brings, or passes that were
    timed; samples_needed: about how many would tell, where these are too few.
    """

    gate: str
    passed: bool
    asked: str
    said: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    samples: int | None = None
    samples_needed: int | None = None

    @property
    def sentence(self) -> str:
        """The gate and what it found. `said` often begins with what the gate is about."""
        gate, _, about = self.gate.partition(": ")
        is_said = bool(about) and self.said.startswith(about)
        return f"{gate if is_said else self.gate}: {self.said}"

    @property
    def needs_live(self) -> bool:
        """Whether nothing is live that it could be held against."""
        return self.said == NOTHING_LIVE

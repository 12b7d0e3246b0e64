"""The comparison file, `comparisons/<name>.yaml`: which methods are set against which.

Which experiments its methods are is found in `fomo_dagster.experiment.comparisons`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, model_validator

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.experiment.cron import CronSchedule, TimeZone
from fomo_dagster.experiment.files import files_by_name, find_declared, name_of_file
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.target import ComparedMetric, Target
from fomo_dagster.experiment.validating import Place, validated
from fomo_dagster.yaml_files import read_mapping

FOLDER = "comparisons"
FEW = "a comparison takes two or more methods, not {}"


class DeclaredComparison(Declaration):
    """Methods, and how they are compared."""

    methods: tuple[str, ...] = Field(
        description="What is compared: names of experiments, of files with replicates, or of "
        "members of sweeps (`SWEEP/NAME`)."
    )
    baseline: str | None = Field(
        None, description="What the others are compared with; null: the first method."
    )
    metrics: tuple[ComparedMetric, ...] = Field(
        (), description="By which scores, on their datasets alone; empty: by all three."
    )
    margin: float | None = Field(
        None,
        ge=0,
        description="Points within which methods count as equivalent, and one as no worse; null: "
        "neither is asked.",
    )
    common: bool = Field(
        False,
        description="Compare what all have in common: replicates, datasets, test samples. "
        "false: refuse methods that differ in these.",
    )
    target: Target | float | None = Field(
        None,
        description="A score of which the report says what each method takes until it reaches and "
        "keeps it; a number is a GM, in %; null: none.",
    )
    report: bool = Field(
        False,
        description="Make the page of `fomo report` too, the asset `comparisons/NAME/report`; it "
        "is made again when what it shows changes.",
    )
    cron_schedule: CronSchedule | None = Field(
        None, description="When to bring it up to date: minute, hour, day, month, weekday."
    )
    cron_timezone: TimeZone | None = Field(
        None, description="Time zone of cron_schedule, such as Europe/Berlin; null: UTC."
    )

    @property
    def baseline_first(self) -> tuple[str, ...]:
        """The methods as they are written, each once."""
        first = self.methods if self.baseline is None else (self.baseline, *self.methods)
        return tuple(dict.fromkeys(first))

    @property
    def score_to_reach(self) -> Target | None:
        """The target, if there is one."""
        return Target(value=self.target) if isinstance(self.target, float) else self.target

    @model_validator(mode="after")
    def _compares(self) -> DeclaredComparison:
        if len(self.baseline_first) < 2:
            raise ValueError(FEW.format(", ".join(self.methods) or "none"))
        return self

    @model_validator(mode="after")
    def _has_a_time_for_its_zone(self) -> DeclaredComparison:
        if self.cron_timezone is not None and self.cron_schedule is None:
            raise ValueError("cron_timezone is given without cron_schedule: give both, or neither")
        return self


@dataclass(frozen=True)
class LoadedComparison:
    """A comparison with the experiments that it is about.

    methods: name → its replicates, or the one experiment that it is; the baseline first.
    """

    name: str
    path: Path
    declared: DeclaredComparison
    methods: Mapping[str, tuple[Loaded, ...]]

    @property
    def reference(self) -> str:
        """As commands know it."""
        return reference_of(self.name)

    @property
    def experiments(self) -> dict[str, list[str]]:
        """Method → the names of its experiments."""
        return {name: [m.experiment.name for m in of] for name, of in self.methods.items()}

    @property
    def members(self) -> tuple[Loaded, ...]:
        """All experiments, each once."""
        members = [member for replicates in self.methods.values() for member in replicates]
        return tuple({member.experiment.name: member for member in members}.values())


def reference_of(name: str) -> str:
    """What commands call the comparison of a name."""
    return f"{FOLDER}/{name}"


def comparison_files(project: Path) -> dict[str, Path]:
    """Comparison name → file, as `experiment_files`."""
    return files_by_name(project / FOLDER)


def find_comparison(name_or_path: str, project: Path) -> Path | None:
    """The file that `comparisons/NAME`, or a path to one, stands for, as `find_declared`."""
    return find_declared(name_or_path, project, FOLDER, "comparison")


def read_comparison(path: Path) -> tuple[str, DeclaredComparison]:
    """The name and the declaration of a file. Raises `InputError` that names the file, the key, its
    value and the nearest valid one."""
    name = name_of_file(path)
    declared: DeclaredComparison = validated(
        TypeAdapter(DeclaredComparison), read_mapping(path), str(path), DeclaredComparison,
        place=Place(path),
    )  # fmt: skip
    return name, declared


def comparison_schema() -> dict[str, Any]:
    """The JSON schema of the comparison file, for editors."""
    return DeclaredComparison.model_json_schema()

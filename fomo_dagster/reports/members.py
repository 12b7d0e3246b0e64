"""What a report is about: methods, each with its replicates, and what was found of them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl
from PIL import Image

from fomo_dagster.experiment.target import Target
from fomo_dagster.home import Home
from fomo_dagster.reports.content import Source
from fomo_dagster.tables.answers import members_there
from fomo_dagster.tables.comparisons import Compared, compared
from fomo_dagster.tables.predictions import NoPredictionsError
from fomo_dagster.tables.replicates import (
    costs_by_stage,
    methods,
    methods_by_stage,
    of_methods,
    with_methods,
)
from fomo_dagster.tables.results import chances
from fomo_dagster.tables.selects import quoted
from fomo_dagster.tables.views import query

ImageOf = Callable[[str, str], Image.Image | None]
"""Dataset and key of a test sample → its image, None if it is no longer there."""
KINDS = ("scores", "evaluation", "chunk", "order")
"""Of the assets that a report reads, beside weights."""
_EXPERIMENTS = """
SELECT experiment, replicate, sweep, stages, stream, start_from, deploy, technique, settings
FROM experiments
"""
_CHANCES = "SELECT experiment, dataset, value FROM evaluations WHERE metric = 'chance'"


@dataclass(frozen=True)
class Reported:
    """Methods that a report sets side by side.

    members: method → its experiments, the baseline first; asked: the names that were asked for,
    which with of_comparison is that of one; options: what was asked for beside names, as on the
    command line; missing: the names without any scores; margin, common, metrics: as of
    `compared`; target: a score of which to say when it is reached;
    said: what is known before anything is read; image_of: None where no pictures are to be shown.
    """

    home: Home
    members: Mapping[str, Sequence[str]]
    asked: Sequence[str]
    of_comparison: bool = False
    options: Sequence[str] = ()
    missing: Sequence[str] = ()
    margin: float | None = None
    target: Target | None = None
    common: bool = False
    metrics: Sequence[str] = ()
    said: Sequence[str] = ()
    image_of: ImageOf | None = None

    @property
    def names(self) -> list[str]:
        """The methods, the baseline first."""
        return list(self.members)

    @property
    def baseline(self) -> str:
        """What the others are compared with."""
        return self.names[0]

    @property
    def experiments(self) -> list[str]:
        """Of all methods, each once."""
        return list(dict.fromkeys(name for own in self.members.values() for name in own))

    @cached_property
    def final(self) -> pl.DataFrame:
        """`methods` in the order of the names: what their last stages score."""
        return self._in_order(methods(self.home.root, self.members))

    @cached_property
    def stages(self) -> pl.DataFrame:
        """`methods_by_stage` in the order of the names."""
        return self._in_order(methods_by_stage(self.home.root, self.members))

    @cached_property
    def costs(self) -> pl.DataFrame:
        """`costs_by_stage` in the order of the names."""
        return self._in_order(costs_by_stage(self.home.root, self.members))

    @cached_property
    def replicates(self) -> pl.DataFrame:
        """The rows of the view `experiments`, with the `method` that each counts for."""
        rows = query(self.home.root, _EXPERIMENTS)
        return self._in_order(with_methods(rows.sort("replicate"), self.members))

    @cached_property
    def chances(self) -> dict[str, float]:
        """Dataset → what guessing scores on it, in percent, of those of which it is known."""
        rows = query(self.home.root, _CHANCES).filter(pl.col("experiment").is_in(self.experiments))
        return dict(rows.select("dataset", "value").sort("dataset").iter_rows())

    @cached_property
    def guessed(self) -> pl.DataFrame:
        """The scores that guessing has at the last stage, a row an experiment."""
        return chances(self.home.root, self.experiments)

    @cached_property
    def settings(self) -> pl.DataFrame:
        """The rows of `replicates` of each method's first one."""
        return self.replicates.unique("method", keep="first", maintain_order=True)

    @property
    def sweep(self) -> str | None:
        """The one that all methods, of which there are several, are of and begin with; else
        None."""
        sweeps = self.replicates["sweep"].unique().to_list()
        if len(self.names) < 2 or len(sweeps) != 1 or sweeps[0] is None:
            return None
        sweep = str(sweeps[0])
        return sweep if all(name.startswith(f"{sweep}_") for name in self.names) else None

    @cached_property
    def oracles(self) -> list[str]:
        """The methods that see in one stage all concepts of others that have several."""
        stages = dict(self.settings.select("method", "stages").iter_rows())
        streams = dict(self.settings.select("method", "stream").iter_rows())
        chunks = query(self.home.root, "SELECT DISTINCT stream, dataset, concept FROM chunks")

        def concepts(method: str) -> set[tuple[str, str]]:
            own = chunks.filter(stream=streams.get(method) or "")
            return set(own.select("dataset", "concept").iter_rows())

        several = [concepts(name) for name in self.names if (stages.get(name) or 0) > 1]
        return [n for n in self.names if stages.get(n) == 1 and concepts(n) in several]

    @property
    def comparison(self) -> Compared | None:
        """The others against the baseline, as `fomo compare`; None of one method alone, and where
        predictions are missing.

        An oracle of which there are other replicates than of the baseline is left out. Raises
        `InputError` for methods that cannot be compared.
        """
        return self._comparison[0]

    @property
    def left_out(self) -> Sequence[str]:
        """What is not compared, and what else to know of the comparison."""
        return self._comparison[1]

    @cached_property
    def _comparison(self) -> tuple[Compared | None, Sequence[str]]:
        paired = [name for name in self.names if name not in self.oracles or self._is_paired(name)]
        if len(paired) < 2:
            return None, []
        try:
            members = {name: members_there(self.home, name, self.members[name]) for name in paired}
            found = compared(
                self.home, members, margin=self.margin, common=self.common, metrics=self.metrics
            )
        except NoPredictionsError as error:
            return None, [f"no comparison: {error}"]
        left_out = [
            f"{name} is left out of the comparison: it has other replicates than {self.baseline}"
            for name in self.names if name not in paired
        ]  # fmt: skip
        return found, [*found.read.remarks, *left_out]

    @property
    def command(self) -> str:
        """What makes the report again, in the folder that it is run from."""
        return shlex.join(["fomo", "report", *self.asked, *self.options])

    @cached_property
    def assets(self) -> pl.DataFrame:
        """asset, kind, experiment, stage, digest and recorded_at of all that the report is of, and
        of nothing that can be made after the scores."""
        streams = self.replicates["stream"].unique()  # which replicates of other orders have own
        listed = ", ".join(map(quoted, self.experiments))
        of_streams = " OR ".join(
            f"starts_with(asset, {quoted(f'streams/{stream}/')})" for stream in streams.sort()
        )
        return query(
            self.home.root,
            "SELECT asset, kind, experiment, stage, makes_weights, digest, recorded_at "
            f"FROM artifacts WHERE (experiment IN ({listed}) OR {of_streams or 'false'}) "
            f"AND (makes_weights OR kind IN ({', '.join(map(quoted, KINDS))})) ORDER BY asset",
        )

    @property
    def newest(self) -> str:
        """When the newest asset of the report was made (UTC)."""
        newest = self.assets["recorded_at"].dt.strftime("%Y-%m-%d %H:%M").max()
        return "" if newest is None else str(newest)

    def source(self, sql: str, command: str | None, *kinds: str) -> Source:
        """sql: with `{experiments}` where those of the report are to stand; command: None where
        only the report has it; kinds: of the assets that it reads, by their view `artifacts`, or
        `weights` for all that make some."""
        listed = ", ".join(map(quoted, self.experiments))
        is_read = pl.col("kind").is_in(list(kinds))
        if "weights" in kinds:
            is_read |= pl.col("makes_weights")
        read = self.assets.filter(is_read).select("asset", "digest")
        return Source(
            " ".join(sql.replace("{experiments}", listed).split()),
            self.command if command is None else command,
            dict(read.iter_rows()),
        )

    def named(self, command: str, *options: str) -> str:
        """A command over all that the report is about."""
        names = [name for name in self.asked if name not in self.missing]
        return shlex.join(["fomo", command, *names, *options])

    def part_of(self, method: str, part: str) -> str:
        """What a part of a method's is called in names of files, as no other method's is."""
        named = f"{method}_{part}"
        return f"{method}-{part}" if named in self.names else named  # no method's name has a hyphen

    def _is_paired(self, name: str) -> bool:
        labels = dict(self.replicates.group_by("method").agg("replicate").iter_rows())
        if all(len(own) == 1 for own in labels.values()):
            return True
        return set(labels[name]) == set(labels.get(self.baseline, ()))

    def _in_order(self, frame: pl.DataFrame) -> pl.DataFrame:
        order = pl.DataFrame({"method": self.names}, schema={"method": pl.String})
        return order.join(frame, on="method", how="inner", maintain_order="left_right")


def experiments_of_methods(home: Home, experiments: Sequence[str]) -> dict[str, list[str]]:
    """What replicates are of, or an experiment itself → its experiments with scores, in the order
    of these."""
    rows = of_methods(home.root, "leaderboard", experiments)
    method_of = dict(rows.select("experiment", "method").iter_rows())
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(experiments):
        if name in method_of:
            found.setdefault(method_of[name], []).append(name)
    return found

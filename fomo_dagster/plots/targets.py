"""Curves of a metric over a cost, the target, and where it is reached."""

from __future__ import annotations

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from fomo_dagster.errors import InputError
from fomo_dagster.plots.figure import MUTED, line_of, new_figure, tidy
from fomo_dagster.tables.targets import Targets

PANELS = 3  # in a row
KEPT, NOT_KEPT = "o", "x"
MARKS = {KEPT: "reached for good", NOT_KEPT: "not reached for good"}
NAMES = {"flops": "FLOPs", "seconds": "seconds", "steps": "steps", "samples": "samples"}


def targets_figure(found: Targets) -> Figure:
    """A panel a workload: a line an experiment in the colour of its method, the target as dashes, a
    ring where it is reached for good, and a cross where a line ends without that.

    Raises `InputError` where nothing recorded the cost.
    """
    known = found.stages.drop_nulls(["value", found.cost])
    if known.is_empty():
        raise InputError(f"no experiment recorded its {found.cost}: choose another cost with --in")
    workloads = found.rows["workload"].unique(maintain_order=True).to_list()
    methods = found.rows["method"].unique(maintain_order=True).to_list()
    columns = min(PANELS, len(workloads))
    rows = -(-len(workloads) // columns)
    figure = new_figure(max(6.5, 3.2 * columns), 3.2 * rows + 0.19 * (len(methods) + 3) / 2)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, workload in zip(panels, workloads, strict=False):
        _panel(axes, found, known.filter(workload=workload), workload, methods)
        if len(workloads) > 1:
            axes.set_title(workload, fontsize=9, loc="left", parse_math=False)
    for axes in panels[len(workloads) :]:
        axes.set_axis_off()
    figure.supxlabel(NAMES[found.cost], fontsize=10)
    figure.supylabel(f"{found.metric.label} ({found.metric.unit})", fontsize=10)
    handles: dict[str, Artist] = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    for marker, label in MARKS.items():
        handles[label] = Line2D([], [], color=MUTED, marker=marker, markersize=9, linestyle="none",
                                markeredgewidth=1.8, fillstyle="none")  # fmt: skip
    legend = figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=2,
                           fontsize=8.5, frameon=False)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _panel(
    axes: Axes, found: Targets, known: pl.DataFrame, workload: str, methods: list[str]
) -> None:
    tidy(axes)
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{THIN SPACE}"))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    of_workload = found.rows.filter(workload=workload)
    axes.axhline(of_workload["target"][0], color=MUTED, linestyle="--", linewidth=1.2,
                 label="target")  # fmt: skip
    for row in of_workload.iter_rows(named=True):
        line = known.filter(experiment=row["experiment"]).sort("stage")
        if line.is_empty():
            continue
        of_method = line_of(methods.index(row["method"]))
        axes.plot(line[found.cost], line["value"], color=of_method.color, linewidth=1.4,
                  linestyle=of_method.linestyle, marker=".", label=row["method"])  # fmt: skip
        is_kept = row["held"] is not None
        at = line.filter(stage=row["held"]) if is_kept else line.tail(1)
        axes.plot(at[found.cost], at["value"], KEPT if is_kept else NOT_KEPT, linestyle="none",
                  color=of_method.color, markersize=9, markeredgewidth=1.8,
                  fillstyle="none")  # fmt: skip

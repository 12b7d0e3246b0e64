"""What is gathered of methods, from tables written by hand."""

import json
from dataclasses import replace

import polars as pl
import pytest

from fomo_dagster.experiment.target import Target
from fomo_dagster.home import Home
from fomo_dagster.reports import members
from fomo_dagster.reports.content import Figure, Table
from fomo_dagster.reports.making import report_of
from fomo_dagster.reports.members import Reported, experiments_of_methods
from fomo_dagster.reports.sections import losses, target
from fomo_dagster.reports.sections.curves import savings
from fomo_dagster.reports.sections.final_scores import final_scores
from fomo_dagster.reports.sections.grids import grid
from fomo_dagster.reports.sections.matrix import matrix
from fomo_dagster.reports.sections.responses import responses
from fomo_dagster.reports.sections.settings import differing, settings_of
from fomo_dagster.reports.sections.windows import section as windows_section
from fomo_dagster.reports.sections.windows import transfer, windows
from fomo_dagster.store.heads import Head
from fomo_dagster.tables.files import write_table
from fomo_dagster.tables.predictions import NoPredictionsError
from fomo_dagster.tables.replicates import methods, of_methods
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.views import query

pytestmark = pytest.mark.slow

DIGEST = "a" * 32


def named(concept):
    dataset, _, name = concept.rpartition("+++")
    return {"dataset": dataset or "d", "concept": name}


class Written:
    """A home with the tables and heads of experiments."""

    def __init__(self, root):
        self.home = Home(root)

    def head(self, asset, kind, experiment=None, stage=None, **more):
        head = Head(
            asset=asset, kind=kind, experiment=experiment, stage=stage, digest=DIGEST,
            data_version=DIGEST, code_version="", recipes={}, artifacts={}, facts={},
            status="computed", recorded_at="2026-03-04T05:06:07+00:00", seconds=1.0, **more,
        )  # fmt: skip
        self.home.heads.write(head)

    def rows(self, table, asset, rows):
        nothing = dict.fromkeys(SCHEMAS[table])
        frame = pl.DataFrame([{**nothing, **row} for row in rows], schema=dict(SCHEMAS[table]))
        write_table(self.home.root, table, asset, DIGEST, frame)

    def experiment(
        self,
        name,
        scores,
        settings,
        *,
        of=None,
        stream="s",
        order="as_listed",
        flops=100.0,
        sweep=None,
    ):
        """scores: (KA, ZS) of each stage."""
        asset, replicate = f"{name}/scores", "" if of is None else name.removeprefix(f"{of}_")
        settings = {"seed": 0, "stream": {"name": stream}, "method": {}, **settings}
        means = [None if zs is None else (ka * zs) ** 0.5 for ka, zs in scores]
        self.rows("scores", asset, [
            {"experiment": name, "stage": stage, "knowledge_accumulation": ka,
             "zero_shot_retention": zs, "geometric_mean": mean}
            for stage, ((ka, zs), mean) in enumerate(zip(scores, means, strict=True))
        ])  # fmt: skip
        texts = {name: "" for name, kind in SCHEMAS["experiments"].items() if kind == pl.String()}
        numbers = {n: 0 for n in SCHEMAS["experiments"] if n not in texts}
        method = settings["method"]
        merge = method.get("merge")
        self.rows("experiments", asset, [
            texts | numbers | {
                "experiment": name, "replicate_of": of, "replicate": replicate, "sweep": sweep,
                "preserve": None, "stages": len(scores) - 1, "stream": stream,
                "stream_order": order,
                "start_from": method.get("start_from", "trained"),
                "deploy": method.get("deploy", "trained"),
                "technique": merge["technique"] if merge else None,
                "settings": json.dumps(settings),
            }
        ])  # fmt: skip
        self.head(asset, "scores", name)
        for stage in range(1, len(scores)):
            cost = {"samples": 10, "flops": flops, "seconds": 2.0}
            self.head(f"{name}/trained_{stage:03d}", "trained", name, stage, cost=cost,
                      makes_weights=True)  # fmt: skip

    def chunks(self, stream, *concepts):
        """concepts: those of each stage; of the dataset d, unless they say which."""
        asset = f"streams/{stream}/chunks"
        self.rows("chunks", asset, [
            {"stream": stream, "stage": stage, "position": 1, "samples": 1, **named(concept)}
            for stage, of_stage in enumerate(concepts, 1) for concept in of_stage
        ])  # fmt: skip
        self.head(asset, "chunk")

    def concept_scores(self, name, values, samples=None):
        """values: (stage, concept) → score, a concept as those of `chunks`; samples: concept → how
        many, or one each."""
        self.rows("concept_scores", f"{name}/evaluation", [
            {"experiment": name, "stage": stage, "role": "adaptation", "metric": "accuracy",
             "value": value, "samples": (samples or {}).get(named(concept)["concept"], 1),
             **named(concept)}
            for (stage, concept), value in values.items()
        ])  # fmt: skip
        self.head(f"{name}/evaluation", "evaluation", name)

    def evaluations(self, name, values):
        """values: (dataset, stage, metric) → value."""
        self.rows("evaluations", f"{name}/evaluation", [
            {"experiment": name, "stage": stage, "dataset": dataset, "role": "adaptation",
             "task": "classification", "metric": metric, "value": value, "samples": 1}
            for (dataset, stage, metric), value in values.items()
        ])  # fmt: skip
        self.head(f"{name}/evaluation", "evaluation", name)

    def reported(self, *names):
        experiments = [
            asset.split("/")[0] for asset in self.home.heads.below("") if asset.endswith("/scores")
        ]
        known = experiments_of_methods(self.home, experiments)
        chosen = {name: known[name] for name in names or known}
        return Reported(self.home, chosen, list(chosen))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """There are no predictions, and so no comparisons and no pictures."""

    def refuse(*_, **__):
        raise NoPredictionsError("none")

    monkeypatch.setattr(members, "compared", refuse)
    monkeypatch.setattr(losses, "errors_of", refuse)
    return Written(tmp_path)


def test_means_over_replicates_are_those_of_results(written):
    for seed, ka in enumerate((30.0, 36.0)):
        written.experiment(f"a_seed_{seed}", [(10, 40), (ka, 20)], {"seed": seed}, of="a")
    reported = written.reported()
    assert reported.names == ["a"]
    (row,) = final_scores(reported).to_dicts()
    assert (row["knowledge_accumulation"], row["replicates"]) == (33, 2)
    (shown,) = methods(written.home.root).to_dicts()
    assert {key: row[key] for key in shown} == shown
    last = reported.stages.filter(stage=1).drop("stage")
    assert last.to_dicts() == [shown]
    assert row["θ₀_geometric_mean"] == 20
    # In the order of names, not of scores or threads: the last digits of means depend on it.
    board = of_methods(written.home.root, "leaderboard")
    assert board["experiment"].to_list() == ["a_seed_0", "a_seed_1"]


def test_one_run_of_few_stages_has_no_empty_section(written):
    written.experiment("a", [(10, 40)], {})
    final, paths = report_of(written.reported()).sections
    assert (final.title, paths.title) == ("Final scores", "Accumulation against retention")
    assert "n = 1 is one run" in final.blocks[1].caption
    written.experiment("b", [(10, None)], {})
    assert [one.title for one in report_of(written.reported("b")).sections] == ["Final scores"]


def test_the_name_of_the_sweep_that_all_are_of_is_said_once(written):
    for name in ("rates_a", "rates_b"):
        written.experiment(name, [(10, 40), (20, 30)], {}, sweep="rates")
    report = report_of(written.reported())
    assert report.title == "b against a"
    assert report.remarks[-1] == "The names of all methods begin with rates_."
    assert report.all_of(Table)[0].shown["method"].to_list() == ["a", "b"]
    assert report_of(written.reported("rates_b")).title == "rates_b"
    written.experiment("other", [(10, 40), (20, 30)], {})
    assert report_of(written.reported()).title == "rates_a, rates_b against other"


def test_what_sees_all_at_once_is_an_oracle_and_an_early_stop_is_not(written):
    written.chunks("s", ["x", "y"], ["z"])
    written.chunks("joint", ["z", "y", "x"])
    written.chunks("first", ["x", "y"])
    written.experiment("a", [(10, 40), (20, 30), (30, 20)], {})
    written.experiment("oracle", [(10, 40), (60, 40)], {}, stream="joint")
    written.experiment("early", [(10, 40), (15, 35)], {}, stream="first")
    assert written.reported().oracles == ["oracle"]
    assert written.reported("oracle", "early").oracles == []


def test_the_matrix_is_the_mean_over_replicates(written):
    written.chunks("s", ["x", "y"], ["z"])
    for seed in (0, 1):
        name = f"a_seed_{seed}"
        written.experiment(name, [(1, 1)] * 3, {"seed": seed}, of="a")
        written.concept_scores(
            name, {(1, "x"): 50 + 10 * seed, (1, "y"): 70.0, (1, "z"): 5.0 + seed}
        )
        written.evaluations(name, {("d", 1, "chance"): 4.0})
    found = matrix(written.reported())
    assert found.rows() == [("a", 1, 1, 62.5, 4.0), ("a", 1, 2, 5.5, 4.0)]


def test_windows_of_years_have_the_means_of_their_datasets_and_how_far_off_they_are(written):
    """Two datasets are of 2012. The second stage trains on the rest of 2012, and on 2020."""
    written.rows("orders", "streams/s/order", [
        {"stream": "s", "position": place, "dataset": dataset, "concept": concept, "figure": year}
        for place, (dataset, concept, year) in enumerate(
            [("a", "x", 2012.0), ("b", "x", 2012.0), ("c", "x", 2020.0), ("d", "x", 2024.0)], 1
        )
    ])  # fmt: skip
    written.head("streams/s/order", "order")
    written.chunks("s", ["a+++x"], ["b+++x", "c+++x"], ["d+++x"])
    for seed in (0, 1):
        name = f"e_seed_{seed}"
        written.experiment(name, [(1, 1)] * 4, {"seed": seed}, of="e", order="time_incremental")
        written.concept_scores(name, {
            (stage, f"{dataset}+++x"): 10.0 * stage + place + seed
            for stage in range(4) for place, dataset in enumerate("abcd")
        })  # fmt: skip
        written.evaluations(name, {(d, s, "chance"): 5.0 for d in "abc" for s in range(4)})
    found = windows(written.reported())
    assert found.filter(stage=2).rows() == [
        ("e", 2, "2020", "2012", -1, 21.0, 5.0), ("e", 2, "2020", "2020", 0, 22.5, 5.0),
        ("e", 2, "2020", "2024", 1, 23.5, None),
    ]  # fmt: skip
    assert found.filter(stage=0)["distance"].null_count() == 3
    assert found.filter(stage=1)["distance"].to_list() == [0, 1, 2]
    (row,) = transfer(found).rows()
    assert row == ("e", (21 + 31 + 32.5) / 3, (11 + 22.5 + 33.5) / 3, (12.5 + 13.5 + 23.5) / 3)
    figure, summary, _ = windows_section(written.reported()).blocks
    axes = figure.drawing.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][2] == "2020: 2"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2012\n5", "2020\n5", "2024"]
    assert query(written.home.root, summary.source.query).height == 2 * 4 * 3


def test_windows_of_a_growing_stream_are_its_arrivals_and_other_streams_have_none(written):
    written.chunks("s", ["s_2024+++x"], ["s_2025+++x", "s_2025+++y"])
    for name, stream in (("grows", {"growing": "incoming"}), ("fixed", {"growing": None})):
        written.experiment(name, [(1, 1)] * 3, {"stream": stream})
        written.concept_scores(name, {
            (1, "s_2024+++x"): 50.0, (2, "s_2024+++x"): 40.0, (2, "s_2025+++x"): 30.0,
            (2, "s_2025+++y"): 60.0,
        }, samples={"x": 1, "y": 3})  # fmt: skip
    found = query(written.home.root, "FROM windows ORDER BY ALL")
    assert found.rows() == [
        ("grows", 1, "s_2024", "s_2024", 0, 50.0, None, 1, 1),
        ("grows", 2, "s_2025", "s_2024", -1, 40.0, None, 1, 1),
        ("grows", 2, "s_2025", "s_2025", 0, 52.5, None, 1, 4),
    ]


def test_compute_is_compared_at_equal_scores(written):
    written.experiment("a", [(4, 4), (9, 9), (16, 16)], {}, flops=100.0)
    written.experiment("b", [(4, 4), (16, 16), (25, 25)], {}, flops=50.0)
    assert savings(written.reported()).rows() == [("b", 16.0, 50.0, 200.0, 4.0)]


def test_a_declared_target_says_who_keeps_it_and_for_how_much(written):
    written.experiment("a", [(4, 4), (9, 9), (16, 16)], {}, flops=100.0)
    written.experiment("b", [(4, 4), (16, 16), (9, 9)], {}, flops=50.0)
    assert target.section(written.reported()) is None
    table, figure = target.section(replace(written.reported(), target=Target(value=10))).blocks
    assert table.shown.select("run", "kept", "best GM", "FLOPs").rows() == [
        ("a", "from stage 2", "16.00", "200 FLOPs"), ("b", "never", "16.00", "> 100 FLOPs"),
    ]  # fmt: skip
    assert figure.source.command == "fomo target a b --value 10 --in flops"
    assert query(written.home.root, table.source.query).height == 6
    of_baseline = Target(metric="knowledge_accumulation")
    (table, _) = target.section(replace(written.reported(), target=of_baseline)).blocks
    assert table.source.command == "fomo target a b --metric KA --of a --in flops"
    assert "its KA was 16.00, that of a, or more" in table.caption
    assert table.shown["kept"].to_list() == ["from stage 2", "never"]


def test_a_target_of_several_workloads_is_told_for_each(written):
    for stream, score in (("s", 16), ("r", 25)):
        of = {"of": "a", "stream": stream}
        written.experiment(f"a_{stream}", [(4, 4), (score, score)], {}, **of)
        written.experiment(f"b_{stream}", [(4, 4), (20, 20)], {}, **{**of, "of": "b"})
    (table, _) = target.section(replace(written.reported(), target=Target())).blocks
    assert "was that of a on the same workload (25.00 on r, 16.00 on s) or more" in table.caption
    assert table.shown.select("run", "workload", "kept").rows() == [
        ("a_r", "r", "from stage 1"), ("a_s", "s", "from stage 1"),
        ("b_r", "r", "never"), ("b_s", "s", "from stage 1"),
    ]  # fmt: skip


def test_a_target_of_a_score_that_a_method_lacks_is_shown_of_the_others(written):
    written.experiment("a", [(4, 4), (16, 16)], {})
    written.experiment("b", [(4, None), (16, None)], {})
    (table, _) = target.section(replace(written.reported(), target=Target(value=10))).blocks
    assert table.shown["run"].to_list() == ["a"]
    assert table.caption.endswith("Without GM, and left out: b.")
    of_b = target.section(replace(written.reported("b", "a"), target=Target()))
    (said,) = of_b.blocks
    assert said.startswith("No target: b has no last value")


def test_settings_that_differ_are_shown_but_for_seeds(written):
    written.experiment("a", [(1, 1)], {"batch_size": 8, "method": {"merge": None}})
    merge = {"technique": "ties", "scale": 0.5}
    written.experiment("b", [(1, 1)], {"seed": 5, "batch_size": 8, "method": {"merge": merge}})
    settings = settings_of(written.reported())
    assert differing(settings) == ["method.merge.scale", "method.merge.technique"]


def test_a_grid_is_of_methods_that_differ_in_merging_alone(written):
    def method(start, technique, **more):
        merge = {"technique": technique, **more}
        return {"method": {"start_from": start, "deploy": "joint", "merge": merge}}

    for number, start in enumerate(("initial", "trained")):
        for technique, scale in (("ties", 1), ("ties", 2), ("average", None)):
            scales = {} if scale is None else {"scale": scale}
            name = f"{start}_{technique}_{scale}"
            score = 10 * number + (scale or 0) + 1
            written.experiment(name, [(score, score)], method(start, technique, **scales))
    written.experiment("other", [(90, 90)], {**method("trained", "ties"), "batch_size": 8})
    found = grid(written.reported())
    assert set(found["technique"]) == {"ties scale 1", "ties scale 2", "average"}
    value = found.filter(start_from="trained", technique="ties scale 2")["geometric_mean"]
    assert value.to_list() == pytest.approx([13])
    assert found.height == 6
    assert grid(written.reported("other", "trained_ties_1")).is_empty()


def test_a_response_takes_three_values_with_all_else_equal(written):
    for method in ("full", "lora"):
        for rate in (1e-4, 1e-3, 1e-2)[: 3 if method == "full" else 2]:
            settings = {"optimiser": {"learning_rate": rate}, "method": {"name": method}}
            written.experiment(f"{method}_{rate}".replace(".", "_").replace("-", "_"),
                               [(1, 1), (100 * rate, 4)], settings)  # fmt: skip
    found = responses(written.reported())
    assert list(found) == ["optimiser.learning_rate"]
    points = found["optimiser.learning_rate"].sort("value")
    assert points["value"].to_list() == [1e-4, 1e-3, 1e-2]
    assert points["knowledge_accumulation"].to_list() == pytest.approx([0.01, 0.1, 1])


def test_the_query_below_each_table_and_figure_can_be_asked(written):
    written.chunks("s", ["x"], ["z"])
    for number, rate in enumerate((1e-4, 1e-3, 1e-2), 1):
        name = f"e{number}"
        start = ("initial", "trained", "deployed")[number - 1]
        merge = {"technique": "ties" if number == 1 else "dare"}
        method = {"start_from": start, "deploy": "joint", "merge": merge}
        written.experiment(name, [(1, 1), (2, 2), (3, 3)], {"method": method})
        written.concept_scores(name, {(1, "x"): 50.0, (1, "z"): 5.0})
        written.experiment(f"r{number}", [(1, 1), (number, 2)],
                           {"optimiser": {"learning_rate": rate}})  # fmt: skip
    report = report_of(written.reported())
    blocks = [*report.all_of(Table), *report.all_of(Figure)]
    names = {"grid", "matrix", "response_optimiser_learning_rate", "costs", "settings"}
    assert names <= {block.name for block in blocks}
    for asked in {block.source.query for block in blocks}:
        assert query(written.home.root, asked).height
    assert all(block.source.digests for block in blocks)
    commands = {block.name: block.source.command for block in blocks}
    assert all(command.startswith("fomo ") for command in commands.values())
    assert commands["matrix"] == commands["settings"] == "fomo report e1 e2 e3 r1 r2 r3"


def test_the_streams_of_all_replicates_are_read(written):
    for seed in (0, 1):
        written.chunks(f"s_{seed}", ["x"], ["z"])
        written.rows("orders", f"streams/s_{seed}/order", [])
        written.head(f"streams/s_{seed}/order", "order")
        written.experiment(f"a_seed_{seed}", [(1, 1)] * 3, {"stream": {"name": f"s_{seed}"}},
                           of="a", stream=f"s_{seed}")  # fmt: skip
        written.concept_scores(f"a_seed_{seed}", {(1, "x"): 50.0, (1, "z"): 5.0})
    reported = written.reported()
    assert reported.names == ["a"]
    figure = next(one for one in report_of(reported).all_of(Figure) if one.name == "matrix")
    streams = {asset for asset in figure.source.digests if asset.startswith("streams/")}
    assert streams == {"streams/s_0/chunks", "streams/s_1/chunks"}
    read = reported.source("", None, "order").digests
    assert set(read) == {"streams/s_0/order", "streams/s_1/order"}

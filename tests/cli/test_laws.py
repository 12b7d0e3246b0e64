"""`fomo fit` and `fomo target` over experiments whose numbers are known."""

import json
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.metrics import KNOWLEDGE_ACCUMULATION, SCORES
from fomo_dagster.plots.targets import targets_figure
from fomo_dagster.store.heads import Head
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.tables.files import write_table
from fomo_dagster.tables.schemas import TABLES
from fomo_dagster.tables.targets import targets_of

pytestmark = pytest.mark.slow

DIGEST = "a" * 32


@dataclass
class Made:
    """Experiments of which only the tables were made."""

    home: Home

    def head(self, asset, kind, **fields):
        head = {
            "experiment": None, "stage": None, "digest": DIGEST, "data_version": DIGEST,
            "code_version": "", "recipes": {}, "artifacts": {}, "facts": {}, "status": "computed",
            "recorded_at": "2026-03-04T05:06:07+00:00", "seconds": 1.0,
        }  # fmt: skip
        self.home.heads.write(Head(asset=asset, kind=kind, **{**head, **fields}))

    def table(self, table, asset, rows):
        columns = TABLES[table].columns
        empty = {
            name: None if column.nullable else "" if column.type == pl.String() else 0
            for name, column in columns.items()
        }
        schema = {name: column.type for name, column in columns.items()}
        frame = pl.DataFrame([empty | row for row in rows], schema=schema)
        write_table(self.home.root, table, asset, DIGEST, frame)

    def experiment(self, name, accuracies, samples, **settings):
        """accuracies: KA of stages 0 on; samples: of each stage."""
        row = {"stages": len(accuracies) - 1, "seed": 0, "replicate": "", "batch_size": 8,
               "method": "finetune", "stream": "toy", "backbone": "toy", "budget": 1.0,
               "file": f"experiments/{name}.yaml", "settings": "{}"}  # fmt: skip
        self.table("experiments", f"{name}/scores", [{"experiment": name, **row, **settings}])
        scores = [
            dict.fromkeys(SCORES)
            | {"experiment": name, "stage": stage, "knowledge_accumulation": value}
            for stage, value in enumerate(accuracies)
        ]
        self.table("scores", f"{name}/scores", scores)
        self.head(f"{name}/scores", "scores", experiment=name)
        for stage in range(1, len(accuracies)):
            asset = f"{name}/trained_{stage:03d}"
            steps = [
                {"experiment": name, "stage": stage, "step": step, "loss": 2 - step + 100 / samples}
                for step in range(2)
            ]
            self.table("training_steps", asset, steps)
            cost = {"samples": samples, "flops": 10.0 * samples, "seconds": samples / 4}
            self.head(asset, "trained", experiment=name, stage=stage, cost=cost, makes_weights=True)

    def backbone(self, name, parameters):
        def make(folder):
            save_file({"a": np.zeros((parameters // 2, 2))}, folder / "weights.safetensors")

        artifact = self.home.store.get_or_make(Recipe("backbone", 1, {"name": name}, {}), make)
        self.head(
            f"backbones/{name}", "backbone", artifacts={"only": (artifact.kind, artifact.digest)}
        )


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("FOMO_HOME", str(tmp_path))
    monkeypatch.delenv("FOMO_STORE", raising=False)
    for room, name in (("laws", "uncertainty"), ("joint_laws", "joint_uncertainty")):
        module = import_module(f"fomo_dagster.cli.{room}")
        monkeypatch.setattr(module, name, partial(getattr(module, name), draws=10))
    return Made(Home(tmp_path))


def fomo(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def error(samples):
    return 400 * samples**-0.4 + 10


def test_a_law_of_a_sweep_says_what_it_held_out_and_what_comes(made, tmp_path):
    for power in range(6):
        samples = 1000 * 2**power
        made.experiment(f"law_{samples}", [5.0, 100 - error(samples)], samples, sweep="law")
    said = json.loads(fomo("fit", "law", "--metric", "KA", "--at", 64000, "--json"))
    assert (said["error"], said["against"], said["law"]) == ("100 - KA", "samples", "M2")
    assert [point["samples"] for point in said["points"]] == [1000 * 2**k for k in range(6)]
    for name, value in {"β": 400, "c": -0.4, "ε∞": 10}.items():
        assert said["parameters"][name]["value"] == pytest.approx(value, rel=1e-3)
    (held_out,), (ahead,) = said["held_out"], said["ahead"]
    assert held_out["measured"] == pytest.approx(error(32000))
    assert held_out["predicted"] == pytest.approx(error(32000), rel=1e-5)
    assert (ahead["samples"], ahead["predicted"]) == (64000, pytest.approx(error(64000), rel=1e-5))
    two = json.loads(fomo("fit", "law", "--metric", "KA", "--hold-out", 2, "--json"))["held_out"]
    assert [point["samples"] for point in two] == [16000, 32000]
    printed = fomo("fit", "law", "--metric", "KA", "--law", "M1", "--to", tmp_path / "law.svg")
    assert printed.splitlines()[0] == "100 - KA against samples: 6 points at 6 values, 1 held out"
    assert (tmp_path / "law.svg").read_bytes().startswith(b"<?xml")
    fomo("fit", "law", "--metric", "KA", "--law", "M1", "--to", tmp_path / "LAW.PNG")
    assert (tmp_path / "LAW.PNG").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"pictures are .png, .svg, .pdf files, not .jpg"):
        fomo("fit", "law", "--metric", "KA", "--to", tmp_path / "law.jpg")


def test_laws_look_ahead_at_positive_numbers_alone(made):
    for parameters in (1000, 4000, 16000):
        made.backbone(f"of_{parameters}", parameters)
        for samples in (250, 1000, 4000):
            value = 50 - samples / 1000 + np.log(parameters / 4000) ** 2
            made.experiment(f"joint_{parameters}_{samples}", [1.0, 100 - value], samples,
                            sweep="joint", backbone=f"of_{parameters}")  # fmt: skip
    joint = ("--joint",), ("--joint", "--approach", "isoflop")
    for options, against in (((), "samples"), *((one, "FLOPs") for one in joint)):
        for at in ("nan",) if options else ("0", "-5", "nan", "inf"):
            with pytest.raises(InputError, match=f"--at is {at}: expected a positive number of "
                                                 f"{against}"):  # fmt: skip
                fomo("fit", "joint", "--metric", "KA", *options, "--at", at)


def test_no_prediction_is_above_what_an_error_can_be(made):
    """Of a law of few samples, and at fewer still; the Brier score goes up to 200."""
    for power in range(6):
        samples = 1000 * 2**power
        made.experiment(f"law_{samples}", [0.0, 100 - error(samples)], samples, sweep="law")
        rows = [
            {"experiment": f"law_{samples}", "stage": stage, "dataset": "birds", "role":
             "adaptation", "task": "classification", "metric": "brier_score", "value":
             4 * error(samples), "samples": 9} for stage in (0, 1)
        ]  # fmt: skip
        made.table("evaluations", f"law_{samples}/evaluation_001", rows)
        made.head(f"law_{samples}/evaluation_001", "evaluation", experiment=f"law_{samples}")
    asked = ("fit", "law", "--at", 1, "--at", 400, "--json")
    said = json.loads(fomo(*asked, "--metric", "KA"))["ahead"]
    assert [row["predicted"] for row in said] == [100.0, pytest.approx(error(400))]
    assert said[0]["low"] <= said[0]["predicted"] <= said[0]["high"] == 100
    said = json.loads(fomo(*asked, "--metric", "brier_score", "--dataset", "birds"))["ahead"]
    assert [row["predicted"] for row in said] == [200.0, pytest.approx(4 * error(400))]
    assert said[1]["predicted"] > 100
    assert said[0]["high"] == 200


def test_what_has_no_law_is_said(made):
    made.experiment("one", [5.0, 20.0, 40.0], 100)
    made.experiment("other", [5.0, 10.0], 400, method="lora")
    for arguments, said in (
        (("one", "--metric", "KA"), "two values of x or more, not 1 point, all at 200"),
        (("one", "other", "--metric", "KA"), "100 - KA against samples: the error grows, from 60"),
        (("one", "--metric", "ka", "--every-stage"), "2 values of x, of which the largest 1"),
        (("one",), "none of one has geometric_mean: choose another metric"),
        (("two",), "'two' has no scores yet: `fomo run two` computes them"),
        (("one", "--metric", "backward_transfer"), "is a difference, in points, and no error"),
        (("one", "--metric", "forgetting"), "is a difference, in points, and no error"),
        (("one", "--metric", "accuracy"), "no metric 'accuracy' of a stage .one of a dataset"),
        (("one", "--against", "size"), "there is no law against 'size'"),
        (("one", "--joint", "--law", "M1"), "--joint goes without --law"),
        (("one", "--approach", "isoflop"), "divides compute: give it with --joint"),
        (("one", "--dataset", "birds"), "has 'score' of 'birds'"),
    ):
        with pytest.raises(InputError, match=said):
            fomo("fit", *arguments)
    made.experiment("third", [5.0, 30.0], 100)
    printed = fomo("fit", "one", "third", "other", "--metric", "training_loss", "--json")
    assert json.loads(printed)["points"][0]["error"] == 2.0


def test_compute_is_divided_between_parameters_and_samples(made):
    for parameters in (1000, 4000, 16000):
        made.backbone(f"of_{parameters}", parameters)
        for samples in (500, 1000, 2000):
            value = 5 + 300 * parameters**-0.5 + 200 * samples**-0.4
            made.experiment(
                f"joint_{parameters}_{samples}", [1.0, 100 - value], samples, sweep="joint",
                backbone=f"of_{parameters}",
            )  # fmt: skip
    said = json.loads(fomo("fit", "joint", "--metric", "KA", "--joint", "--at", 4e5, "--json"))
    expected = {"E": 5, "A": 300, "B": 200, "α": 0.5, "β": 0.4, "a": 4 / 9, "b": 5 / 9}
    found = {name: parameter["value"] for name, parameter in said["parameters"].items()}
    assert found == pytest.approx(expected, rel=1e-3)
    (best,) = said["optima"]
    assert best["parameters"] * best["samples"] * said["flops_each"] == pytest.approx(4e5)
    assert "Best division of compute" in fomo("fit", "joint", "--metric", "KA", "--joint")
    asked = ("fit", "joint", "--metric", "KA", "--joint", "--approach")
    with pytest.raises(InputError, match="100 - KA against parameters and samples: of 3 model"):
        fomo(*asked, "envelope")
    with pytest.raises(InputError, match="of 3 budgets with as many sizes, 0 do"):
        fomo(*asked, "isoflop")
    printed = fomo("fit", "joint", "--metric", "KA", "--against", "parameters", "--json")
    assert {point["parameters"] for point in json.loads(printed)["points"]} == {1000, 4000, 16000}


def test_compute_is_divided_by_the_best_sizes_of_budgets_too(made):
    for parameters in (1000, 4000, 16000):
        made.backbone(f"of_{parameters}", parameters)
        for samples in (250, 1000, 4000):  # the best sizes: 2000, 4000 and 8000
            best = 4000 * (samples / 1000) ** 0.5
            value = 50 - samples / 1000 + np.log(parameters / best) ** 2
            made.experiment(
                f"joint_{parameters}_{samples}", [1.0, 100 - value], samples, sweep="joint",
                backbone=f"of_{parameters}",
            )  # fmt: skip
    asked = ("fit", "joint", "--metric", "KA", "--joint", "--approach", "isoflop")
    said = json.loads(fomo(*asked, "--at", 4e4, "--json"))
    assert [row["parameters"] for row in said["best"]] == pytest.approx([2000, 4000, 8000])
    assert said["exponents"]["a"]["value"] == pytest.approx(0.5)
    assert said["optima"][0]["parameters"] == pytest.approx(8000)
    printed = fomo(*asked)
    assert "N_opt ∝ C^a and D_opt ∝ C^b" in printed
    assert "no intervals: too few points" in printed


def test_the_time_to_a_target_ends_where_it_is_kept(made, tmp_path):
    made.experiment("fast", [10.0, 55.0, 45.0, 60.0], 100)
    made.experiment("slow", [10.0, 20.0, 45.0, 50.0], 400)
    made.experiment("lost", [10.0, 55.0, 45.0, 40.0], 100)
    said = json.loads(
        fomo("target", "fast", "slow", "lost", "--metric", "KA", "--value", 50, "--json")
    )
    rows = {row["experiment"]: row for row in said["experiments"]}
    spent = ("first", "held", "censored", "steps", "samples", "flops", "seconds")
    assert [rows["fast"][name] for name in spent] == [1, 3, False, 6, 300, 3000.0, 75.0]
    assert [rows["slow"][name] for name in spent] == [3, 3, False, 6, 1200, 12000.0, 300.0]
    assert [rows["lost"][name] for name in spent] == [1, None, True, 6, 300, 3000.0, 75.0]
    assert [(row["method"], row["score"]) for row in said["profile"]] == [
        ("fast", 1.0), ("slow", 0.0), ("lost", 0.0),
    ]  # fmt: skip
    assert said["profile"][1]["ρ(4)"] == 1.0
    printed = fomo("target", "fast", "lost", "--metric", "KA", "--of", "slow", "--in", "steps")
    assert "reached at stage 1, lost again" in printed
    assert "> 300" in printed
    found = targets_of(
        made.home.root, ["fast", "slow", "lost"], KNOWLEDGE_ACCUMULATION, value=50, cost="flops"
    )
    (axes,) = targets_figure(found).axes
    lines = [(line.get_marker(), line.get_xydata().tolist()) for line in axes.lines]
    assert lines[0][1] == [[0, 50], [1, 50]]  # across the whole panel
    assert lines[1][1] == [[0, 10], [1000, 55], [2000, 45], [3000, 60]]
    assert [line for line in lines if line[0] in ("o", "x")] == [
        ("o", [[3000, 60]]), ("o", [[12000, 50]]), ("x", [[3000, 40]]),
    ]  # fmt: skip
    fomo("target", "fast", "--metric", "KA", "--value", 50, "--plot", tmp_path / "target.svg")
    assert b"<svg" in (tmp_path / "target.svg").read_bytes()
    for arguments, message in (
        (["--metric", "KA"], "give one of --value and --of"),
        (["--value", 1, "--in", "days"], "there is no cost 'days'"),
        (["--value", 1, "--by", "colour"], "not told apart by 'colour'"),
    ):
        with pytest.raises(InputError, match=message):
            fomo("target", "fast", *arguments)


def test_methods_are_compared_over_workloads_by_medians(made):
    values = {  # stream and method → seed → KA of the stages
        ("a", "full"): [[0, 50, 60], [0, 40, 60], [0, 40, 60]],
        ("a", "lora"): [[0, 50, 60]],
        ("b", "full"): [[0, 50, 60]],
        ("b", "lora"): [[0, 10, 20]],
    }
    for (stream, method), runs in values.items():
        for seed, run in enumerate(runs):
            made.experiment(
                f"two_{stream}_{method}_{seed}", run, 100, sweep="two", stream=stream,
                method=method, seed=seed, replicate_of=f"two_{stream}_{method}",
                replicate=f"seed_{seed}",
            )  # fmt: skip
    asked = ("target", "two", "--metric", "KA", "--value", 50, "--in", "samples")
    profile = json.loads(fomo(*asked, "--by", "method", "--json"))["profile"]
    assert [(row["method"], row["reached"]) for row in profile] == [("full", 2), ("lora", 1)]
    # a: medians 200 and 100; b: 100 and never
    assert [row["score"] for row in profile] == pytest.approx([(2 / 3 + 1) / 2, 1 / 2])
    without = json.loads(fomo(*asked, "--json"))
    assert without["profile"] is None
    assert without["remarks"] == ["no profile: two_a_full has no experiment on b"]
    of = json.loads(fomo(*asked[:4], "--of", "lora", "--by", "method", "--json"))["experiments"]
    assert {row["workload"]: row["target"] for row in of} == {"a": 60, "b": 20}


def test_replicates_with_streams_and_backbones_of_their_own_are_of_one_workload(made):
    streams = {"full": (0, 1), "lora": (0, 1, 2)}
    for method, seeds in streams.items():
        for seed in seeds:
            made.experiment(
                f"many_{method}_seed_{seed}", [0, 40, 50 + seed], 100, sweep="many", method=method,
                replicate_of=f"many_{method}", replicate=f"seed_{seed}", stream=f"toy_seed_{seed}",
                backbone=f"tiny_seed_{seed}", seed=seed,
            )  # fmt: skip
    made.experiment("alone", [0, 50, 51], 100)  # a run of the stream `toy`, without replicates
    asked = ("target", "many", "--metric", "KA", "--in", "samples")
    said = json.loads(fomo(*asked, "--of", "many_full", "--json"))
    assert {(row["workload"], row["target"]) for row in said["experiments"]} == {("tiny", 50.5)}
    assert {row["method"]: row["reached"] for row in said["profile"]} == {
        "many_full": 0, "many_lora": 1,  # medians of never and 200; of never, 200 and 200
    }  # fmt: skip
    printed = fomo("target", "many_full_seed_0", "alone", *asked[2:], "--value", 1, "--json")
    one = json.loads(printed)
    assert [row["workload"] for row in one["experiments"]] == ["tiny", "toy"]  # of one stream
    for seed in range(3):
        made.experiment(f"two_seed_{seed}", [0, 50 + seed], 100 + seed, replicate_of="two",
                        stream=f"toy_stream_seed_{seed}", replicate=f"seed_0_stream_seed_{seed}",
                        backbone="toy_seed_0")  # fmt: skip
    both = json.loads(fomo("target", "two", "alone", *asked[2:], "--value", 1, "--json"))
    assert {row["workload"] for row in both["experiments"]} == {"toy_seed_0", "toy"}
    remarks = json.loads(fomo("fit", "two", "--metric", "KA", "--law", "M1", "--json"))["remarks"]
    assert remarks == []


def test_what_lacks_the_metric_of_a_target_is_left_out(made):
    made.experiment("some", [0, 60], 100)
    made.experiment("none", [None, None], 100)
    asked = ("target", "some", "none", "--metric", "KA")
    said = json.loads(fomo(*asked, "--value", 50, "--json"))
    assert [row["experiment"] for row in said["experiments"]] == ["some"]
    assert said["remarks"] == ["without KA, and left out: none"]
    with pytest.raises(InputError, match="none has no last value on toy: give the target as a"):
        fomo(*asked, "--of", "none")


def test_of_the_trials_that_a_method_was_tuned_with_the_fastest_of_each_seed_counts(made):
    fast, slow, never = [0, 50, 60], [0, 40, 60], [0, 10, 20]  # KA of the stages
    values = {
        ("full", "low"): (fast, slow), ("full", "high"): (slow, slow),
        ("lora", "low"): (never, fast), ("lora", "high"): (slow, never),
    }  # fmt: skip
    for (method, rate), runs in values.items():
        for seed, run in enumerate(runs):
            made.experiment(
                f"tuned_{method}_{rate}_seed_{seed}", run, 100, sweep="tuned", method=method,
                seed=seed, replicate_of=f"tuned_{method}_{rate}", replicate=f"seed_{seed}",
            )  # fmt: skip
    asked = ("target", "tuned", "--metric", "KA", "--value", 50, "--in", "samples", "--by",
             "method")  # fmt: skip
    found = json.loads(fomo(*asked, "--trials", 2, "--json"))["profile"]
    # full: 100 and 200 samples; lora: 200 and 100. Both have the median 150.
    assert {row["method"]: row["score"] for row in found} == {"full": 1.0, "lora": 1.0}
    untuned = json.loads(fomo(*asked, "--json"))["profile"]  # medians 200 and never
    assert {row["method"]: row["score"] for row in untuned} == {"full": 1.0, "lora": 0.0}
    with pytest.raises(InputError, match="full has 2 trials of seed_0 on toy, and 3 are declared"):
        fomo(*asked, "--trials", 3)


def test_replicates_that_were_run_otherwise_have_no_profile(made):
    for seed in (0, 1):
        made.experiment(f"odd_{seed}", [0, 60], 100, seed=seed, replicate_of="odd",
                        replicate=f"seed_{seed}", settings=f'{{"batch_size": {seed}}}')  # fmt: skip
    said = json.loads(fomo("target", "odd", "--metric", "KA", "--value", 50, "--json"))
    assert len(said["experiments"]) == 2
    assert said["profile"] is None
    (remark,) = said["remarks"]
    assert remark.startswith("no profiles of odd: odd_0 and odd_1 differ in batch_size, and so are")


def test_each_dataset_is_a_workload_where_that_is_asked_for(finished_project):
    asked = ("target", "toy", "--value", 0, "--json")
    said = json.loads(fomo(*asked, "--every-dataset"))["experiments"]
    assert {row["workload"] for row in said} == {"birds", "cats", "old"}
    assert {row["held"] for row in said} <= {0, 1}  # no score is below 0
    with pytest.raises(InputError, match="--dataset and --every-dataset exclude each other"):
        fomo(*asked, "--every-dataset", "--dataset", "cats")

"""`fomo merge`: files in, a file out, nothing else changed, and errors that say what to do."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from fomo_dagster.cli.main import app
from fomo_dagster.errors import DataError, FomoError, InputError


def run(*arguments):
    result = CliRunner().invoke(app, ["merge", *map(str, arguments)])
    if isinstance(result.exception, FomoError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(result.stderr.split())


@pytest.fixture
def files(tmp_path):
    """θ₀ as safetensors, and two models as PyTorch files: bare, and as OpenCLIP's trainer does."""
    random = torch.Generator().manual_seed(0)

    def weights():
        return {
            "visual.proj": torch.randn(4, 3, generator=random),
            "logit_scale": torch.randn((), generator=random),
        }

    save_file(weights(), tmp_path / "base.safetensors")
    torch.save(weights(), tmp_path / "old.pt")
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights().items()}}
    torch.save(wrapped, tmp_path / "new.pt")
    return tmp_path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_of_both_kinds_are_merged_into_one_of_either(files, suffix):
    before = {path.name: path.read_bytes() for path in files.iterdir()}
    out = files / f"out{suffix}"
    told = run(
        out, files / "old.pt", files / "new.pt", "--base", files / "base.safetensors",
        "--technique", "task_arithmetic", "--set", "coefficients=[0.5, 2]",
        "--set", "group_scales.logit_scale=0",
    )  # fmt: skip
    old, new = (torch.load(files / f"{name}.pt") for name in ("old", "new"))
    base = load_file(files / "base.safetensors")
    expected = base["visual.proj"] + (
        0.5 * (old["visual.proj"] - base["visual.proj"])
        + 2 * (new["state_dict"]["module.visual.proj"] - base["visual.proj"])
    )
    merged = load_file(out) if suffix == ".safetensors" else torch.load(out)
    torch.testing.assert_close(merged["visual.proj"], expected, rtol=1e-6, atol=1e-6)
    assert merged["logit_scale"] == base["logit_scale"]
    assert before == {p.name: p.read_bytes() for p in files.iterdir() if p != out}
    assert "task_arithmetic (coefficients [0.5, 2.0], scale 1.0" in told
    assert told.index("old.pt") < told.index("new.pt")


def test_a_merge_by_opcm_goes_on_from_the_file_of_the_last_one(files):
    base = ["--base", files / "base.safetensors", "--technique", "opcm"]
    run(files / "one.safetensors", files / "old.pt", files / "new.pt", *base)
    run(files / "two.safetensors", files / "one.safetensors", files / "old.pt", *base)
    with safe_open(files / "two.safetensors", "pt") as file:
        assert '"models":3,' in file.metadata()["opcm"]
    run(files / "at_once.safetensors", files / "old.pt", files / "new.pt", files / "old.pt", *base)
    found, expected = (load_file(files / f"{n}.safetensors") for n in ("two", "at_once"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_merge_that_fails_leaves_the_old_file_and_nothing_beside_it(files):
    (files / "out.pt").write_bytes(b"precious")
    broken = torch.load(files / "old.pt") | {"logit_scale": torch.tensor(float("nan"))}
    torch.save(broken, files / "broken.pt")
    before = sorted(files.iterdir())
    with pytest.raises(DataError, match=r"logit_scale of \S*/broken\.pt is not finite"):
        run(files / "out.pt", files / "new.pt", files / "broken.pt", "--technique", "weighted_mean")
    assert (files / "out.pt").read_bytes() == b"precious"
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--technique", "tie"], "there is no technique 'tie'; did you mean 'ties'|did you mean"),
        (["--technique", "ties"], "there is none: name the weights .* --base"),
        (
            ["--technique", "ties", "--set", "densty=0.2"],
            r"ties: unknown key 'densty' \(value 0.2\); did you mean 'density'",
        ),
        (
            ["--technique", "ties", "--set", "density=2"],
            "ties: density is 2: it must be at most 1",
        ),
        (
            ["--technique", "breadcrumbs", "--set", "smallest=0.995"],
            "breadcrumbs: the parameters: smallest and largest must add up to less than 1",
        ),
        (["--technique", "slerp", "--set", "weight"], "not of the form key=value"),
    ],
)
def test_wrong_techniques_and_parameters_are_named(files, arguments, message):
    with pytest.raises(InputError, match=message):
        run(files / "out.pt", files / "old.pt", files / "new.pt", *arguments)


def test_wrong_files_are_named(files):
    slerp = ["--technique", "slerp"]
    (files / "folder.pt").mkdir()
    save_file({}, files / "empty.safetensors")
    for arguments, message in (
        (["old.pt", "old.pt", "new.pt"], r"old\.pt is one of the files to merge"),
        (["out.pt", "old.pt", "none.pt"], r"there is no file .*none\.pt"),
        (["out.pt", "old.pt", "none.safetensors"], r"there is no file .*none\.safetensors"),
        (["out.onnx", "old.pt", "new.pt"], r"out\.onnx: weights are \.safetensors or \.pt"),
        (["old.pt/out.pt", "old.pt", "new.pt"], r"old\.pt is no folder .* write to another place"),
        (["folder.pt", "old.pt", "new.pt"], r"folder\.pt cannot be written \(there is a folder"),
        (["out.pt", "empty.safetensors", "empty.safetensors"], r"empty\.safetensors holds no"),
    ):
        with pytest.raises(FomoError, match=message):
            run(*(files / name for name in arguments), *slerp)
    other = torch.load(files / "old.pt")
    del other["visual.proj"]
    torch.save(other, files / "other.pt")
    with pytest.raises(DataError, match=r"other\.pt does not go with .*old\.pt: it lacks visual"):
        run(files / "out.pt", files / "old.pt", files / "other.pt", *slerp)


def test_a_repair_which_needs_a_model_and_samples_is_refused(files):
    with pytest.raises(InputError, match="repair takes samples, and a model"):
        run(
            files / "out.safetensors", files / "old.pt", files / "new.pt", "--technique",
            "interpolation", "--set", "repair.samples=8",
        )  # fmt: skip
    assert not (files / "out.safetensors").exists()

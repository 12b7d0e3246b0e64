"""The wheel holds all that an installed `fomo` needs, and works in an empty folder."""

import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from hatchling.build import build_wheel

REPOSITORY = Path(__file__).resolve().parents[1]
FOMO = "from fomo_dagster.cli.main import main; main()"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder that the wheel's files were unpacked to."""
    folder = tmp_path_factory.mktemp("wheel")
    here = Path.cwd()
    try:
        os.chdir(REPOSITORY)
        name = build_wheel(str(folder))
    finally:
        os.chdir(here)
    zipfile.ZipFile(folder / name).extractall(folder / "site-packages")
    return folder / "site-packages"


def test_presets_packages_and_data_travel_in_the_wheel(unpacked):
    presets = unpacked / "fomo_dagster" / "presets"
    for kind in ("experiments", "datasets", "comparisons"):
        files = [path for path in (REPOSITORY / kind).rglob("*.*") if path.is_file()]
        assert len(files) > 1
        for path in files:
            assert (presets / path.relative_to(REPOSITORY)).read_bytes() == path.read_bytes()
    for file in ("py.typed", "data/benchmark/registry.yaml", "data/sources/torchvision/names.json"):
        assert (unpacked / "fomo_dagster" / file).is_file()
    top = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"fomo_dagster", "assets", "resources"}
    (license_file,) = unpacked.glob("*.dist-info/licenses/LICENSE")
    assert license_file.read_text() == (REPOSITORY / "LICENSE").read_text()


def test_the_citation_names_the_version_and_licence_of_the_package(unpacked):
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    told = email.message_from_string(metadata.read_text())
    cited = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (told["Version"], told["License-Expression"])


@pytest.mark.slow
def test_from_the_wheel_presets_are_planned_in_an_empty_folder(unpacked, tmp_path):
    left_out = ("FOMO_PROJECT", "FOMO_HOME", "FOMO_STORE", "DAGSTER_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}

    def fomo(*arguments):
        done = subprocess.run(
            [sys.executable, "-P", "-c", FOMO, *arguments],
            env={**environment, "PYTHONPATH": str(unpacked)}, cwd=tmp_path,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = fomo("plan", "quickstart")
    assert "shards/digits" in said
    assert "quickstart/trained_005" in said
    fomo("init")
    assert (tmp_path / "experiments" / "first.yaml").is_file()
    assert Path(fomo("sql", "--path").strip()).is_relative_to(tmp_path / ".fomo")

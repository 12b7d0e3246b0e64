"""What ships with the package is run and extended by name from a project of its own."""

import shutil

import pytest
import yaml

from fomo_dagster import shipped
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.files import find_file
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.graph.build.builder import build_graph
from fomo_dagster.home import Home, project_folder
from fomo_dagster.shipped import shipped_folder

SHIPPED = shipped_folder() / "experiments"


@pytest.fixture
def own(tmp_path):
    """An empty project, and a way to write an experiment into it."""
    (tmp_path / "experiments").mkdir()

    def write(name, **content):
        (tmp_path / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return tmp_path

    return write


@pytest.fixture(autouse=True)
def release(monkeypatch):
    """Where the benchmark's presets look for what they name; they are not run."""
    monkeypatch.setenv("FOMO_RELEASE", "/nowhere")
    monkeypatch.setenv("FOMO_PRETRAINING_POOL", "/nowhere")


def test_shipped_presets_are_found_under_the_names_they_have_in_the_repository(tmp_path):
    for name in ("quickstart", "methods/lora"):
        loaded = load_experiment(name, tmp_path)
        here = load_experiment(name, shipped_folder())
        assert loaded.experiment == here.experiment
        assert build_graph([loaded]).code_versions == build_graph([here]).code_versions
    assert load_experiment("fomo_in_flux/debug", tmp_path).experiment.name == "fomo_in_flux_debug"
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        load_experiment("quikstart", tmp_path)
    with pytest.raises(InputError, match="did you mean 'methods/lora'"):
        load_experiment("methods/lra", tmp_path)


def test_a_project_extends_a_shipped_preset_even_under_its_name(own):
    root = own("quickstart", extends="quickstart", seed=7)
    own("mine", extends="fomo_in_flux/debug", seed=3)
    assert find_file("quickstart", root) == root / "experiments" / "quickstart.yaml"
    mine = load_experiment("quickstart", root).experiment
    assert (mine.seed, mine.batch_size) == (7, 128)
    assert load_experiment("mine", root).experiment.seed == 3
    with pytest.raises(InputError, match=r"extends 'quikstart'.*did you mean 'quickstart'"):
        load_experiment("bad", own("bad", extends="quikstart"))


def test_a_shipped_preset_extends_shipped_ones_whatever_the_project_has(own):
    root = own("quickstart", extends="quickstart", seed=7)
    assert load_experiment("methods/lora", root).experiment.seed == 0


def test_a_projects_own_dataset_goes_before_a_shipped_one_of_its_name(own):
    root = own("mine", extends="quickstart")
    (root / "datasets").mkdir()
    digits = {"digits": {"source": {"type": "folder", "path": "pictures"}, "prompt": "a {}"}}
    (root / "datasets" / "mine.yaml").write_text(yaml.safe_dump(digits))
    loaded = load_experiment("mine", root)
    assert (loaded.datasets["digits"].prompt, loaded.bases["digits"]) == ("a {}", root / "datasets")
    assert loaded.bases["greek"] == shipped_folder() / "datasets"


@pytest.mark.parametrize("file", ["workspace.yaml", "pyproject.toml"])
def test_the_project_is_the_nearest_folder_that_dagster_loads(tmp_path, monkeypatch, file):
    monkeypatch.delenv("FOMO_PROJECT", raising=False)
    monkeypatch.delenv("FOMO_HOME", raising=False)
    below = tmp_path / "project" / "experiments" / "deeper"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert project_folder() == shipped_folder()  # others have a folder of that name, too
    (tmp_path / "project" / file).write_text("module_name: fomo_dagster.definitions")
    assert project_folder() == tmp_path / "project"
    monkeypatch.chdir(tmp_path)
    assert project_folder() == shipped_folder()  # a checkout


def test_where_there_is_no_checkout_the_project_is_the_working_folder(tmp_path, monkeypatch):
    presets = tmp_path / "site-packages" / "fomo_dagster" / "presets"
    presets.mkdir(parents=True)
    shutil.copytree(SHIPPED, presets / "experiments")
    monkeypatch.setattr(shipped, "_IN_WHEEL", presets)
    monkeypatch.delenv("FOMO_PROJECT", raising=False)
    monkeypatch.delenv("FOMO_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert project_folder() == tmp_path
    assert Home.from_environment().root == tmp_path / ".fomo"
    assert find_file("quickstart", tmp_path) == presets / "experiments" / "quickstart.yaml"

"""Where another package is called `assets` or `resources`, the error says which file and why."""

import base64
import hashlib
import importlib.machinery
from importlib.metadata import PackagePath
from pathlib import Path
from types import SimpleNamespace

import pytest

from fomo_dagster.cli import packages
from fomo_dagster.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def from_a_checkout(monkeypatch):
    """Whatever is installed here."""
    monkeypatch.setattr(packages, "distribution", lambda _: SimpleNamespace(files=None))


def find(monkeypatch, name, path):
    """Let `path` be the file of the package `name`."""
    found = importlib.machinery.ModuleSpec(name, None, origin=None if path is None else str(path))
    ours = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda n: found if n == name else ours(n))


def test_our_own_packages_are_in_nobodys_way():
    packages.check_packages()


@pytest.mark.slow
def test_a_folder_of_that_name_is_named_with_the_way_out(monkeypatch, tmp_path):
    theirs = tmp_path / "assets" / "__init__.py"
    find(monkeypatch, "assets", theirs)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        packages.check_packages()
    assert str(raised.value) == (
        f"{theirs} is in the way of fomo-dagster's package 'assets': rename that folder, or start "
        "from another one and set FOMO_PROJECT to this"
    )


def test_a_distribution_that_brings_one_is_named(monkeypatch, tmp_path):
    find(monkeypatch, "resources", tmp_path / "resources" / "__init__.py")
    brought = {"resources": ["other-thing", "fomo-dagster"]}
    monkeypatch.setattr(packages, "packages_distributions", lambda: brought)
    with pytest.raises(InputError, match=r"it belongs to other-thing: uninstall that, or install"):
        packages.check_packages()


@pytest.mark.slow
def test_a_file_that_another_distribution_has_overwritten_is_found(monkeypatch):
    def noted(content):
        file = PackagePath("assets/__init__.py")
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        file.hash = SimpleNamespace(mode="sha256", value=digest)
        file.dist = SimpleNamespace(locate_file=lambda path: REPOSITORY / path)
        return SimpleNamespace(files=[file])

    ours = (REPOSITORY / "assets" / "__init__.py").read_bytes()
    monkeypatch.setattr(packages, "distribution", lambda _: noted(ours))
    packages.check_packages()
    monkeypatch.setattr(packages, "distribution", lambda _: noted(ours + b"# theirs"))
    with pytest.raises(InputError, match="is not the file that fomo-dagster installed there"):
        packages.check_packages()


def test_a_package_that_is_missing_is_said(monkeypatch):
    find(monkeypatch, "assets", None)
    with pytest.raises(InputError, match=r"'assets' is missing.*pip install --force-reinstall"):
        packages.check_packages()

"""What is declared is what is installed."""

import tomllib
from importlib.metadata import version

from packaging.requirements import Requirement


def test_installed_packages_satisfy_the_declared_lower_bounds(request):
    project = tomllib.loads((request.config.rootpath / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for text in declared:
        requirement = Requirement(text)
        assert ">=" in text, f"{text} has no lower bound"
        assert requirement.specifier.contains(version(requirement.name)), text


def test_no_address_is_committed_with_the_dependencies(request):
    assert "://" not in (request.config.rootpath / "pyproject.toml").read_text()

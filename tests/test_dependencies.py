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


def test_all_extras_can_be_installed_together(request):
    """What they need is in the development's, at the same versions, which is installed at once."""
    project = tomllib.loads((request.config.rootpath / "pyproject.toml").read_text())["project"]
    together = [Requirement(text) for text in project["optional-dependencies"]["dev"]]
    specifiers = {requirement.name: str(requirement.specifier) for requirement in together}
    for extra, declared in project["optional-dependencies"].items():
        for requirement in map(Requirement, declared):
            assert requirement.name in specifiers, f"{extra}: {requirement}"
            assert set(str(requirement.specifier).split(",")) <= set(
                specifiers[requirement.name].split(",")
            ), f"{extra}: {requirement}"


def test_no_address_is_committed_with_the_dependencies(request):
    assert "://" not in (request.config.rootpath / "pyproject.toml").read_text()

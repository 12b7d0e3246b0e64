"""Private modules of other packages are imported in one file each, and are where they were."""

import ast
import importlib
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
HOUSE = ("fomo_dagster", "assets", "resources")


def private_imports():
    """(module, name, file) of every import from a private module of another package."""
    for folder in HOUSE:
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom):
                    found = [(node.module or "", alias.name) for alias in node.names]
                elif isinstance(node, ast.Import):
                    found = [(alias.name, "") for alias in node.names]
                else:
                    continue
                for module, name in found:
                    package, *parts = [*module.split("."), name]
                    is_private = any(part.startswith("_") for part in parts)
                    if is_private and package not in (*HOUSE, "__future__"):
                        yield module, name, path.relative_to(REPOSITORY).as_posix()


@pytest.fixture(scope="module")
def imports():
    return list(private_imports())


def test_each_package_has_one_file_that_imports_its_private_modules(imports):
    files = defaultdict(set)
    for module, _, file in imports:
        files[module.partition(".")[0]].add(file)
    assert files == {"dagster": {"resources/dagster_internals.py"},
                     "torch": {"fomo_dagster/models/torch_internals.py"}}  # fmt: skip


def is_there(module, name):
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def test_what_is_private_has_not_moved(imports):
    moved = [
        f"{module}.{name} is gone from this release of {module.partition('.')[0]}: {file} uses it"
        for module, name, file in imports
        if not is_there(module, name)
    ]
    assert not moved, "\n".join(moved)

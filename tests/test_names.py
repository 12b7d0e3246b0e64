"""What tests are called: the property they hold, short enough to be read in a list of failures."""

import ast
from pathlib import Path

LONGEST = 79


def test_names_of_tests_are_under_80_characters():
    names = [
        (str(path.relative_to(Path(__file__).parent)), node.name)
        for path in sorted(Path(__file__).parent.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(names) > 1000
    assert [(path, name) for path, name in names if len(name) > LONGEST] == []

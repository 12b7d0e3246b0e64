"""The examples of docs/extending.md run as they stand on the page."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def test_extending_has_a_section_for_each_extension_point():
    points = ["A merging technique", "A preservation", "A source", "A metric", "A schedule"]
    assert list(SECTIONS) == [*points, "A kind of asset"]


@pytest.mark.parametrize("point", SECTIONS)
def test_example_on_the_page_passes_its_own_test(point):
    blocks = re.findall(r"```python\n(.*?)```", SECTIONS[point], re.DOTALL)
    assert len(blocks) == 2
    assert "assert " in blocks[-1]
    space = {"__name__": "extending"}
    for block in blocks:
        exec(compile(block, point, "exec"), space)

"""Every query of the guide is answered."""

import re
from pathlib import Path

import pytest

from fomo_dagster.tables.views import query

GUIDE = Path(__file__).parents[2] / "docs" / "questions.md"
QUERIES = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_a_question_of_the_guide_has_an_answer(finished, number):
    asked = QUERIES[number].replace("quickstart_merge", "toy").replace("quickstart", "toy")
    assert query(finished.home.root, asked).height >= 1


def test_there_are_ten():
    assert len(QUERIES) == 10

"""Writes the files and tables that follow from the code: `make generated`.

They are `experiments/schema.json`, and the tables of guides between `<!-- begin FAMILY -->` and
`<!-- end -->`, which list a family's names with the first paragraphs of their docstrings.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).parent))  # where mkdocs, too, looks for its hooks

from hooks import FAMILIES, table

from fomo_dagster.experiment.loading import json_schema

ROOT = Path(__file__).parents[1]
LIST = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def family_list(family: str) -> str:
    """The table of a family: a row for each declaration."""
    key = FAMILIES[family].key.rsplit(".", 1)[1]
    rows = []
    for declared in dict.fromkeys(FAMILIES[family].declarations):
        names = ", ".join(f"`{name}`" for name in get_args(declared.model_fields[key].annotation))
        rows.append((names, inspect.cleandoc(declared.__doc__ or "").split("\n\n")[0]))
    return "\n".join(table((f"`{key}`", "what it does"), rows))


def with_lists(guide: str) -> str:
    """The guide with its lists as the code has them."""
    return LIST.sub(lambda found: found[1] + family_list(found[2]) + found[3], guide)


def generated() -> dict[Path, str]:
    """File → what it should hold."""
    guides = (ROOT / "docs").glob("*.md")
    files = {guide: with_lists(guide.read_text()) for guide in guides}
    files[ROOT / "experiments" / "schema.json"] = json.dumps(json_schema(), indent=1) + "\n"
    return files


if __name__ == "__main__":
    for file, text in generated().items():
        if file.read_text() != text:
            file.write_text(text)
            print(f"wrote {file.relative_to(ROOT)}")

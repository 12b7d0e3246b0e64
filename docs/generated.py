"""Writes the files and tables that follow from the code: `make generated`.

They are `schema.json` of `experiments/` and `comparisons/`, and the tables of guides between
`<!-- begin FAMILY -->` and `<!-- end -->`, which list a family's names with the first paragraphs of
their docstrings; for `backbones`, the names that stand for one.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).parent))  # where mkdocs, too, looks for its hooks

import open_clip
from hooks import FAMILIES, table

from fomo_dagster.experiment.backbone_names import BACKBONES
from fomo_dagster.experiment.comparison import comparison_schema
from fomo_dagster.experiment.json_schema import json_schema

ROOT = Path(__file__).parents[1]
NOTES = {  # numbers of the notes below the table of backbones, on their tags
    "openclip_vit_s16": 1, "openclip_vit_l14": 2, "openclip_convnext_base_w": 3,
    "metaclip_vit_b32": 3, "metaclip_vit_b16": 3, "metaclip_vit_l14": 3, "dfn_vit_h14": 4,
}  # fmt: skip
LIST = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def family_list(family: str) -> str:
    """The table of a family: a row for each declaration."""
    key = FAMILIES[family].key.rsplit(".", 1)[1]
    rows = []
    for declared in dict.fromkeys(FAMILIES[family].declarations):
        names = ", ".join(f"`{name}`" for name in get_args(declared.model_fields[key].annotation))
        rows.append((names, inspect.cleandoc(declared.__doc__ or "").split("\n\n")[0]))
    return "\n".join(table((f"`{key}`", "what it does"), rows))


def backbone_list() -> str:
    """The table of the names that stand for a backbone."""
    rows = []
    for name, (architecture, tag) in BACKBONES.items():
        tag = tag or "none: needs `weights`"
        note = f" ({NOTES[name]})" if name in NOTES else ""
        pixels = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
        rows.append((f"`{name}`", architecture, tag + note, str(pixels)))
    return "\n".join(table(("name", "architecture", "tag", "pixels"), rows))


def list_of(name: str) -> str:
    """The table of that name."""
    return backbone_list() if name == "backbones" else family_list(name)


def with_lists(guide: str) -> str:
    """The guide with its lists as the code has them."""
    return LIST.sub(lambda found: found[1] + list_of(found[2]) + found[3], guide)


def generated() -> dict[Path, str]:
    """File → what it should hold."""
    guides = (ROOT / "docs").glob("*.md")
    files = {guide: with_lists(guide.read_text()) for guide in guides}
    for folder, schema in (("experiments", json_schema()), ("comparisons", comparison_schema())):
        files[ROOT / folder / "schema.json"] = json.dumps(schema, indent=1) + "\n"
    return files


if __name__ == "__main__":
    for file, text in generated().items():
        if file.read_text() != text:
            file.write_text(text)
            print(f"wrote {file.relative_to(ROOT)}")

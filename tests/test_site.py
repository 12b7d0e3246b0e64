"""The documentation builds as a site, whole, and its reference is what the code declares."""

import re
from pathlib import Path

import polars as pl
import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from fomo_dagster.merging.techniques import TECHNIQUES
from fomo_dagster.methods.preservation.registry import PRESERVATIONS
from fomo_dagster.optimisation.optimisers import OPTIMISERS, Optimiser
from fomo_dagster.optimisation.schedules import SCHEDULES
from fomo_dagster.tables.schemas import SCHEMAS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as `mkdocs build --strict` does: a warning, as of a broken link, is an error."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    build(config)
    return folder


def text_of(site: Path, page: str) -> str:
    return (site / "reference" / page / "index.html").read_text()


@pytest.mark.parametrize(
    ("page", "key", "declared"),
    [
        ("techniques", "technique", TECHNIQUES.values()),
        ("preservations", "name", PRESERVATIONS),
        ("optimisers", "name", OPTIMISERS),
        ("schedules", "name", SCHEDULES),
    ],
)
def test_reference_has_every_registered_name_and_key(site, page, key, declared):
    text = text_of(site, page)
    for entry in declared:
        for name in entry.model_fields[key].annotation.__args__:
            assert f"<code>{name}</code>" in text
        for field in entry.model_fields:
            assert field == key or f"<td><code>{field}</code></td>" in text


def test_reference_of_tables_has_the_columns_of_every_table(site):
    text = text_of(site, "tables")
    for table, columns in SCHEMAS.items():
        if table != "orders":  # shown as the view `streams`
            section = re.search(rf'<h2 id="{table}">(.*?)(<h2|</article>)', text, re.DOTALL)
            assert section is not None, table
            for column, kind in columns.items():
                row = re.search(rf"<code>{column}</code></td>\s*<td>(.*?)</td>", section[1])
                assert row is not None, (table, column)
                assert (row[1] == "DOUBLE") == (kind == pl.Float64()), (table, column)


def test_reference_has_commands_and_defaults_as_they_are_in_code(site):
    assert re.search(r'<h2 id="fomo-datasets-show">', text_of(site, "commands"))
    experiment = text_of(site, "experiment")
    for name, field in Optimiser.model_fields.items():
        assert f"<td><code>{name}</code></td>" in experiment, (name, field)
    adamw = re.search(r'<h2 id="adamw">.*?</table>', experiment, re.DOTALL)
    assert adamw is not None
    assert "<code>1e-05</code>" in adamw[0]


def test_site_loads_nothing_from_another_host(site):
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text()):
            assert not re.search(r"(?:src|href)=\"?(?:https?:)?//", tag), (page, tag)
    assert (site / "search" / "search_index.json").exists()


def test_a_broken_link_or_anchor_fails_the_build(tmp_path):
    for link in ("missing.md", "index.md#missing"):
        docs = tmp_path / link
        docs.mkdir()
        (docs / "index.md").write_text(f"# Start\n\n[lost]({link})\n")
        config = load_config(
            str(ROOT / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(tmp_path / "out"),
            strict=True, nav=None, hooks=[], plugins=[], theme={"name": "mkdocs"},
        )  # fmt: skip
        with pytest.raises(Abort):
            build(config)


def test_links_of_the_readme_lead_to_files():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text()):
        assert (ROOT / link).exists(), link

"""The documentation builds as a site, whole, and its reference is what the code declares."""

import re
import runpy
from html import unescape
from pathlib import Path

import polars as pl
import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from fomo_dagster.cli.events import EVENTS
from fomo_dagster.data.sources.registry import SOURCES
from fomo_dagster.evaluation import corruptions, few_shot, layer_temperature, temperature
from fomo_dagster.evaluation.classification import METRICS as CLASSIFICATION_METRICS
from fomo_dagster.evaluation.retrieval import METRICS as RETRIEVAL_METRICS
from fomo_dagster.experiment.json_schema import json_schema
from fomo_dagster.experiment.training import Budget
from fomo_dagster.merging.techniques import TECHNIQUES
from fomo_dagster.methods.averaging.declaration import AVERAGES
from fomo_dagster.methods.loss.declaration import LOSSES
from fomo_dagster.methods.online_selection.declaration import ONLINE_SELECTIONS
from fomo_dagster.methods.preservation.registry import PRESERVATIONS
from fomo_dagster.metrics import STAGE_METRICS
from fomo_dagster.optimisation.optimisers import OPTIMISERS
from fomo_dagster.optimisation.schedules import SCHEDULES
from fomo_dagster.tables.schemas import SCHEMAS
from fomo_dagster.tables.view_columns import comments_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FAMILIES = [
    ("techniques", "technique", TECHNIQUES.values()),
    ("preservations", "name", PRESERVATIONS),
    ("averages", "name", AVERAGES),
    ("optimisers", "name", OPTIMISERS),
    ("schedules", "name", SCHEDULES),
    ("losses", "name", LOSSES),
    ("selections", "name", ONLINE_SELECTIONS),
    ("sources", "type", SOURCES),
]
GUIDES = {
    "techniques": "merging",
    "preservations": "methods",
    "averages": "methods",
    "optimisers": "training",
    "schedules": "training",
    "losses": "training",
    "selections": "mixtures",
    "sources": "datasets",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as `mkdocs build --strict` does: a warning, as of a broken link, is an error."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    build(config)
    return folder


def text_of(site: Path, page: str) -> str:
    return (site / "reference" / page / "index.html").read_text()


@pytest.mark.parametrize(("page", "key", "declared"), FAMILIES)
def test_reference_has_every_registered_name_and_key(site, page, key, declared):
    text = text_of(site, page)
    for entry in declared:
        for name in entry.model_fields[key].annotation.__args__:
            assert f"<code>{name}</code>" in text
        for field in entry.model_fields:
            assert field == key or f"<td><code>{field}</code></td>" in text


@pytest.mark.parametrize(("page", "key", "declared"), FAMILIES)
def test_the_guide_of_a_family_mentions_each_of_its_names(page, key, declared):
    guide = (ROOT / "docs" / f"{GUIDES[page]}.md").read_text()
    for entry in declared:
        for name in entry.model_fields[key].annotation.__args__:
            assert re.search(rf"[`: ]{name}[`,}}]", guide), name


def test_lists_in_guides_and_the_schema_are_what_the_code_says():
    files = runpy.run_path(str(ROOT / "docs" / "generated.py"))["generated"]()
    assert [path.name for path, text in files.items() if path.read_text() != text] == [], (
        "run `make generated`"
    )
    listed = re.findall("<!-- begin (.*) -->", "".join(files.values()))
    assert sorted(listed) == [
        "backbones",
        "optimisers",
        "preservations",
        "schedules",
        "sources",
        "techniques",
    ]


def test_every_key_of_the_experiment_file_has_a_meaning():
    """But for those whose value names what they belong to, such as `optimiser.name`."""
    schema = json_schema()
    for title, part in (("Experiment", schema), *schema["$defs"].items()):
        for form in (part, *part.get("anyOf", ())):
            for key, field in form.get("properties", {}).items():
                names = key in ("name", "technique", "type") and field.keys() & {"const", "enum"}
                assert names or field.get("description"), (title, key)


def test_reference_has_every_metric_of_stages_and_datasets(site):
    text = text_of(site, "metrics")
    for metric in (*STAGE_METRICS, *CLASSIFICATION_METRICS, *RETRIEVAL_METRICS):
        assert re.search(
            rf"<code>{metric.name}</code>.*?{re.escape(metric.description)}", text, re.S
        )


def test_reference_has_the_metrics_that_an_experiment_can_ask_for(site):
    text = unescape(re.sub(r"</?code>", "`", text_of(site, "metrics")))
    for measure in (few_shot, temperature, layer_temperature, corruptions):
        for metric in measure.METRICS:
            assert f"`{metric.name}`" in text
            assert metric.description in text


def test_reference_of_tables_has_the_columns_of_every_table(site):
    text = text_of(site, "tables")
    for table, columns in SCHEMAS.items():
        if table != "orders":  # shown as the view `streams`
            section = re.search(rf'<h2 id="{table}">(.*?)(<h2|</article>)', text, re.DOTALL)
            assert section is not None, table
            for column, kind in columns.items():
                row = re.search(
                    rf"<code>{column}</code></td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>", section[1]
                )
                assert row is not None, (table, column)
                assert (row[1] == "DOUBLE") == (kind == pl.Float64()), (table, column)
                meaning = re.sub(r"</?code>", "`", row[2])
                assert meaning == comments_of(table)[column], (table, column)


def test_reference_has_commands_and_defaults_as_they_are_in_code(site):
    assert re.search(r'<h2 id="fomo-datasets-show">', text_of(site, "commands"))
    experiment = text_of(site, "experiment")
    for name in Budget.model_fields:
        assert f"<td><code>{name}</code></td>" in experiment, name
    adamw = re.search(r'<h2 id="adamw">.*?</table>', text_of(site, "optimisers"), re.DOTALL)
    assert adamw is not None
    assert "<code>1e-05</code>" in adamw[0]
    chosen = re.search(r"<code>optimiser</code></td>\s*<td>(.*?)</td>", experiment)
    assert chosen is not None
    assert 'href="../optimisers/"' in chosen[1]


def test_reference_has_every_field_of_every_event_of_a_run(site):
    text = text_of(site, "events")
    for event in EVENTS:
        section = re.search(rf'<h2 id="{event.name}">(.*?)(<h2|</article>)', text, re.DOTALL)
        assert section is not None, event.name
        for field in event.model_fields:
            assert f"<td><code>{field}</code></td>" in section[1], (event.name, field)


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


def test_links_lead_to_files_of_the_repository():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)


def test_links_of_guides_to_declarations_lead_to_their_reference_on_the_site(site):
    page = (site / "methods" / "index.html").read_text()
    assert 'href="../reference/preservations/"' in page

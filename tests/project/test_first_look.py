"""`fomo init --images`: what it says of a person's images, and the files it writes over them."""

import re
import shutil
import tomllib

import polars as pl
import pytest
import yaml
from PIL import Image

from fomo_dagster.cli.main import app
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.experiment.declared_datasets import load_datasets
from fomo_dagster.experiment.loading import load_experiment
from fomo_dagster.graph.build.builder import build_project
from fomo_dagster.home import DEFINITIONS
from fomo_dagster.project import looking
from fomo_dagster.project.layout import REAL_MODEL, WITHOUT_IMAGES
from fomo_dagster.project.looking import look_at
from fomo_dagster.shipped import shipped_folder
from tests.conftest import draw


def ignore(*_, **__):
    """Progress that nobody sees."""


@pytest.fixture
def pictures(tmp_path):
    """Six images of each of four classes."""
    for number, concept in enumerate(("ant", "bee", "cow", "dog")):
        for image in range(6):
            draw(tmp_path / "my pictures" / concept / f"{image}.png", number * 6 + image)
    return tmp_path / "my pictures"


@pytest.fixture
def init(tmp_path, monkeypatch, capsys):
    """Lays out a project in tmp_path/new; gives what was printed."""
    for variable in ("FOMO_PROJECT", "FOMO_HOME"):
        monkeypatch.delenv(variable, raising=False)

    def run(*arguments):
        app(["init", str(tmp_path / "new"), *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return run


def look(path, tmp_path, taken=()):
    return look_at(path, tmp_path / "new" / "datasets", tmp_path / "cache", taken, ignore)


def test_a_folder_becomes_a_dataset_and_an_experiment_that_can_be_planned(pictures, init, tmp_path):
    said = init("--images", pictures)
    assert "24 images of 4 classes" in said
    project = tmp_path / "new"
    loaded = load_experiment("my_pictures", project)
    stream = loaded.experiment.stream
    assert (stream.name, stream.datasets, stream.stages) == ("my_pictures", ("my_pictures",), 2)
    dataset = load_datasets(project).declared["my_pictures"]
    assert (dataset.source.path, dataset.prompt) == (pictures, "a photo of a {}")
    graph = build_project(project)
    assert (list(graph.experiments), graph.troubles) == (["my_pictures"], ())
    assert {"my_pictures/trained_002", "shards/shapes"} <= graph.nodes.keys()


def test_counts_splits_and_odd_images_are_said(pictures, tmp_path):
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(pictures / "ant" / "clear.png")
    Image.new("RGB", (9, 9), (1, 2, 3)).save(pictures / "bee" / "plain.png")
    (pictures / "cow" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (pictures / "cow" / "notes.pdf").write_text("no image")
    looked = look(pictures, tmp_path)
    train, test = looked.survey.counts["train"], looked.survey.counts["test"]
    said = list(looked.sentences())
    assert said[0] == f"27 images of 4 classes: {train} to train on, {test} to test on"
    assert train + test == 27
    assert said[1:3] == [
        "train: bee (7), ant (6), cow (6), dog (5)",
        "test: ant (1), cow (1), dog (1)",
    ]
    assert said[3] == "1 class has no image to test on: 'bee'"
    assert any(s.startswith("1 image has transparency") and "ant/clear.png" in s for s in said)
    (flat,) = (s for s in said if s.startswith("2 images are of one colour alone"))
    assert flat.endswith("'ant/clear.png', 'bee/plain.png'")  # all clear shows all white
    assert any(s.startswith("1 image cannot be decoded") and "cow/broken.png" in s for s in said)
    assert any("1 files that are not used" in s and "notes.pdf" in s for s in said)
    # One of 27 is more than a dataset may lose by default: as declared, it can be stored.
    assert 1 / 27 < looked.declaration["unreadable_limit"] < 0.1


def test_of_many_images_a_part_is_decoded_and_that_is_said(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "MOST_DECODED", 10)
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(pictures / "ant" / "0.png")
    looked = look(pictures, tmp_path)
    assert looked.survey.sights.height == 8
    assert any(s.startswith("1 image of 8 looked at has transp") for s in looked.sentences())


def test_a_table_of_images_becomes_a_dataset_too(pictures, tmp_path):
    rows = [
        {"path": f"{path.parent.name}/{path.name}", "concept": path.parent.name}
        for path in sorted(pictures.rglob("*.png"))
    ]
    pl.DataFrame(rows).write_csv(pictures / "all.csv")
    looked = look(pictures / "all.csv", tmp_path)
    assert (looked.name, looked.declaration["source"]["type"]) == ("all", "manifest")
    assert (len(looked.survey.classes), looked.survey.found.scan.height) == (4, 24)


def test_captions_beside_images_are_found_and_declared(pictures, init, tmp_path):
    for path in sorted(pictures.rglob("*.png"))[:-1]:
        path.with_suffix(".txt").write_text("A picture.\n" + "fr=Une image.\n" * (path.stem == "0"))
    said = init("--images", pictures)
    assert "captions: those beside the images, such as" in said
    assert "of several lines, the first (`caption_lines: each` takes every line)" in said
    assert "captions: 23 of 24 images have one, of 2 / 2 / 2 words" in said
    source = load_datasets(tmp_path / "new").declared["my_pictures"].source
    assert (source.captions, source.caption_lines) == ("beside", "first")


@pytest.mark.parametrize(("text", "naming"), [("A small {} sleeps.", 1.0), ("It sleeps.", 0.0)])
def test_captions_that_name_no_class_are_not_trained_on(pictures, init, tmp_path, text, naming):
    for path in pictures.rglob("*.png"):
        path.with_suffix(".txt").write_text(text.format(path.parent.name.upper()))
    said = init("--images", pictures)
    assert look(pictures, tmp_path).naming == naming
    assert ("captions name their class in 0% of the images" in said) is (naming == 0)
    loaded = load_experiment("my_pictures", tmp_path / "new")
    expected = None if naming else ("a photo of a {}",)
    assert loaded.experiment.training_texts == expected
    assert build_project(tmp_path / "new").troubles == ()


def test_the_key_of_captions_in_jsons_is_found(pictures, tmp_path):
    for path in pictures.rglob("*.png"):
        path.with_suffix(".json").write_text('{"id": 3, "text": "A picture."}')
    source = look(pictures, tmp_path).declaration["source"]
    assert (source["captions"], source["columns"]) == ("beside", {"caption": "text"})


def test_texts_beside_few_images_are_said_and_not_declared(pictures, tmp_path):
    (pictures / "ant" / "0.txt").write_text("A picture.")
    looked = look(pictures, tmp_path)
    assert "captions" not in looked.declaration["source"]
    assert any("`captions: beside` reads it as their caption" in s for s in looked.sentences())


def test_a_table_of_captions_in_the_folder_is_declared_by_its_columns(pictures, tmp_path):
    names = [path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")]
    rows = "".join(f"{name},A picture of {name}\n" for name in names)
    (pictures / "metadata.csv").write_text("file_name,text\n" + rows)
    looked = look(pictures, tmp_path)
    source = looked.declaration["source"]
    assert source["captions"] == "metadata.csv"
    assert source["columns"] == {"path": "file_name", "caption": "text"}
    assert looked.told == (
        "captions: those in metadata.csv (columns: 'file_name' is the path, 'text' is the caption)",
    )
    assert looked.survey.as_data()["captioned"] == 24


def test_tables_of_captions_of_each_split_are_declared(pictures, tmp_path):
    for split in ("train", "test"):
        for concept in ("ant", "bee"):
            draw(pictures / split / concept / "0.png", 3)
        (pictures / split / "metadata.jsonl").write_text(
            "".join(f'{{"file_name": "{c}/0.png", "text": "{split}"}}\n' for c in ("ant", "bee"))
        )
    for concept in ("ant", "bee", "cow", "dog"):
        shutil.rmtree(pictures / concept)
    looked = look(pictures, tmp_path)
    assert looked.declaration["source"]["captions"] == "metadata.jsonl"
    captions = looked.survey.found.scan["captions"].to_list()
    assert captions == [["test"], ["test"], ["train"], ["train"]]


def test_a_table_with_other_columns_is_declared_by_them(pictures, tmp_path):
    rows = [
        {"Image": f"{path.parent.name}/{path.name}", "label": path.parent.name, "path_of": "x"}
        for path in sorted(pictures.rglob("*.png"))
    ]
    for name in ("all.csv", "all.parquet", "all.jsonl"):
        frame, file = pl.DataFrame(rows), pictures / name
        {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[
            name.partition(".")[2]
        ](file)
        looked = look(file, tmp_path)
        assert looked.declaration["source"]["columns"] == {"path": "Image", "concept": "label"}
        assert looked.told == ("of its columns, 'Image' is the path, 'label' is the concept",)
        assert looked.survey.found.scan.height == 24


def test_nested_folders_are_said(pictures, tmp_path):
    (pictures / "ant" / "old").mkdir()
    (pictures / "ant" / "0.png").rename(pictures / "ant" / "old" / "0.png")
    (said,) = look(pictures, tmp_path).told
    assert said.startswith("1 images lie in 1 folders below those of their classes; to make these")


def test_names_that_something_else_has_are_not_taken(pictures, tmp_path):
    assert look(pictures, tmp_path, taken={"my_pictures"}).name == "my_pictures_images"


def test_images_inside_the_project_are_declared_relative_to_it(pictures, tmp_path):
    (tmp_path / "new").mkdir()
    inside = pictures.rename(tmp_path / "new" / "own")
    assert look(inside, tmp_path).declaration["source"]["path"] == "../own"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p / "nothing", "there is no folder or table .*nothing: name one"),
        (lambda p: p / "ant", "images outside of class folders"),
        (lambda p: p / "ant" / "0.png", "no folder of images and no table of them"),
    ],
)
def test_what_makes_no_dataset_is_refused_and_nothing_is_written(
    pictures, init, tmp_path, spoil, message
):
    with pytest.raises((DataError, InputError), match=message):
        init("--images", spoil(pictures))
    assert not (tmp_path / "new" / "experiments").exists()


def test_one_class_alone_is_refused(tmp_path):
    draw(tmp_path / "one" / "only" / "a.png", 1)
    with pytest.raises(DataError, match="has the one class 'only', and at least two"):
        look(tmp_path / "one", tmp_path)


def test_nothing_is_overwritten(pictures, init, tmp_path):
    mine = tmp_path / "new" / "pyproject.toml"
    mine.parent.mkdir()
    mine.write_text("[project]\n")
    said = init()
    assert re.search(r"kept +pyproject.toml", said)
    assert 'add module_name = "fomo_dagster.definitions" below [tool.dagster]' in said
    first = tmp_path / "new" / "experiments" / "first.yaml"
    first.write_text("extends: quickstart\nseed: 3\n")
    said = init("--images", pictures)
    assert re.search(r"wrote +experiments/my_pictures.yaml", said)
    assert mine.read_text() == "[project]\n"
    assert load_experiment("first", tmp_path / "new").experiment.seed == 3


def test_the_first_experiments_load_also_with_the_real_model_they_propose(tmp_path):
    (tmp_path / "experiments").mkdir()
    file = tmp_path / "experiments" / "first.yaml"
    file.write_text(WITHOUT_IMAGES)
    assert load_experiment("first", tmp_path).experiment.backbone.name == "quickstart"
    proposed = re.sub(r"^# (?=\w+: )", "", REAL_MODEL, flags=re.MULTILINE)
    file.write_text(WITHOUT_IMAGES.replace(REAL_MODEL, proposed))
    graph = build_project(tmp_path)
    assert graph.troubles == ()
    assert graph.experiments["first"].backbone.architecture == "ViT-B-32"
    assert graph.experiments["first"].optimiser.learning_rate == 1e-5


def test_dagster_and_dg_are_led_to_the_definitions(init, tmp_path):
    init()
    here, new = shipped_folder() / "workspace.yaml", tmp_path / "new" / "workspace.yaml"
    assert yaml.safe_load(new.read_text()) == yaml.safe_load(here.read_text())
    tools = tomllib.loads((tmp_path / "new" / "pyproject.toml").read_text())["tool"]
    assert tools["dagster"]["module_name"] == DEFINITIONS
    dg = tools["dg"]["project"]
    assert dg["code_location_target_module"] == dg["code_location_name"] == DEFINITIONS
    for module in (dg["root_module"], dg["defs_module"]):
        assert (tmp_path / "new" / module).is_dir()  # or `dg` ends with an error

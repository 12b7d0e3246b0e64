"""The files of a new project. Existing files are never touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from fomo_dagster.errors import InputError
from fomo_dagster.experiment.json_schema import json_schema
from fomo_dagster.home import DEFINITIONS
from fomo_dagster.project.looking import Looked

FIRST = "first"  # the name of the experiment where no images are named
MOST_STAGES = 5
WORKSPACE = f"""\
# What `dagster dev` loads in this folder: the assets of every file in experiments/.
load_from:
  - python_module:
      module_name: {DEFINITIONS}
      working_directory: .
"""
PYPROJECT = f"""\
# By these settings `dagster` and `dg` find the definitions when they are started in this folder.
[tool.dagster]
module_name = "{DEFINITIONS}"

[tool.dg]
directory_type = "project"

[tool.dg.project] # dg wants its two modules to be in this folder, and imports neither
root_module = "experiments"
defs_module = "experiments"
code_location_target_module = "{DEFINITIONS}"
code_location_name = "{DEFINITIONS}"
"""
IGNORED = """\
# What is made: shards, weights, tables, Dagster's history.
/.fomo/
/.venv/
__pycache__/
"""
REAL_MODEL = """\
# The quickstart's small CLIP sees 32 x 32 pixels and was trained on drawings. For scores that mean
# something, start from real weights: uncomment the next three lines. They download 605 MB; use an
# accelerator.
# backbone: openclip_vit_b32
# mixture: {update: 0.5, buffer: 0.5, pretraining: 0}
# optimiser: {learning_rate: 1e-5, betas: [0.9, 0.999]}
"""
WITHOUT_IMAGES = f"""\
# yaml-language-server: $schema=schema.json
# The quickstart, shortened: `fomo run {FIRST}`. It draws its own images. Change what you like.
extends: quickstart
description: A first experiment.

# A dataset is six lines in a file of datasets/. `fomo init --images FOLDER` writes them for you.
stream: {{name: {FIRST}, datasets: [digits, photographs, greek, flags], stages: 4}}

{REAL_MODEL}"""


def files_of(looked: Looked | None) -> dict[str, str]:
    """Path below the project → content. looked: the images that its first experiment is about."""
    files = {
        "pyproject.toml": PYPROJECT,
        "workspace.yaml": WORKSPACE,
        ".gitignore": IGNORED,
        "experiments/schema.json": json.dumps(json_schema(), indent=1) + "\n",
    }
    if looked is None:
        return files | {f"experiments/{FIRST}.yaml": WITHOUT_IMAGES, "datasets/.gitkeep": ""}
    return files | {
        f"datasets/{looked.name}.yaml": _dataset(looked),
        f"experiments/{looked.name}.yaml": _experiment(looked),
    }


def write_new(root: Path, files: Mapping[str, str]) -> dict[str, bool]:
    """Write the files that do not exist yet; path → whether it was written.

    Raises `InputError` if the folder cannot be written to.
    """
    written = {}
    try:
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("x", encoding="utf-8") as file:
                    file.write(content)
                written[name] = True
            except FileExistsError:
                written[name] = False
    except OSError as error:
        raise InputError(
            f"cannot lay out a project in {root}: {error.filename}: {error.strerror}; name a "
            "folder that can be written to"
        ) from error
    return written


def _dataset(looked: Looked) -> str:
    counts = looked.survey.counts
    told = (
        f"# Images of {len(looked.survey.classes)} classes: {counts.get('train', 0)} to train on, "
        f"{counts.get('test', 0)} to test on.\n"
    )
    declaration = dict(looked.declaration)
    source = declaration.pop("source")
    lines = [f"{looked.name}:", f"  source: {_inline(source)}"]
    lines += [f"  {key}: {_inline(value)}" for key, value in declaration.items()]
    lines.append("  # More keys (licence, background, year, …): docs/datasets.md of fomo-dagster.")
    return told + "\n".join(lines) + "\n"


def _experiment(looked: Looked) -> str:
    stages = max(1, min(MOST_STAGES, len(looked.survey.classes) // 2))
    updates = "one update" if stages == 1 else f"{stages} updates"
    stream = {"name": looked.name, "datasets": [looked.name], "stages": stages}
    return (
        "# yaml-language-server: $schema=schema.json\n"
        f"# {len(looked.survey.classes)} classes of images in {updates} of a small CLIP: "
        f"`fomo run {looked.name}`.\n"
        "extends: quickstart\n"
        f"description: A first experiment over the images of {looked.name}.\n\n"
        f"stream: {_inline(stream)}\n\n" + _texts(looked) + REAL_MODEL
    )


def _texts(looked: Looked) -> str:
    """What the images are trained with, if that is not their captions."""
    if not looked.trains_on_prompt:
        return ""
    texts = [looked.declaration["prompt"]]
    return (
        f"# Captions name their class in {looked.naming:.0%} of the images, and scores are by\n"
        "# class names. Remove the next line to train on the captions.\n"
        f"training_texts: {_inline(texts)}\n\n"
    )


def _inline(value: object) -> str:
    """A value on one line of YAML."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip()

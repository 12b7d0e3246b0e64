"""Images that arrive on five days, two of which must not go live: one has wrong labels, one brings
test images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fomo_dagster.data.suite.registry import create_generator
from fomo_dagster.experiment.declared_datasets import shipped_datasets

EXPERIMENT: Mapping[str, Any] = {
    "description": "A model that is updated whenever images arrive.",
    "extends": "quickstart",
    "backbone": {"pretraining": {"budget": {"samples": 12800}}},
    "stream": {"name": "daily", "growing": "../incoming", "arriving": {"test_share": 0}},
    "mixture": {"update": 0.5, "buffer": 0.2, "pretraining": 0.3},
    "budget": {"samples": 4000},
    "method": {"start_from": "live"},
    "evaluation": {
        "adaptation": ["digits", "flags", "photographs", "greek"],
        "held_out": ["shapes", "textures"],
        "prompts": ["a photo of a {}"],  # as what arrives is trained with
    },
    "near_duplicates": {"distance": 0},
    "release": {
        "name": "shop",
        "approval": "automatic",
        "gates": {
            "knowledge": {"at_least": "live"},
            "retention": {"no_worse_than": "live", "margin": 8},
            "data": {"leakage": "refuse"},
        },
    },
}
ARRIVALS: Mapping[str, Mapping[str, Any]] = {
    "2026_11_02": {"dataset": "digits"},
    "2026_11_03": {"dataset": "flags", "wrong": True},
    "2026_11_04": {"dataset": "photographs", "leaked": 20},
    "2026_11_05": {"dataset": "flags"},
    "2026_11_06": {"dataset": "greek"},
}
"""Day → what arrives."""


def write_project(root: Path, **changes: Any) -> None:
    """A project that waits for images."""
    (root / "incoming").mkdir(parents=True)
    (root / "experiments").mkdir()
    (root / "experiments" / "daily.yaml").write_text(yaml.safe_dump({**EXPERIMENT, **changes}))


def arrive(root: Path, day: str) -> None:
    """The images of a day: training images of a dataset of the quickstart, a folder for each
    concept. wrong: each concept's images in the folder of the next one. leaked: how many of its
    test images are among them, as JPEG."""
    declared = ARRIVALS[day]
    source = shipped_datasets().declared[declared["dataset"]].source
    generator = create_generator(source.generator, source.parameters, source.seed)
    train, test = generator.samples("train"), generator.samples("test")
    concepts = list(dict.fromkeys(sample.concept for sample in train))
    folders = concepts[1:] + concepts[:1] if declared.get("wrong") else concepts
    named = dict(zip(concepts, folders, strict=True))
    partial = root / "incoming" / f"{day}.partial"
    for sample in train:
        path = partial / named[sample.concept] / f"{sample.key.replace('/', '_')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        generator.render("train", sample.key).save(path)
    leaked = declared.get("leaked", 0)
    for sample in test[:: max(1, len(test) // leaked)][:leaked] if leaked else ():
        path = partial / sample.concept / f"copy_of_{sample.key.replace('/', '_')}.jpg"
        generator.render("test", sample.key).save(path, quality=90)
    partial.rename(root / "incoming" / day)

"""The JSON schema of the experiment file, for editors."""

from __future__ import annotations

from typing import Any

from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.experiment.sweeping import (
    MOST_REPLICATES,
    REPLICATES,
    SEED_LIST,
    SEEDS,
    SWEEP,
    VARY,
)


def json_schema() -> dict[str, Any]:
    """The JSON schema of the experiment file, for editors."""
    schema = Experiment.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "The experiment to inherit from: its name, with the folder if it is in "
        "another one (`fomo_in_flux/default`).",
    }
    schema["properties"][SWEEP] = {
        "anyOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
        "description": "Declare one experiment for every combination of values: dotted keys, each "
        "with a list of values or a mapping from names to values; or a list of such mappings. "
        "`together` varies several keys at once, `extends` the file to inherit from.",
    }
    schema["properties"][REPLICATES] = {
        "type": "integer", "minimum": 1, "maximum": MOST_REPLICATES,
        "description": "Declare the experiment so many times, each with another seed, from its own "
        "on. They share whatever the seeds do not change.",
    }  # fmt: skip
    schema["properties"][SEED_LIST] = {
        "type": "array", "items": {"type": "integer"}, "minItems": 1,
        "description": "The seeds of the replicates, in place of their number.",
    }  # fmt: skip
    schema["properties"][VARY] = {
        "type": "array", "items": {"enum": list(SEEDS)}, "minItems": 1, "default": ["training"],
        "description": "Which seeds the replicates set: "
        + "; ".join(f"{what}: `{key}`" for what, key in SEEDS.items()) + ".",
    }  # fmt: skip
    schema["required"] = []  # a file that extends another may leave anything out
    return schema

"""Several generators in one dataset with one concept: a pool of captioned images of many kinds."""

from __future__ import annotations

from typing import Any

from PIL import Image
from pydantic import Field

from fomo_dagster.data.declarations import Declaration
from fomo_dagster.data.suite.generator import GeneratedSample, Generator
from fomo_dagster.data.suite.registry import create_generator
from fomo_dagster.errors import DataError, InputError
from fomo_dagster.store.digests import digest_of


class Part(Declaration):
    """One generator of the medley."""

    generator: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class MedleyParameters(Declaration):
    """What a medley takes: its parts by name."""

    concept: str = Field("medley", description="The one concept: the dataset's name.")
    parts: dict[str, Part] = Field(min_length=1)


class Medley:
    """The samples of all parts under one concept; each part's seed follows from its name."""

    name = "medley"
    Parameters = MedleyParameters

    def __init__(self, parameters: MedleyParameters, seed: int) -> None:
        """Raises `InputError` if a part's name or its own parameters will not do."""
        if "/" in parameters.concept or not parameters.concept:
            raise InputError(
                f"a medley's concept is {parameters.concept!r}; use a name without '/'"
            )
        self.concept = parameters.concept
        self.parts: dict[str, Generator] = {}
        for name, part in parameters.parts.items():
            if "/" in name or not name:
                raise InputError(f"a medley's part is called {name!r}; use a name without '/'")
            part_seed = int(digest_of([self.name, seed, name]), 16)
            self.parts[name] = create_generator(part.generator, part.parameters, part_seed)
        # Grows whenever that of a part does, so that a changed part changes the medley's identity.
        self.version = 1 + sum(part.version for part in self.parts.values())

    def samples(self, split: str) -> list[GeneratedSample]:
        """Part by part; keys are `<split>/<part>/…`."""
        return [
            GeneratedSample(sample.key.replace("/", f"/{name}/", 1), self.concept, sample.captions)
            for name, part in self.parts.items()
            for sample in part.samples(split)
        ]

    def render(self, split: str, key: str) -> Image.Image:
        """See `Generator.render`."""
        head, _, rest = key.partition("/")
        name, _, own = rest.partition("/")
        if name not in self.parts:
            raise DataError(f"generator 'medley' has no {split} sample {key!r}: no part {name!r}")
        return self.parts[name].render(split, f"{head}/{own}")

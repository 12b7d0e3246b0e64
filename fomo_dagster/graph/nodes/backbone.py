"""The nodes of weights that are given or pretrained here: θ₀ and other models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.mixture import StageShares
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.experiment.weights_folder import described, files_of
from fomo_dagster.graph.core.context import Observation
from fomo_dagster.graph.core.facts import ONLY, FactsByKey
from fomo_dagster.graph.core.keys import BACKBONES
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.nodes.weights import WeightsNode
from fomo_dagster.graph.work.checkpoints import (
    WEIGHTS,
    drawn_samples,
    shown_of_training,
    steps_table,
    training_parameters,
)
from fomo_dagster.paths import problem_of
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.digests import digest_of
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.core.context import NodeContext


def weights_source_key(backbone: str) -> str:
    """The asset key of a local file of weights."""
    return f"sources/weights_{backbone}"


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Looks at a local file or folder of weights; the digests of files are remembered while they
    stay as they are."""

    path: Path
    backbone: Backbone = field(compare=False)

    def check_is_there(self) -> None:
        """Raise `InputError` if there is no such file or folder."""
        if (problem := problem_of(self.path, "file or folder")) is not None:
            raise InputError(
                f"the weights of backbone {self.backbone.name!r}: {problem} (a path is absolute, "
                "or starts from the folder of the file that names it)"
            )

    def __call__(self, context: NodeContext) -> Observation:
        from fomo_dagster.data.sources.files import DigestCache

        self.check_is_there()
        name = self.backbone.name
        described(self.backbone)  # raises where the two do not go together
        cache = DigestCache(context.home.cache / "weights" / f"{name}.parquet")
        named_by = f"backbone {name!r}"
        if self.path.is_file():
            version = cache.digests([str(self.path)], named_by)[0]
            return Observation(data_version=version)
        files = files_of(self.path)
        digests = cache.digests([str(path) for path in files.values()], named_by)
        return Observation(data_version=digest_of(dict(zip(files, digests, strict=True))))


@dataclass(frozen=True, kw_only=True)
class BackboneNode(WeightsNode):
    """θ₀: pretrained weights of OpenCLIP, a local file, or the result of a declared recipe."""

    kind: ClassVar[str] = "backbone"
    group: ClassVar[str] = BACKBONES
    tools: ClassVar[frozenset[str]] = frozenset({"pytorch", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "weights": "the file of weights holds others",
        "pretraining": "the pretraining pool brings other samples",
    }
    backbone: Backbone
    pool_key: str | None
    execution: Execution

    @property
    def description(self) -> str:
        return "θ₀, the weights that every experiment with this backbone starts from."

    @property
    def inputs(self) -> tuple[str, ...]:
        if self.backbone.weights is not None:
            return (weights_source_key(self.backbone.name),)
        return (self.pool_key,) if self.pool_key is not None else ()

    @property
    def declared(self) -> Mapping[str, Any]:
        declared: dict[str, Any] = {"architecture": self.backbone.architecture}
        if self.backbone.pretrained is not None:
            declared["pretrained"] = self.backbone.pretrained
        if self.backbone.images:
            declared["preprocessing"] = self.backbone.images
        if self.backbone.pretraining is not None:
            declared |= training_parameters(self.backbone.pretraining)
            declared["seed"] = self.backbone.pretraining.seed
            optimiser, schedule = declared["optimiser"], declared["schedule"]
            if optimiser["name"] in ("galore_adamw", "fira") or schedule.get("recovery"):
                declared["optimisation"] = 2  # when dimensions are chosen, and the first peak
        return declared

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        if self.backbone.weights is not None:
            inputs = {"weights": facts[weights_source_key(self.backbone.name)].data_version}
        elif self.pool_key is not None:
            inputs = {"pretraining": facts[self.pool_key].data_version}
        else:
            inputs = {}
        recipe = Recipe(self.kind, self.version, self.declared, inputs)
        return {ONLY: recipe if self.backbone.pretraining is None else of_pixels(recipe)}

    @property
    def parallelism(self) -> Execution | None:
        return self.execution if self.backbone.pretraining is not None else None

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution) if self.backbone.pretraining is not None else Needs()

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any] | None:
        from fomo_dagster.models.backbones import create, download, load, load_folder, save

        backbone = self.backbone
        if backbone.weights is not None:
            if backbone.weights.is_dir():
                model = load_folder(backbone.weights)
            else:
                model = load(backbone.architecture, backbone.weights, backbone.pretrained)
            save(model.module.state_dict(), folder / WEIGHTS)
            return None
        if backbone.pretrained is not None:
            assert isinstance(backbone.architecture, str)
            save(download(backbone.architecture, backbone.pretrained), folder / WEIGHTS)
            return None
        from fomo_dagster.graph.work.opened_pools import pretraining_pool
        from fomo_dagster.graph.work.stage import Target, train_on
        from fomo_dagster.training.spec import StageSpec

        settings = backbone.pretraining
        assert settings is not None
        assert self.pool_key is not None
        pool = pretraining_pool(self.pool_key, context, self.execution, pixels_of(recipe))
        return train_on(
            create(backbone.architecture, settings.seed, backbone.images),
            {"pretraining": pool},
            StageShares(((0.0, {"pretraining": 1.0}),)),
            StageSpec(settings=settings, seed=settings.seed, stage=0, execution=self.execution),
            Target(self.key, recipe, folder),
            context,
        )

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("training_steps",) if self.backbone.pretraining is not None else ()

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        if self.backbone.pretraining is not None:
            yield steps_table(artifacts[ONLY], experiment=self.key, stage=0)

    def samples(self, facts: FactsByKey) -> int | None:
        recipe = self.backbone.pretraining
        return drawn_samples(recipe) if recipe is not None else None

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        return shown_of_training(outcome.artifacts[ONLY])

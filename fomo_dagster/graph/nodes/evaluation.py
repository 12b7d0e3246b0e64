"""The nodes of evaluation: every stage's datasets, an experiment's scores, the leaderboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.evaluation import Evaluation, Waffle
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.core.facts import Details, Facts, FactsByKey, identity
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Check, Checked, Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.pixels import of_pixels, pixels_of
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.graph.work.counted_costs import encoding_flops
from fomo_dagster.graph.work.indexes import evaluated_index, index_of
from fomo_dagster.graph.work.left_towers import NOTHING_LEFT, LeftTowers, image_features
from fomo_dagster.graph.work.text_embeddings import text_embeddings
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.heads import Head
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.tables.predictions import PREDICTIONS, write_predictions

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.graph.core.context import NodeContext

METRICS = "metrics.parquet"
CONCEPTS = "concepts.parquet"
MOST_CONFUSED = 20  # pairs of classes that Dagster shows
CLASSES_TOLD_APART = Check(
    "classes_told_apart",
    "No two classes of a dataset have prompts of the same tokens, which no model could tell apart.",
)
SCORES_TELL_MODELS_APART = Check(
    "scores_tell_models_apart",
    "Each dataset has something to get wrong: several classes, or more images than recall looks "
    "at.",
)


@dataclass(frozen=True, kw_only=True)
class EvaluationDetails(Details):
    """evaluations: dataset → digest of its evaluation."""

    evaluations: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class EvaluationNode(Node):
    """A stage's deployed weights on every evaluation dataset; one artifact per dataset."""

    kind: ClassVar[str] = "evaluation"
    details: ClassVar[type[Details]] = EvaluationDetails
    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        "checkpoint": "the weights are others",
        "test": "its test split changed",
        "concepts": "the classes to choose from changed",
    }
    version: ClassVar[int] = 2  # 1 took subsets of retrieval datasets
    parallel_over_artifacts: ClassVar[bool] = True
    stage: int
    backbone: Backbone
    checkpoint_key: str
    settings: Evaluation
    datasets: Mapping[str, Dataset]
    roles: Mapping[str, str]  # dataset → adaptation or held_out
    left: LeftTowers = NOTHING_LEFT
    execution: Execution

    @property
    def description(self) -> str:
        return f"The weights that stage {self.stage} deploys, on every evaluation dataset."

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.checkpoint_key, *map(shards_key, self.datasets))

    @property
    def declared(self) -> Mapping[str, Any]:
        return {name: self.parameters(name) | {"role": self.roles[name]} for name in self.datasets}

    def parameters(self, name: str) -> dict[str, Any]:
        """What decides how a dataset is evaluated."""
        dataset, settings = self.datasets[name], self.settings
        parameters: dict[str, Any] = {"task": dataset.task, "precision": settings.precision}
        if dataset.task == "classification":  # of which alone there are subsets
            parameters["subset"] = settings.subset
            if settings.subset < 1:
                parameters["seed"] = settings.seed
            prompts = settings.model_dump(mode="json", include={"prompts"})["prompts"]
            parameters["prompts"] = [dataset.prompt] if prompts == "dataset" else prompts
            if isinstance(settings.prompts, Waffle):
                parameters["prompt"] = dataset.prompt
        return parameters

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        return self.recipes_of(facts[self.checkpoint_key].data_version, facts)

    def recipes_of(self, checkpoint: str, facts: FactsByKey) -> dict[str, Recipe]:
        """Dataset → recipe of evaluating weights, by their data version, as this asset does."""
        recipes = {}
        for name, dataset in self.datasets.items():
            details = facts[shards_key(name)].of(SampleDetails)
            if not details.test_samples:  # said before anything is trained
                raise InputError(
                    f"{self.key}: dataset {name!r} has no test samples to evaluate on: give it a "
                    "test split (or a test_share), or leave it out of the evaluation"
                )
            inputs = {"checkpoint": checkpoint, "test": details.test}
            if dataset.task == "classification":
                inputs["concepts"] = details.concepts_digest
            # Not `self.kind`: what a stage evaluates and what a stream probes is the same artifact.
            kind = EvaluationNode.kind
            recipes[name] = of_pixels(Recipe(kind, self.version, self.parameters(name), inputs))
        return recipes

    def alike(
        self, facts: FactsByKey, context: NodeContext, *, may_fetch: bool = False
    ) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Dataset → the classes that its prompts leave alike to the tokeniser, where there are any;
        without the datasets of which nobody knows. may_fetch: see `alike_classes`."""
        from fomo_dagster.evaluation.alike import Groups, alike_classes
        from fomo_dagster.experiment.weights_folder import described

        prompts, weights = self.settings.prompts, self.backbone.weights

        def look(name: str) -> Groups | None:
            folder = weights if weights is not None and weights.is_dir() else None
            return alike_classes(
                facts[shards_key(name)].of(SampleDetails).concepts,
                prompts, self.datasets[name].prompt,
                described(self.backbone).architecture, folder,
                context.home.cache / "alike", may_fetch=may_fetch,
            )  # fmt: skip

        found = {}
        asked = ("alike", self.backbone.name, repr(prompts), may_fetch)
        for name, dataset in self.datasets.items():
            if dataset.task == "classification":
                version = facts[shards_key(name)].data_version
                found[name] = context.once((*asked, name, version), partial(look, name))
        return {name: groups for name, groups in found.items() if groups}

    def remarks(self, facts: FactsByKey, context: NodeContext) -> Iterator[str]:
        from fomo_dagster.evaluation.alike import said_of

        for name, groups in self.alike(facts, context).items():
            yield said_of(name, groups)
        yield from self.foregone(facts).values()

    def foregone(self, facts: FactsByKey) -> dict[str, str]:
        """Dataset → why every model has the same score, where it has."""
        from fomo_dagster.evaluation.foregone import foregone

        details = {name: facts[shards_key(name)].of(SampleDetails) for name in self.datasets}
        said = {
            name: foregone(name, self.datasets[name].task, of.concepts, of.test_samples)
            for name, of in details.items()
        }
        return {name: why for name, why in said.items() if why is not None}

    def predict(self, recipes: Mapping[str, Recipe], context: NodeContext) -> Facts:
        digests = {name: recipe.digest for name, recipe in recipes.items()}
        return Facts(identity(recipes), EvaluationDetails(evaluations=digests))

    @property
    def parallelism(self) -> Execution | None:
        return self.execution

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def make(
        self, name: str, recipe: Recipe, folder: Path, context: NodeContext
    ) -> Mapping[str, Any]:
        checkpoint = context.artifact(self.checkpoint_key)
        return self.evaluate(
            name, recipe, checkpoint, self.backbone, folder, context,
            kept=self._measures_encode(name),
        )  # fmt: skip

    def _measures_encode(self, name: str) -> bool:
        """Whether others that follow ask for the features of the same images."""
        asked = self.settings.few_shot is not None or self.settings.temperature is not None
        return asked and self.datasets[name].task == "classification"

    def evaluate(
        self, name: str, recipe: Recipe, checkpoint: Artifact, backbone: Backbone, folder: Path,
        context: NodeContext, *, kept: bool = False,
    ) -> Mapping[str, Any]:  # fmt: skip
        """Evaluate weights on a dataset as this asset does, into a folder; what it cost. recipe:
        one of `recipes_of`. kept: as of `image_features`."""
        from fomo_dagster.evaluation.evaluate import EvaluationSet, evaluate
        from fomo_dagster.models.devices import device_of
        from fomo_dagster.training.meter import Meter

        meter = Meter(device_of(self.execution.device))
        encoder = encoder_of(
            backbone, checkpoint, self.settings.precision, self.execution, context,
            pixels_of(recipe),
        )  # fmt: skip
        flops: Counter[str] = Counter()
        index = index_of(name, context)

        def images_of(samples: pl.DataFrame) -> Tensor:
            return self.image_features(
                name, samples, checkpoint, encoder, flops, context, kept=kept
            )

        def embeddings_of(texts: tuple[str, ...], each: int) -> Tensor:
            return self.text_embeddings(texts, each, checkpoint, encoder, flops, context)

        classes = context.facts(shards_key(name)).of(SampleDetails).concepts
        evaluation_set = EvaluationSet(name, self.datasets[name], index, classes)
        result = evaluate(encoder, evaluation_set, self.settings, embeddings_of, images_of)
        result.metrics.write_parquet(folder / METRICS)
        result.concepts.write_parquet(folder / CONCEPTS)
        write_predictions(result.predictions, folder / PREDICTIONS)
        samples = int(result.concepts["samples"].sum())
        return {"samples": samples, **flops, **meter.costs()}

    def image_features(
        self, name: str, samples: pl.DataFrame, checkpoint: Artifact, encoder: Encoder,
        flops: Counter[str], context: NodeContext, *, kept: bool,
    ) -> Tensor:  # fmt: skip
        """Features of images of a dataset, (N, D), by the encoder, which has the weights of a
        checkpoint. What they cost, if they were not there, is added to `flops`. kept: for others
        that ask for the same; those of a left tower always are."""
        index = evaluated_index(name, encoder.pixels, self.execution, context)
        owner = self.left.owner("image", checkpoint, context) or (checkpoint if kept else None)
        if owner is not None:
            found = image_features(
                name, samples, index, owner=owner, encoder=encoder, context=context
            )
            flops.update(found.cost)
            return found.features
        architecture, cache = encoder.model.architecture, context.home.cache
        flops.update(encoding_flops(architecture, cache, images=samples.height))
        return encoder.images(name, samples, index)

    def text_embeddings(
        self, texts: tuple[str, ...], each: int, checkpoint: Artifact, encoder: Encoder,
        flops: Counter[str], context: NodeContext,
    ) -> Tensor:  # fmt: skip
        """As `text_embeddings`, by the encoder, which has the weights of a checkpoint. What they
        cost, if they were not there, is added to `flops`."""
        owner = self.left.owner("text", checkpoint, context) or checkpoint
        embeddings, of_texts = text_embeddings(
            texts, each, checkpoint=owner, precision=self.settings.precision,
            encoder=lambda: encoder, context=context,
        )  # fmt: skip
        flops.update(of_texts)
        return embeddings

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("evaluations", "concept_scores")

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        for table, file in (("evaluations", METRICS), ("concept_scores", CONCEPTS)):
            rows = [
                read_parquet(artifact.path(file)).with_columns(
                    experiment=pl.lit(self.experiment),
                    stage=pl.lit(self.stage, pl.Int64),
                    dataset=pl.lit(name),
                    role=pl.lit(self.roles[name]),
                )
                for name, artifact in artifacts.items()
            ]
            yield table, pl.concat(rows, how="vertical").select(*SCHEMAS[table])

    def samples(self, facts: FactsByKey) -> int | None:
        from fomo_dagster.evaluation.subsets import subset_size

        total = 0
        for name, dataset in self.datasets.items():
            details = facts[shards_key(name)].of(SampleDetails)
            tested = details.test_samples
            if dataset.task == "classification":
                tested = subset_size(tested, len(details.concepts), self.settings.subset)
            total += tested
        return total

    @property
    def checks(self) -> tuple[Check, ...]:
        return (CLASSES_TOLD_APART, SCORES_TELL_MODELS_APART)

    def checked(self, outcome: Outcome, context: NodeContext) -> Iterator[Checked]:
        facts = self.input_facts(context)
        alike = self.alike(facts, context, may_fetch=True)
        details = {"alike": {name: list(map(list, groups)) for name, groups in alike.items()}}
        yield Checked(CLASSES_TOLD_APART.name, not alike, details=details)
        foregone = self.foregone(facts)
        yield Checked(SCORES_TELL_MODELS_APART.name, not foregone, details=foregone)

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        import polars as pl

        from fomo_dagster.evaluation.scores import accumulation_and_retention
        from fomo_dagster.metrics import SCORE

        # By the names they have here: who made one may call the same images otherwise.
        rows = pl.concat(
            read_parquet(artifact.path(METRICS)).with_columns(dataset=pl.lit(name))
            for name, artifact in outcome.artifacts.items()
        )
        of_datasets = rows.filter(pl.col("metric") == SCORE).select("dataset", "value")
        scores = dict(of_datasets.iter_rows())
        adaptation, held_out = (
            [scores[name] for name, of_role in self.roles.items() if of_role == role]
            for role in ("adaptation", "held_out")
        )
        return {
            **percentages(accumulation_and_retention(adaptation, held_out)),
            **percentages({f"score_{name}": value for name, value in sorted(scores.items())}),
            "metrics": rows,
            **self._most_confused(outcome.artifacts),
            **self._misread(outcome.head, context),
            "computed_now": ", ".join(outcome.computed) or "none",
        }

    def _misread(self, head: Head, context: NodeContext) -> Mapping[str, Shown]:
        """A picture of what is wrong, of an experiment's stage."""
        from fomo_dagster.graph.work.misread import misread

        if self.experiment is None:
            return {}
        before = f"{self.experiment}/evaluation_{self.stage - 1:03d}" if self.stage else None
        return misread(head, before, context)

    def _most_confused(self, artifacts: Mapping[str, Artifact]) -> dict[str, Shown]:
        """The classes that are most often taken for others, of what has predictions."""
        import polars as pl

        found = [
            read_parquet(artifact.path(PREDICTIONS))
            .filter(pl.col("rank") > 0)
            .group_by("concept", "predicted")
            .agg(images=pl.len())
            .select(pl.lit(name).alias("dataset"), "concept", "predicted", "images")
            for name, artifact in artifacts.items()
            if self.datasets[name].task == "classification"
            and PREDICTIONS in artifact.manifest["files"]
        ]
        if not found:
            return {}
        order = pl.concat(found).sort(
            "images", "dataset", "concept", "predicted", descending=[True, False, False, False]
        )
        return {"most_confused": order.head(MOST_CONFUSED)}


def percentages(values: Mapping[str, float | None]) -> dict[str, float]:
    """Percentages to two places, which Dagster plots over time. Undefined ones are left out. The
    tables hold every digit."""
    return {name: round(value, 2) for name, value in values.items() if value is not None}

"""What further measures of a stage's weights have in common.

Each is a kind of asset of its own, so that asking for one computes nothing again: evaluations stay
as they are, and scores know nothing of it. Its rows stand in the table `evaluations`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.experiment.execution import Execution
from fomo_dagster.graph.core.facts import FactsByKey
from fomo_dagster.graph.core.keys import shards_key
from fomo_dagster.graph.core.needs import Needs
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.core.outcome import Outcome
from fomo_dagster.graph.core.shown import Shown
from fomo_dagster.graph.nodes.details import SampleDetails
from fomo_dagster.graph.nodes.evaluation import METRICS, EvaluationNode
from fomo_dagster.graph.nodes.pixels import pixels_of
from fomo_dagster.graph.work.checkpoints import encoder_of
from fomo_dagster.graph.work.indexes import index_of
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.graph.core.context import NodeContext


@dataclass(frozen=True, kw_only=True)
class Measure(Node):
    """A measure of the weights that a stage deploys, on the classification datasets that it is
    evaluated on."""

    tools: ClassVar[frozenset[str]] = frozenset({"parquet", "openclip"})
    input_changes: ClassVar[Mapping[str, str]] = {
        **EvaluationNode.input_changes,
        "train": "its training split changed",
    }
    parallel_over_artifacts: ClassVar[bool] = True
    evaluation: EvaluationNode
    execution: Execution

    @classmethod
    @abstractmethod
    def wanted(cls, evaluation: EvaluationNode) -> bool:
        """Whether the experiment asks for it."""

    @classmethod
    def of(cls, evaluation: EvaluationNode) -> Self | None:
        """The node of an evaluated stage; None if it is not asked for, or nothing is classified."""
        classified = [d for d in evaluation.datasets.values() if d.task == "classification"]
        if not cls.wanted(evaluation) or not classified:
            return None
        return cls(
            key=f"{evaluation.experiment}/{cls.kind}_{evaluation.stage:03d}",
            experiment=evaluation.experiment,
            stage=evaluation.stage,
            evaluation=evaluation,
            execution=evaluation.execution,
        )

    @cached_property
    def datasets(self) -> Mapping[str, Dataset]:
        """Those that are classified."""
        every = self.evaluation.datasets
        return {name: every[name] for name in every if every[name].task == "classification"}

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.evaluation.checkpoint_key, *map(shards_key, self.datasets))

    def evaluated(self, name: str) -> dict[str, Any]:
        """What decides which test images of a dataset there are, and their features."""
        settings = self.evaluation.settings
        seed = {"seed": settings.seed} if settings.subset < 1 else {}
        return {"precision": settings.precision, "subset": settings.subset, **seed}

    def of_dataset(self, name: str, facts: FactsByKey) -> dict[str, Any]:
        """The inputs of a recipe that a dataset's test images are."""
        details = facts[shards_key(name)].of(SampleDetails)
        return {"test": details.test, "concepts": details.concepts_digest}

    def test_samples(self, name: str, facts: FactsByKey) -> int:
        """How many test images of a dataset are looked at."""
        from fomo_dagster.evaluation.subsets import subset_size

        details = facts[shards_key(name)].of(SampleDetails)
        share = self.evaluation.settings.subset
        return subset_size(details.test_samples, len(details.concepts), share)

    @property
    def parallelism(self) -> Execution | None:
        return self.execution

    @property
    def needs(self) -> Needs:
        return Needs.of(self.execution)

    def encoder(self, recipe: Recipe, context: NodeContext) -> Encoder:
        """What encodes with the stage's weights, for an artifact of this recipe."""
        of = self.evaluation
        return encoder_of(
            of.backbone, context.artifact(of.checkpoint_key), of.settings.precision,
            self.execution, context, pixels_of(recipe),
        )  # fmt: skip

    def class_embeddings(
        self, name: str, encoder: Encoder, flops: Counter[str], context: NodeContext
    ) -> npt.NDArray[np.float32]:
        """(C, D), those of the evaluation; what they cost, if they were not there, is added to
        `flops`."""
        from fomo_dagster.evaluation.prompts import class_texts, templates_of

        of, concepts = self.evaluation, context.facts(shards_key(name)).of(SampleDetails).concepts
        templates = templates_of(of.settings.prompts, self.datasets[name].prompt)
        embeddings = of.text_embeddings(
            class_texts(concepts, templates), len(templates),
            context.artifact(of.checkpoint_key), encoder, flops, context,
        )  # fmt: skip
        return embeddings.numpy()

    def test_images(self, name: str, context: NodeContext) -> pl.DataFrame:
        """The rows of a dataset's index that are looked at."""
        from fomo_dagster.evaluation.subsets import subset

        settings = self.evaluation.settings
        return subset(index_of(name, context).rows("test"), settings.subset, settings.seed)

    def image_features(
        self, name: str, samples: pl.DataFrame, encoder: Encoder, flops: Counter[str],
        context: NodeContext, *, kept: bool,
    ) -> npt.NDArray[np.float32]:  # fmt: skip
        """(N, D), as `EvaluationNode.image_features`: of test images, with `kept`, they are those
        of the evaluation."""
        of, checkpoint = self.evaluation, context.artifact(self.evaluation.checkpoint_key)
        return of.image_features(
            name, samples, checkpoint, encoder, flops, context, kept=kept
        ).numpy()

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("evaluations",)

    def metrics(self, artifacts: Mapping[str, Artifact]) -> pl.DataFrame:
        """The metrics of all artifacts, each of the dataset that it is named after."""
        import polars as pl

        return pl.concat(
            read_parquet(artifact.path(METRICS)).with_columns(dataset=pl.lit(name))
            for name, artifact in artifacts.items()
        )

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        import polars as pl

        from fomo_dagster.tables.schemas import SCHEMAS

        whole = self.metrics(artifacts).with_columns(
            experiment=pl.lit(self.experiment),
            stage=pl.lit(self.stage, pl.Int64),
            role=pl.col("dataset").replace_strict(self.evaluation.roles),
        )
        yield "evaluations", whole.select(*SCHEMAS["evaluations"])

    def shown(self, outcome: Outcome, context: NodeContext) -> Mapping[str, Shown]:
        metrics = self.metrics(outcome.artifacts)
        return {
            "metrics": metrics.select("dataset", "metric", "value", "samples"),
            "computed_now": ", ".join(outcome.computed) or "none",
        }

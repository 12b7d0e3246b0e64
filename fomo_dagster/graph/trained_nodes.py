"""The nodes of trained weights, one a stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from fomo_dagster.experiment.adapters import Adapters
from fomo_dagster.experiment.backbone import Backbone
from fomo_dagster.experiment.schema import (
    AnyMethod,
    Buffer,
    Execution,
    Finetune,
    Method,
    Mixture,
)
from fomo_dagster.experiment.training import TrainingSettings
from fomo_dagster.graph.checkpoints import (
    ADAPTERS,
    CARRIED,
    REMEMBERED,
    WEIGHTS,
    drawn_samples,
    load_weights,
    steps_table,
    training_parameters,
)
from fomo_dagster.graph.data_nodes import MANIFEST
from fomo_dagster.graph.node import ONLY, FactsByKey, Node
from fomo_dagster.store.artifacts import Artifact
from fomo_dagster.store.recipes import Recipe

if TYPE_CHECKING:
    import polars as pl

    from fomo_dagster.graph.workshop import Workshop
    from fomo_dagster.methods.preservation import Beside
    from fomo_dagster.models.backbones import Model


def trained_by(method: AnyMethod, *, goes_on: bool) -> dict[str, Any]:
    """What the method trains, averages and preserves, as plain data; where it starts and what it
    deploys is the graph's. goes_on: whether there is something that the stage before left."""
    if isinstance(method, Finetune):
        trained = method.model_dump(mode="json", include={"train"})
    else:
        trained = {"adapters": method.model_dump(mode="json", exclude=set(Method.model_fields))}
    if method.average is not None:
        trained["average"] = method.average.model_dump(mode="json")
    if method.preserve is not None:
        unused = set() if goes_on else set(method.preserve.of_carried)
        trained["preserve"] = method.preserve.model_dump(mode="json", exclude=unused)
    return trained


@dataclass(frozen=True, kw_only=True)
class TrainedNode(Node):
    """The weights after training a stage."""

    kind: ClassVar[str] = "trained"
    stage: int
    backbone: Backbone
    settings: TrainingSettings
    mixture: Mixture
    buffer: Buffer
    method: AnyMethod
    seed: int
    start_key: str
    base_key: str  # θ₀
    chunk_keys: tuple[str, ...]  # of stages 1..stage; the last is the update pool
    pool_key: str | None
    reference_key: str | None = None
    """The weights that the preservation looks at beside those of the start."""
    reference_backbone: Backbone | None = None
    """What they are of, where they are not of `backbone`."""
    carried_key: str | None = None
    """The stage before, which left what the preservation goes on with."""
    remembered_keys: tuple[str, ...] = ()
    """All stages before, which left features of the samples that they brought."""
    execution: Execution

    @property
    def _continued_key(self) -> str | None:
        """Whose adapters this stage goes on with, over θ₀; of stages after the first, alike."""
        persists = isinstance(self.method, Adapters) and self.method.adapters == "persist"
        return self.start_key if persists and self.start_key != self.base_key else None

    @property
    def _buffer_keys(self) -> tuple[str, ...]:
        return self.chunk_keys[:-1] if self.mixture.buffer > 0 else ()

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(
                (
                    self.start_key, *self._beside.values(), *self.remembered_keys,
                    *self._buffer_keys, self.chunk_keys[-1],
                    *([self.pool_key] if self.pool_key is not None else []),
                )
            )
        )  # fmt: skip

    @property
    def _beside(self) -> dict[str, str]:
        """Role → key of the weights and states beside those of the start."""
        base = self.base_key if self._continued_key is not None else None
        roles = {"base": base, "reference": self.reference_key, "carried": self.carried_key}
        return {role: key for role, key in roles.items() if key is not None}

    @property
    def declared(self) -> Mapping[str, Any]:
        declared = training_parameters(self.settings) | {
            **trained_by(self.method, goes_on=self.carried_key is not None),
            "mixture": self.mixture.model_dump(mode="json"),
            "seed": self.seed,
            "stage": self.stage,
        }
        if self.mixture.buffer > 0:
            declared["buffer"] = self.buffer.model_dump(mode="json")
        return declared

    def recipes(self, facts: FactsByKey) -> dict[str, Recipe]:
        inputs: dict[str, Any] = {
            "start": facts[self.start_key].data_version,
            "update": facts[self.chunk_keys[-1]].data_version,
        }
        inputs |= {role: facts[key].data_version for role, key in self._beside.items()}
        if self._buffer_keys:
            inputs["buffer"] = [facts[key].data_version for key in self._buffer_keys]
        if self.pool_key is not None:
            inputs["pretraining"] = facts[self.pool_key].data_version
        if self.remembered_keys:
            inputs["remembered"] = [facts[key].data_version for key in self.remembered_keys]
        return {ONLY: Recipe(self.kind, self.version, self.declared, inputs)}

    def make(
        self, name: str, recipe: Recipe, folder: Path, workshop: Workshop
    ) -> Mapping[str, Any]:
        import polars as pl

        from fomo_dagster.data.buffer import select
        from fomo_dagster.data.mixture import batch_sizes, first_stage_shares
        from fomo_dagster.graph.opened_pools import manifest_pool, pretraining_pool
        from fomo_dagster.graph.remembering import remember, remembered
        from fomo_dagster.graph.stage import train_on

        def manifest(key: str) -> pl.DataFrame:
            return pl.read_parquet(workshop.artifact(key).path(MANIFEST))

        def kept(chunks: Sequence[pl.DataFrame]) -> pl.DataFrame:
            return select(chunks, self.buffer.capacity, self.buffer.selection, self.seed)

        shares = self.mixture.model_dump()
        if not self._buffer_keys:
            shares = first_stage_shares(shares)
        sizes = batch_sizes(self.settings.batch_size, shares)
        pools = {}
        update = manifest(self.chunk_keys[-1])
        earlier = [manifest(key) for key in self._buffer_keys]
        chosen = kept(earlier)
        if sizes["update"]:
            pools["update"] = manifest_pool("update", update, workshop)
        if earlier:
            pools["buffer"] = manifest_pool("buffer", chosen, workshop)
        if self.pool_key is not None:
            pools["pretraining"] = pretraining_pool(self.pool_key, workshop, self.execution)
        beside = self._opened_beside(workshop)
        if self.remembered_keys:
            paths = [workshop.artifact(key).path(REMEMBERED) for key in self.remembered_keys]
            beside = replace(beside, remembered=remembered(paths, earlier, chosen))
        continued = self._continued_key
        base = self.start_key if continued is None else self.base_key
        cost = train_on(
            load_weights(self.backbone, workshop.artifact(base).path(WEIGHTS)),
            pools,
            sizes,
            settings=self.settings,
            method=self.method,
            continued=workshop.artifact(continued).path(ADAPTERS) if continued else None,
            beside=beside,
            seed=self.seed,
            stage=self.stage,
            execution=self.execution,
            recipe=recipe,
            folder=folder,
            workshop=workshop,
        )
        if self.method.preserve is not None and self.method.preserve.remembers:
            remember(
                load_weights(self.backbone, folder / WEIGHTS), update, kept([*earlier, update]),
                folder / REMEMBERED, precision=self.settings.precision, execution=self.execution,
                workshop=workshop,
            )  # fmt: skip
        return cost

    def _opened_beside(self, workshop: Workshop) -> Beside:
        from safetensors.torch import load_file

        from fomo_dagster.methods.preservation import Beside

        def reference() -> Model:
            assert self.reference_key is not None
            backbone = self.reference_backbone or self.backbone
            return load_weights(backbone, workshop.artifact(self.reference_key).path(WEIGHTS))

        carried = {}
        if self.carried_key is not None:
            carried = load_file(workshop.artifact(self.carried_key).path(CARRIED))
        return Beside(reference=reference if self.reference_key else None, carried=carried)

    @property
    def table_names(self) -> tuple[str, ...]:
        return ("training_steps",)

    def tables(
        self, artifacts: Mapping[str, Artifact], facts: FactsByKey
    ) -> Iterator[tuple[str, pl.DataFrame]]:
        assert self.experiment is not None
        yield steps_table(artifacts[ONLY], experiment=self.experiment, stage=self.stage)

    def samples(self, facts: FactsByKey) -> int | None:
        counts = facts[self.chunk_keys[-1]].details.get("samples")
        return drawn_samples(self.settings, counts, self.mixture.update)

"""The nodes of a stream: its order, with what that measures, and its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fomo_dagster.data.dataset import Dataset
from fomo_dagster.errors import InputError
from fomo_dagster.experiment.loading import Loaded
from fomo_dagster.experiment.schema import Experiment
from fomo_dagster.graph.build.declared_streams import (
    in_released_streams,
    listing_of,
    years_of,
)
from fomo_dagster.graph.build.shared_nodes import SharedNodes
from fomo_dagster.graph.core.keys import STREAMS, live_start_key, order_key
from fomo_dagster.graph.nodes.chunk import ChunkNode, Chunks, CutOrder, WholeDatasets
from fomo_dagster.graph.nodes.kept import KeptNode
from fomo_dagster.graph.nodes.measured_orders import (
    FrequencyOrder,
    PerformanceOrder,
    SimilarityOrder,
)
from fomo_dagster.graph.nodes.near_duplicates import NearDuplicatesNode, SeenBy
from fomo_dagster.graph.nodes.order import Listing, OrderNode
from fomo_dagster.graph.nodes.probe import ProbeNode


class StreamNodes(SharedNodes):
    """Adds the nodes of streams to a graph."""

    def order_of(
        self, loaded: Loaded, listing: Listing, datasets: Mapping[str, Dataset], theta: str
    ) -> OrderNode:
        """The node of the stream's order, with what it measures added before it."""
        experiment = loaded.experiment
        name, stream = experiment.stream_name, experiment.stream
        backbone, execution = self.backbone_of(theta), experiment.execution
        key, of_benchmark = order_key(name), in_released_streams(experiment, datasets)
        if stream.order == "performance":
            # Always of whole test splits: two samples a class are no accuracy to go by.
            probe = ProbeNode(
                key=f"{STREAMS}/{name}/probe", stage=0, backbone=backbone, checkpoint_key=theta,
                settings=experiment.evaluation.model_copy(update={"subset": 1.0}),
                datasets=datasets, roles=dict.fromkeys(datasets, "adaptation"),
                execution=execution,
            )  # fmt: skip
            self.add(probe)
            return PerformanceOrder(
                key=key, stream=stream, listing=listing, of_benchmark=of_benchmark,
                probe_key=probe.key,
            )  # fmt: skip
        if stream.order == "frequency":
            recipe = backbone.pretraining
            pool = experiment.pretraining_pool or (recipe.pool if recipe else None)
            if pool is None:
                raise InputError(
                    f"experiment {experiment.name!r}: the order frequency counts captions of the "
                    "pretraining pool, and there is none: declare pretraining_pool"
                )
            pool_key = self.add_pool(loaded, pool, "pretraining_pool")
            return FrequencyOrder(
                key=key, stream=stream, listing=listing, of_benchmark=of_benchmark,
                pool_key=pool_key, execution=execution,
            )  # fmt: skip
        if stream.order == "similarity":
            return SimilarityOrder(
                key=key, stream=stream, listing=listing, of_benchmark=of_benchmark,
                checkpoint_key=theta, backbone=backbone, execution=execution,
                precision=experiment.evaluation.precision,
                prompts={d: dataset.prompt for d, dataset in datasets.items()},
            )  # fmt: skip
        return OrderNode(
            key=key, stream=stream, listing=listing, of_benchmark=of_benchmark,
            years=years_of(experiment, datasets),
        )  # fmt: skip

    def add_stream(
        self, loaded: Loaded, theta: str, arrived: tuple[str, ...]
    ) -> tuple[list[str], tuple[str, ...]]:
        """The keys of the chunks, and the datasets that the stream draws from.

        arrived: the datasets of a growing stream.
        """
        experiment = loaded.experiment
        name, stream = experiment.stream_name, experiment.stream
        listing = Listing(arrived) if stream.growing is not None else listing_of(loaded)
        datasets = {d: self.add_samples(loaded, d, "stream") for d in listing.datasets}
        if not datasets or stream.stages == 0:  # of a growing stream nothing may have arrived
            return [], listing.datasets
        order = self.order_of(loaded, listing, datasets, theta)
        self.add(order)
        chunks: Chunks
        if stream.order == "dataset_incremental" or stream.growing is not None:
            chunks, stages = WholeDatasets(order=order), len(datasets)
            if stream.stages not in (None, stages):
                raise InputError(
                    f"experiment {experiment.name!r}: stream.stages is {stream.stages}, and a "
                    f"dataset_incremental stream of {stages} datasets has {stages}: leave it out"
                )
        else:
            chunks, stages = CutOrder(order=order), stream.stages or len(stream.positions or ()) + 1
        keys = []
        for number in range(1, stages + 1):
            key = f"{STREAMS}/{name}/chunk_{number:03d}"
            brings, texts = chunks.datasets(number), experiment.training_texts
            named = [d for d in brings if datasets[d].task == "classification"]
            self.add(
                ChunkNode(
                    key=key, stream=name, number=number, chunks=chunks,
                    prompts={d: datasets[d].prompt for d in brings},
                    texts=texts, worded=() if texts is None else tuple(named),
                )
            )  # fmt: skip
            keys.append(key)
        return keys, listing.datasets

    def near_duplicates(
        self,
        experiment: Experiment,
        chunk_keys: Sequence[str],
        evaluated: Sequence[Iterable[str]],
        theta: str,
    ) -> dict[int, NearDuplicatesNode]:
        """Stage → the near duplicates of what it brings, where the experiment looks for them.

        evaluated: of each stage from 1 on, the datasets that it is evaluated on.
        """
        settings, trained_on = experiment.near_duplicates_asked, dict[str, None]()
        found: dict[int, NearDuplicatesNode] = {}
        if settings is None:
            return found
        seen_by = SeenBy(
            backbone=self.backbone_of(theta), checkpoint_key=theta, execution=experiment.execution
        )
        starts_live = experiment.method.start_from == "live"
        for stage, key in enumerate(chunk_keys, start=1):
            chunk = self.nodes[key]
            assert isinstance(chunk, ChunkNode)
            trained_on |= dict.fromkeys(chunk.prompts)
            found[stage] = NearDuplicatesNode.of(
                experiment.name, settings, chunk_keys[:stage], trained_on, evaluated[:stage],
                seen_by,
                live_start_key(experiment.name, stage) if starts_live else None,
                experiment.release.name if experiment.release is not None else None,
            )  # fmt: skip
        return found

    def add_near_duplicates(self, near: NearDuplicatesNode) -> None:
        """After the hashes and features that it takes; and what is trained on without them, where
        they are left out."""
        for taken in (*near.hashes, *near.features):
            if taken.key not in self.nodes:
                self.add(taken)
        self.add(near)
        if near.settings.deduplicate:
            self.add(KeptNode.of(near))

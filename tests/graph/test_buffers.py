"""What a stage keeps of earlier chunks: from its declaration to the pool that is drawn from."""

from __future__ import annotations

from typing import Any

from fomo_dagster.data.buffer import select
from fomo_dagster.data.pixel_rules import NEWEST
from fomo_dagster.graph.core.facts import ONLY, Facts
from fomo_dagster.graph.nodes.trained import TrainedNode
from fomo_dagster.graph.run.materialise import materialise
from fomo_dagster.graph.run.run_context import RunContext
from fomo_dagster.graph.work.stage_pools import StagePools, open_pools


def digest(project: Any, stage: int, *overrides: str) -> str:
    node = project.graph("toy", *overrides).nodes[f"toy/trained_{stage:03d}"]
    recipes = node.recipes({key: Facts(f"version of {key}") for key in node.inputs})
    return str(recipes[ONLY].digest)


def opened(project: Any, stage: int, kinds: tuple[str, ...], **buffer: Any) -> StagePools:
    """The pools of a stage of the toy, after what its buffer needs was made."""
    project.write("toy", buffer=buffer)
    graph = project.graph()
    context = RunContext(graph, project.home)
    for node in graph.of("toy"):
        if node.kind in kinds:
            materialise(node.key, context)
    node = graph.nodes[f"toy/trained_{stage:03d}"]
    assert isinstance(node, TrainedNode)
    return open_pools(
        node.chunk_keys[-1], node.chunk_keys[:-1], None, buffer=node.buffer, seed=node.seed,
        execution=node.execution, context=context, pixels=NEWEST,
    )  # fmt: skip


def test_no_capacity_in_mib_is_no_part_of_an_address_and_one_is(project: Any) -> None:
    for stage in (1, 2):
        assert digest(project, stage, "buffer.capacity_mib=null") == digest(project, stage)
    some = {digest(project, 2, f"buffer.capacity_mib={mib}") for mib in (1, 2)}
    assert len(some | {digest(project, 2)}) == 3


def test_a_buffer_in_mib_holds_the_images_whose_files_fit(project: Any) -> None:
    kinds = ("shards", "order", "chunk")
    five = opened(project, 3, kinds, capacity=5).kept
    files = [
        project.root / "images" / dataset / "train" / key
        for dataset, key in five.select("dataset", "key").rows()
    ]
    size = sum(file.stat().st_size for file in files)
    kept = opened(project, 3, kinds, capacity_mib=size / 2**20)
    assert kept.kept.equals(five)
    assert kept.pools["buffer"].size == 5
    fewer = opened(project, 3, kinds, capacity_mib=(size - 1) / 2**20)
    assert fewer.kept.equals(select(fewer.earlier, 4, "class_balanced", seed=0))
    both = opened(project, 3, kinds, capacity=2, capacity_mib=size / 2**20).kept
    assert both.equals(select(fewer.earlier, 2, "class_balanced", seed=0))

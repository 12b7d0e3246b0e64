"""The galleries that a stage is held against before it goes live: how far it is from what embedded
them.

What is measured of a gallery is the artifact that its drift is too, once the stage is live.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fomo_dagster.errors import InputError
from fomo_dagster.graph.core.node import Node
from fomo_dagster.graph.nodes.gallery_drift import DRIFT, GalleryDriftNode
from fomo_dagster.graph.nodes.release import NO_WEIGHTS
from fomo_dagster.parquet import read_parquet
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.roots import GALLERY

if TYPE_CHECKING:
    from fomo_dagster.evaluation.encoding import Encoder
    from fomo_dagster.experiment.backbone import Backbone
    from fomo_dagster.experiment.execution import Execution
    from fomo_dagster.graph.core.context import NodeContext
    from fomo_dagster.releases.gates import GalleryDrift

Versions = Mapping[str, str]
"""The key of a gallery → the data version of what it is; those that were never embedded are not in
it."""


@dataclass(frozen=True)
class HeldGalleries:
    """Those of a release name whose drift is measured. drifts: the key of a gallery → how."""

    drifts: Mapping[str, GalleryDriftNode]

    @classmethod
    def of(cls, release: str, nodes: Mapping[str, Node]) -> HeldGalleries:
        """Raises `InputError` where a gate is about galleries of a name that has none."""
        found = {
            node.gallery.key: node
            for node in nodes.values()
            if isinstance(node, GalleryDriftNode) and node.gallery.gallery.release == release
        }
        if not found:
            raise InputError(
                f"release.gates.galleries is about galleries of {release} with `drift`, and there "
                "is none: declare one that follows another alias than live, or leave the gate out"
            )
        return cls(found)

    def versions(self, context: NodeContext) -> dict[str, str]:
        """What the galleries are now."""
        heads = {key: context.heads.read(key) for key in self.drifts}
        return {key: head.data_version for key, head in heads.items() if head is not None}

    def recipes(self, versions: Versions, checkpoint: str) -> dict[str, Recipe]:
        """The key of a gallery → what is measured of it. checkpoint: the data version of what the
        stage deploys."""
        return {
            key: node.recipe_of(versions[key], checkpoint)
            for key, node in self.drifts.items()
            if key in versions
        }

    def measure(
        self, key: str, recipe: Recipe, backbone: Backbone, checkpoint_key: str,
        execution: Execution, folder: Path, context: NodeContext,
    ) -> Mapping[str, Any]:  # fmt: skip
        """Measure a gallery, into a folder. checkpoint_key: of what the stage deploys; execution:
        where it is measured. Raises `InputError` for a gallery that was cleaned meanwhile."""
        gallery = context.store.open(GALLERY, recipe.inputs["gallery"])
        node = replace(self.drifts[key], execution=execution)
        if gallery is None:
            raise InputError(f"{key} is no longer in the store: `fomo run {key}` embeds it again")

        def encoder() -> Encoder:
            return node.encoder(backbone, context.artifact(checkpoint_key), gallery, context)

        return node.measure(gallery, recipe.inputs["live"], encoder, folder, context)

    def found(
        self, digests: Mapping[str, str], checkpoint: str, context: NodeContext
    ) -> dict[str, GalleryDrift]:
        """What was measured, by digest; of those that nothing embedded yet, that."""
        from fomo_dagster.releases.gates import GalleryDrift

        found: dict[str, GalleryDrift] = {}
        for key in self.drifts:
            found[key] = GalleryDrift()
            if key in digests:
                artifact = context.store.open(GalleryDriftNode.kind, digests[key])
                assert artifact is not None  # made before
                gallery = context.store.open(
                    GALLERY, artifact.manifest["recipe"]["inputs"]["gallery"]
                )
                made_by = "" if gallery is None else gallery.manifest["recipe"]["inputs"]["weights"]
                if made_by == NO_WEIGHTS:  # made, and empty
                    continue
                found[key] = GalleryDrift(read_parquet(artifact.path(DRIFT)), made_by == checkpoint)
        return found

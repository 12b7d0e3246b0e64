"""The code versions of nodes: each of what its declaration is, and of what it is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fomo_dagster.graph.core.node import Node
from fomo_dagster.store.digests import digest_of


class CodeVersions(Mapping[str, str]):
    """Node → its code version, worked out when it is first asked for: a plan asks for those of one
    experiment, of hundreds.

    nodes: each after those that it needs; what comes later is no part of a version.
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._places = {key: place for place, key in enumerate(nodes)}
        self._known: dict[str, str] = {}

    def __getitem__(self, key: str) -> str:
        if key not in self._known:
            unknown = self._unknown(key)
            for one in sorted(unknown, key=self._places.__getitem__):
                self._known[one] = self._version(self._nodes[one], unknown[one])
        return self._known[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def _unknown(self, key: str) -> dict[str, list[str]]:
        """A node, and what it is made from, as far as their versions are not known → the nodes
        among the inputs of each."""
        found: dict[str, list[str]] = {}
        left, nowhere = [key], len(self._places)
        while left:
            one = left.pop()
            if one not in found and one not in self._known:
                place = self._places[one]
                inputs = self._nodes[one].inputs
                found[one] = [i for i in inputs if self._places.get(i, nowhere) < place]
                left += found[one]
        return found

    def _version(self, node: Node, before: list[str]) -> str:
        upstream = {one: self._known[one] for one in before}
        return digest_of(
            {"kind": node.kind, "version": node.version, "declared": node.declared,
             "upstream": upstream}
        )  # fmt: skip

"""A code version is that of a declaration and of all that it is made from, asked for or not."""

from dataclasses import dataclass

import pytest

from fomo_dagster.graph.build.code_versions import CodeVersions
from fomo_dagster.store.digests import digest_of


@dataclass
class Node:
    declared: dict
    inputs: tuple[str, ...] = ()
    kind: str = "trained"
    version: int = 1


def chain(length, first):
    nodes = {"0": Node({"seed": first})}
    for number in range(1, length):
        nodes[str(number)] = Node({"number": number}, (str(number - 1), "nowhere"))
    return nodes


def test_versions_follow_a_chain_of_any_length_and_no_input_that_comes_later():
    nodes = chain(3000, first=0)  # more than Python's frames
    nodes["0"].inputs = ("2999",)
    versions = CodeVersions(nodes)
    expected, upstream = {}, {}
    for key, node in nodes.items():
        fields = {"kind": "trained", "version": 1, "declared": node.declared}
        expected[key] = digest_of({**fields, "upstream": upstream})
        upstream = {key: expected[key]}
    assert versions["2999"] == expected["2999"]
    assert dict(versions) == expected
    assert CodeVersions(chain(3000, first=1))["2999"] != expected["2999"]


def test_a_version_is_worked_out_without_those_that_nobody_asks_for():
    nodes = chain(2, first=0) | {"other": Node({"bad": {1}})}
    versions = CodeVersions(nodes)
    assert len(versions) == 3
    assert versions["1"] != versions["0"]
    with pytest.raises(TypeError, match="cannot be part of an identity"):
        versions["other"]
    with pytest.raises(KeyError):
        versions["nowhere"]

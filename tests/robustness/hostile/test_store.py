"""Shared stores that cannot be used, or hold what nobody made: said before anything is computed."""

import os

import pytest

pytestmark = pytest.mark.slow


def shares(url):
    return lambda project: os.environ.update(FOMO_STORE=url.format(root=project.root))


def holds(name, data):
    """The remote has this object where an artifact's manifest would be."""

    def change(project):
        graph = project.graph()
        recipe = next(iter(graph.nodes["shards/old"].recipes(looks(project, graph)).values()))
        path = project.root / "shared" / "shards" / recipe.digest / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        shares("file://{root}/shared")(project)

    return change


def looks(project, graph):
    from fomo_dagster.graph.run.run_context import RunContext

    return {"sources/old": RunContext(graph, project.home).facts("sources/old")}


CASES = {
    "a protocol that there is not": (
        shares("nosuch://bucket/x"), ["plan", "toy"], 2, ["nosuch://bucket/x", "Protocol not"],
    ),
    "a driver that is not installed": (
        shares("gs://bucket/x"), ["run", "toy"], 2, ["gs://bucket/x", "gcsfs", "must be installed"],
    ),
    "a password in what cannot be opened": (
        shares("nosuch://me:se/cr@t@bucket/x"), ["plan", "toy"], 2, ["nosuch://me:***@bucket/x"],
    ),
    "a colon alone": (shares("s3:bucket/x"), ["plan", "toy"], 2, ["is no URL", "s3://bucket/fol"]),
    "a file where its folder should be": (
        shares("file://{root}/experiments/toy.yaml/x"), ["run", "toy"], 1,
        ["toy.yaml/x cannot be read (", "correct FOMO_STORE; or leave"],
    ),
    "a manifest of garbage": (
        holds("manifest.json", b"\x00{"), ["plan", "toy"], 0,
        ["is damaged: its manifest cannot be read", "made again and replaced", "18 to compute"],
    ),
    "a manifest that leads out": (
        holds("manifest.json", b'{"recipe": {"kind": "../../x"}, "files": {"../../x": {}}}'),
        ["plan", "toy"], 0, ["is damaged: its manifest is that of '../../x'", "18 to compute"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_shared_store_that_cannot_be_used_is_said_first(ends, project, monkeypatch, case):
    monkeypatch.setenv("FOMO_STORE", "")
    output = ends(*CASES[case])
    assert "cr@t" not in output
    assert "  computed " not in output
    assert not project.artifacts()

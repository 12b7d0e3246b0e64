"""A run in pods, each of which is a process of this machine."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from fomo_dagster.cli.running import run_experiment

pytestmark = pytest.mark.slow


def contents(root):
    """The files of every artifact, by their checksums."""
    return {
        path.parent.name: json.loads(path.read_text())["files"]
        for path in root.glob(".fomo/store/[!.]*/*/manifest.json")
    }


def test_what_a_pod_makes_has_the_bits_of_one_process(
    finished_project, server, kubelet, tmp_path, monkeypatch
):
    root = finished_project.root
    monkeypatch.setenv("FOMO_PROJECT", str(root))
    manifest = yaml.safe_load((tmp_path / "pod.yaml").read_text())
    python = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    manifest["spec"]["containers"][0]["env"] = [
        {"name": "PATH", "value": python},
        {"name": "PYTHONPATH", "value": os.environ.get("PYTHONPATH", "")},
    ]
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(manifest))
    before = contents(root)
    last = max(root.glob(".fomo/store/evaluation/*"), key=lambda path: path.stat().st_mtime)
    shutil.rmtree(last)
    run_experiment("toy", [])
    assert contents(root) == before
    assert last.name in before
    (pod,) = server.created
    assert pod["metadata"]["annotations"]["fomo/asset"].startswith("toy/evaluation_00")
    assert not server.pods
    assert not list(root.glob(".fomo/launches/*"))

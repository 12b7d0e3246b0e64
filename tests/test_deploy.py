"""The shipped deployment files are well formed, and the Slurm script runs what it says."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config_schema

from fomo_dagster.experiment.schema import Execution

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
SCRIPT = DEPLOY / "slurm" / "run.sbatch"


def command(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_slurm_script_runs_the_experiment_on_all_machines(tmp_path, nodes):
    command(tmp_path, "fomo", f'printf "%s\\n" "$@" > {tmp_path}/asked; exit 7')
    command(tmp_path, "scontrol", "echo node01; echo node02")
    slurm = {
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_JOB_ID": "123",
        "SLURM_JOB_NODELIST": "node[01-02]",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    done = subprocess.run(["bash", SCRIPT, "quickstart"], env=slurm, timeout=20)
    assert done.returncode == 7
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[:2] == ["run", "quickstart"]
    execution: dict = {}
    for setting in asked[3::2]:
        key, _, value = setting.removeprefix("execution.").partition("=")
        *parents, last = key.split(".")
        inner = execution
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = yaml.safe_load(value)
    declared = Execution.model_validate(execution)
    assert declared.all_processes == 8 * nodes
    if nodes == 2:
        assert declared.machines.rendezvous == "node01:20123"
        assert declared.machines.start[0] == "srun"


def test_the_instance_is_as_dagster_wants_it():
    instance = yaml.safe_load((DEPLOY / "kubernetes" / "dagster.yaml").read_text())
    assert instance.keys() <= dagster_instance_config_schema().keys()
    assert instance["run_launcher"]["class"] == "K8sRunLauncher"


def test_the_chart_s_values_load_the_definitions():
    values = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"] == ["--module-name", "fomo_dagster.definitions"]

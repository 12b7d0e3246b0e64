"""The shipped deployment files load as they are, and the Slurm script runs what it says.

The packages of a cluster are imported in the tests that need them: all of this file is slow, and
the fast tests are not to wait for what they never use.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.test_utils import create_run_for_test

from fomo_dagster.experiment.execution import Execution

pytestmark = pytest.mark.slow

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
        "FOMO_INTERFACE": "ib0",
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
        assert declared.machines.interface == "ib0"


@pytest.mark.parametrize(("nodes", "status"), [("1", 0), ("2", 2)])
def test_a_job_with_an_executor_leaves_the_devices_of_its_one_node_to_it(tmp_path, nodes, status):
    command(tmp_path, "fomo", f'printf "%s\\n" "$@" > {tmp_path}/asked')
    slurm = {
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_GPUS_ON_NODE": "8",
        "FOMO_EXECUTOR": "processes",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    done = subprocess.run(["bash", SCRIPT, "a_sweep"], env=slurm, timeout=20, capture_output=True)
    assert done.returncode == status
    if nodes == "1":
        assert (tmp_path / "asked").read_text() == "run\na_sweep\n"
    else:
        assert not (tmp_path / "asked").exists()
        assert b"submit it with --nodes=1" in done.stdout


def test_a_job_with_ray_starts_it_on_its_nodes_and_waits_for_all_of_them(tmp_path):
    command(tmp_path, "scontrol", "echo node01; echo node02")
    command(tmp_path, "getent", "echo 10.0.0.$SLURM_NODEID host")
    command(
        tmp_path,
        "srun",
        f"""shift 2; echo $SRUN_CPUS_PER_TASK > {tmp_path}/cores
for SLURM_NODEID in 0 1; do export SLURM_NODEID SLURMD_NODENAME=node; "$@" & done
wait""",
    )
    (tmp_path / "started").touch()
    command(
        tmp_path,
        "ray",
        f"""case "$1" in
  start) echo "$@" >> {tmp_path}/started; exec sleep 20 ;;
  status) echo asked >> {tmp_path}/status
    echo " 1 node_a"
    [ $(wc -l < {tmp_path}/status) -lt 3 ] || [ $(wc -l < {tmp_path}/started) -lt 2 ] ||
      echo " 1 node_b" ;;
esac""",
    )
    command(tmp_path, "fomo", f'printf "%s\\n" "$@" $RAY_ADDRESS > {tmp_path}/asked')
    command(tmp_path, "sleep", "exec /bin/sleep $(($1 > 1 ? $1 : 0))")
    slurm = {
        "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[01-02]", "SLURM_JOB_ID": "123",
        "SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_ON_NODE": "32", "FOMO_EXECUTOR": "ray",
        "SLURM_CPUS_PER_TASK": "32",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }  # fmt: skip
    run = ["bash", str(SCRIPT), "a_sweep"]
    job = subprocess.Popen(run, env=slurm, cwd=tmp_path, start_new_session=True)
    try:
        assert job.wait(20) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)  # as Slurm ends what a job leaves
    assert (tmp_path / "asked").read_text() == "run\na_sweep\nnode01:20123\n"
    assert (tmp_path / "cores").read_text() == "32\n"
    assert len((tmp_path / "status").read_text().splitlines()) >= 3
    resources = "--num-cpus=32 --num-gpus=8 --disable-usage-stats --block"
    head, other = sorted((tmp_path / "started").read_text().splitlines(), key=len)
    assert head == f"start --head --port=20123 --node-ip-address=10.0.0.0 {resources}"
    assert other == f"start --address=node01:20123 --node-ip-address=10.0.0.1 {resources}"


LIMIT, CANCEL = signal.SIGUSR1, signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "fomo_ends_with", "restarts", "requeue", "status"),
    [
        pytest.param(LIMIT, 143, 3, 0, 0, id="stopped at the time limit"),
        pytest.param(LIMIT, 143, 3, 1, 143, id="which Slurm does not queue again"),
        pytest.param(LIMIT, 143, 100, None, 143, id="for the hundredth time"),
        pytest.param(LIMIT, 0, 3, None, 0, id="finished meanwhile"),
        pytest.param(LIMIT, 1, 3, None, 1, id="failed meanwhile"),
        pytest.param(CANCEL, 143, 3, None, 143, id="cancelled"),
        pytest.param(None, 1, 0, None, 1, id="failed"),
    ],
)
def test_a_job_is_queued_again_where_it_was_stopped_by_its_time_limit_alone(
    tmp_path, number, fomo_ends_with, restarts, requeue, status
):
    """requeue: the exit status of `scontrol requeue`; None: it is not asked for."""
    begun = tmp_path / "begun"
    waits = "while true; do sleep 0.02; done" if number else "true"
    ends = f"trap 'exit {fomo_ends_with}' TERM; touch {begun}; {waits}; exit {fomo_ends_with}"
    command(tmp_path, "fomo", ends)
    command(tmp_path, "scontrol", f'echo "$@" >> {tmp_path}/asked; exit {requeue}')
    slurm = {
        "SLURM_JOB_ID": "123",
        "SLURM_RESTART_COUNT": str(restarts),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    job = subprocess.Popen(["bash", SCRIPT, "quickstart"], env=slurm, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not begun.exists() and time.monotonic() < until:
        time.sleep(0.01)
    if number:
        job.send_signal(number)
    assert job.wait(20) == status
    asked = tmp_path / "asked"
    assert asked.exists() is (requeue is not None)
    if requeue is not None:
        assert asked.read_text() == "requeue 123\n"


PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # Debian's packages
GRACE = 300


@contextlib.contextmanager
def server(port):
    """PostgreSQL on loopback. It refuses to run as root, and then runs as nobody."""
    user = {"user": "nobody"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # which nobody can come to, as pytest's is not
    if user:
        shutil.chown(folder, "nobody")
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **user}
    run = [PROGRAMS[0] / "initdb", "-D", folder / "db", "-U", "dagster", "-A", "trust"]
    subprocess.run([*run, "--no-sync", "-E", "UTF8", "--locale=C"], check=True, **quiet)
    serve = [PROGRAMS[0] / "postgres", "-D", folder / "db", "-k", folder, "-F"]
    process = subprocess.Popen([*serve, "-h", "127.0.0.1", "-p", str(port)], **quiet)
    try:
        is_ready = [PROGRAMS[0] / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        until = time.monotonic() + 30
        while subprocess.run(is_ready).returncode and time.monotonic() < until:
            assert process.poll() is None
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def in_a_cluster(monkeypatch):
    """The environment of a pod; gives the jobs that are asked for, which no cluster gets."""
    from kubernetes import client, config

    monkeypatch.setattr(config, "load_incluster_config", lambda *_, **__: None)
    for name, value in {
        "DAGSTER_PG_HOST": "127.0.0.1", "DAGSTER_PG_USERNAME": "dagster",
        "DAGSTER_PG_PASSWORD": "secret", "DAGSTER_PG_DB": "postgres",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    asked: list = []
    monkeypatch.setattr(
        client.BatchV1Api,
        "create_namespaced_job",
        lambda self, body, namespace, **_: asked.append(
            client.ApiClient().sanitize_for_serialization(body) | {"namespace": namespace}
        ),
    )
    return asked


def check_pod(pod):
    """That a run has its volumes and the time to write a resume point, and its pods their devices
    too."""
    (container,) = pod["containers"]
    assert container["resources"] == {"requests": {"cpu": "1", "memory": "4Gi"}}
    assert pod["terminationGracePeriodSeconds"] == GRACE
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["fomo-home"] == "/fomo"
    assert mounts["memory"] == "/dev/shm"
    assert mounts.keys() <= {volume["name"] for volume in pod["volumes"]}
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert (env["FOMO_HOME"], env["FOMO_PROJECT"]) == ("/fomo/home", "/fomo/project")
    assert env["FOMO_EXECUTOR"] == "kubernetes"
    check_worker(pod, container)
    return env


def check_worker(pod, container):
    """That what a run starts is like it, but for what it does and needs."""
    from fomo_dagster.graph.run.pods import Room, Template

    labels = {"dagster/run-id": "1", "job-name": "its own"}
    template = Template.of_pod({"metadata": {"name": "run", "labels": labels}, "spec": pod})
    home = Path("/fomo/home")
    template.check_sees(home)
    worker = template.pod("worker", Room(8, 16), home, ["python", "-m", "work"], {"FOMO_TASK": "1"})
    assert "job-name" not in worker["metadata"]["labels"]
    assert worker["spec"]["terminationGracePeriodSeconds"] == GRACE
    assert worker["spec"]["serviceAccountName"] == pod["serviceAccountName"]
    assert worker["spec"]["volumes"] == pod["volumes"]
    (works,) = worker["spec"]["containers"]
    assert works["args"] == ["python", "-m", "work"]
    assert works["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    for same in ("image", "volumeMounts"):
        assert works[same] == container[same]
    assert works["env"] == [*container["env"], {"name": "FOMO_TASK", "value": "1"}]


def test_the_image_holds_what_the_package_is_built_of():
    """What the Dockerfile copies is there, and is what the build configuration names."""
    copied = re.findall(
        r"^COPY (.*) \S+$", (DEPLOY / "kubernetes" / "Dockerfile").read_text(), re.M
    )
    paths = {path for line in copied for path in line.split()}
    assert all((DEPLOY.parent / path).exists() for path in paths)
    built = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    wheel = built["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert {*wheel, built["project"]["readme"], *built["project"]["license-files"]} <= paths


def test_the_claim_for_the_home_is_the_one_that_all_pods_mount():
    claim = yaml.safe_load((DEPLOY / "kubernetes" / "storage.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("values.yaml", "dagster.yaml"):
        mounted = re.findall(r"claimName: ([\w-]+)", (DEPLOY / "kubernetes" / name).read_text())
        assert set(mounted) == {claim["metadata"]["name"]}


def code_origin():
    pointer = ModuleCodePointer("fomo_dagster.definitions", "defs")
    return JobPythonOrigin("toy", RepositoryPythonOrigin(sys.executable, pointer))


@pytest.mark.skipif(not PROGRAMS, reason="Debian's package postgresql is not installed")
def test_the_instance_loads_and_keeps_its_runs_in_postgresql(tmp_path, in_a_cluster):
    from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage

    declared = yaml.safe_load((DEPLOY / "kubernetes" / "dagster.yaml").read_text())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    declared["storage"]["postgres"]["postgres_db"]["port"] = port
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(declared))
    with server(port):
        with DagsterInstance.from_config(str(tmp_path)) as instance:
            assert isinstance(instance.run_storage, PostgresRunStorage)
            assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
            assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
            concurrency = instance.get_concurrency_config()
            assert concurrency.run_queue_config.max_concurrent_runs == 4
            assert instance.run_monitoring_enabled
            assert instance.run_monitoring_cancel_timeout_seconds > GRACE
            assert instance.run_retries_enabled
            assert not instance.run_retries_retry_on_asset_or_op_failure
            run = create_run_for_test(instance, "toy", job_code_origin=code_origin())
            instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        with DagsterInstance.from_config(str(tmp_path)) as again:
            assert [one.run_id for one in again.get_runs()] == [run.run_id]
    (job,) = in_a_cluster
    assert job["namespace"] == "dagster"
    env = check_pod(job["spec"]["template"]["spec"])
    # The run takes the file along in its arguments; what that names is taken from the pod.
    named = set(re.findall(r"env: (\w+)", (DEPLOY / "kubernetes" / "dagster.yaml").read_text()))
    assert named <= env.keys()


def snake(name):
    return re.sub("(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def test_the_chart_s_values_are_a_launcher_of_the_same_pods(tmp_path, in_a_cluster):
    """The chart hands these values to the launcher, in its own spelling."""
    from dagster_k8s import K8sRunLauncher

    values = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
    launcher = values["runLauncher"]
    assert launcher["type"] == "K8sRunLauncher"
    given = {snake(key): value for key, value in launcher["config"]["k8sRunLauncher"].items()}
    given["run_k8s_config"] = {snake(key): value for key, value in given["run_k8s_config"].items()}
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        made = K8sRunLauncher(
            service_account_name="dagster", instance_config_map="dagster-instance",
            dagster_home="/opt/dagster/dagster_home", job_image="image", **given,
        )  # fmt: skip
        made.register_instance(instance)
        run = create_run_for_test(instance, "toy", job_code_origin=code_origin())
        made.launch_run(LaunchRunContext(run, workspace=None))
    (job,) = in_a_cluster
    check_pod(job["spec"]["template"]["spec"])
    assert values["dagsterDaemon"]["runMonitoring"]["enabled"]


def test_the_chart_s_values_load_the_definitions():
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
    from kubernetes import client

    values = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"] == ["--module-name", "fomo_dagster.definitions"]
    for kind, key in (
        (client.V1Volume, "volumes"),
        (client.V1VolumeMount, "volumeMounts"),
        (client.V1EnvVar, "env"),
    ):
        for one in deployment[key]:  # raises on keys that Kubernetes does not know
            k8s_model_from_dict(kind, k8s_snake_case_dict(kind, one))

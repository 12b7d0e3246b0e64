"""Two machines, a home each and one S3 server, run an experiment at once; one is killed or stopped.

    python benchmarks/two_machines.py [--tries 50] [--seed 0] [--lease-seconds 4]

In each try one of them gets SIGKILL at a random moment, or SIGSTOP until the other has finished.
Then both run again. Afterwards all of both homes and of the server is compared with what one
machine makes alone, and no artifact that is claimed may have been published twice, unless a signal
came when it was made and not yet on the server. The machines are processes that tell each other
apart as hosts do: by a name and a kernel of their own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

UNCLAIMED = {"chunk", "order", "pool", "scores", "leaderboard", "text_embeddings"}
WITHIN = {"text_embeddings"}  # made as part of another artifact; who fetches that has none
LONGEST = 300.0  # seconds for a run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lease-seconds", type=float, default=4.0)
    options = parser.parse_args()
    preload()
    chosen = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="two_machines_"))
    server = serve(folder)
    os.environ["FOMO_LEASE_SECONDS"] = str(options.lease_seconds)
    try:
        project = toy(folder)
        began = time.monotonic()
        alone = Machine(folder / "alone" / "a", project, "alone")
        alone.run()
        usual = time.monotonic() - began
        expected = contents(alone.home)
        print(f"alone: {len(expected)} artifacts in {usual:.1f} s", flush=True)
        outcomes: Counter[str] = Counter()
        for number in range(options.tries):
            try:
                said, took = attempt(folder / str(number), project, expected, chosen, usual)
                usual = (usual + took) / 2
            except AssertionError as failure:
                said = f"FAILED: {failure}"
            outcomes[said.split(":")[0]] += 1
            print(f"{number + 1:3d}  {said}", flush=True)
            shutil.rmtree(folder / str(number))
        print(dict(outcomes))
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        shutil.rmtree(folder, ignore_errors=True)


def attempt(
    folder: Path, project: Path, expected: dict[str, Any], chosen: random.Random, most: float
) -> tuple[str, float]:
    """One try, with a signal within `most` seconds; what happened, and the time of the first run.
    Raises `AssertionError` if anything was lost."""
    bucket = f"try{folder.name}"
    a, b = (Machine(folder / name, project, bucket) for name in "ab")
    victim, other = chosen.sample((a, b), 2)
    number, moment = chosen.choice((signal.SIGKILL, signal.SIGSTOP)), chosen.uniform(0, most)
    began = time.monotonic()
    a.start()
    b.start()
    time.sleep(moment)
    hit, at = victim.send(number), time.time()
    other.wait()
    took = time.monotonic() - began
    if number == signal.SIGSTOP:
        victim.send(signal.SIGCONT)
        victim.wait()
    else:
        victim.wait(may_be_killed=True)
    for machine in (a, b):
        machine.run()
    for machine in (a, b):
        found = contents(machine.home)
        missing = {one for one in expected if one.split("/")[0] not in WITHIN} - found.keys()
        assert not missing, missing
        assert found == {one: expected[one] for one in found}, difference(found, expected)
    remote = contents_of_bucket(bucket)
    assert remote == expected, difference(remote, expected)
    twice = a.times("published").keys() & b.times("published").keys()
    costly = [one for one in twice if one.split("/")[0] not in UNCLAIMED]
    for one in costly:  # the signal came when it was made, and not yet on the server
        made, pushed = victim.times("made")[one], victim.times("pushed").get(one, at)
        is_unfinished = hit and made < at <= pushed
        assert is_unfinished, (
            f"{name_of(number)} of {victim.name} at {at}: {one} is made twice; "
            + "; ".join(
                f"{m.name} {what} {m.times(what).get(one)}"
                for m in (a, b)
                for what in ("made", "published", "pushed")
            )
        )
    took_over = sum("stood still" in machine.output() for machine in (a, b))
    name = (
        f"{name_of(number)} of {victim.name} after {moment:.1f} s"
        if hit
        else "over before a signal"
    )
    what = f"{name}, {len(costly)} costly twice, {took_over} robbed, {took:.1f} s"
    return f"{name.split(' ')[0]}: {what}", took


def name_of(number: int) -> str:
    """The name of a signal."""
    return signal.Signals(number).name


class Machine:
    """A home, and a process that computes in it."""

    def __init__(self, folder: Path, project: Path, bucket: str) -> None:
        self.name, self.home, self.project, self.bucket = folder.name, folder, project, bucket
        folder.mkdir(parents=True)
        self.process = 0

    def start(self) -> None:
        """Begin a run."""
        import boto3

        client = boto3.client("s3")
        if self.bucket not in [one["Name"] for one in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=self.bucket)
        self.process = os.fork()
        if self.process == 0:
            be(self.name, self.home, self.project, self.bucket)

    def send(self, number: int) -> bool:
        """Send a signal; whether it still ran."""
        if not self.process or os.waitpid(self.process, os.WNOHANG) != (0, 0):
            self.process = 0
            return False
        os.kill(self.process, number)
        return True

    def wait(self, *, may_be_killed: bool = False) -> None:
        """Until it has ended, well."""
        until = time.monotonic() + LONGEST
        while self.process:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.process = 0
                assert status == 0 or may_be_killed, self.output()[-3000:]
            elif time.monotonic() > until:
                os.kill(self.process, signal.SIGKILL)
                raise AssertionError(f"{self.name} does not end: {self.output()[-3000:]}")
            else:
                time.sleep(0.02)

    def run(self) -> None:
        """Run to the end."""
        self.start()
        self.wait()

    def output(self) -> str:
        """What it wrote in all of its runs."""
        return (self.home / "output.txt").read_text(errors="replace")

    def times(self, what: str) -> dict[str, float]:
        """`kind/digest` of what it made, published or pushed → when first."""
        path, found = self.home / what, dict[str, float]()
        for line in path.read_text().splitlines() if path.exists() else ():
            one, when = line.split()
            found.setdefault(one, float(when))
        return found


def be(name: str, home: Path, project: Path, bucket: str) -> None:
    """What a machine's process does; it does not return."""
    from fomo_dagster.cli.main import main as fomo
    from fomo_dagster.graph.work import stage
    from fomo_dagster.store import owners
    from fomo_dagster.store.artifacts import Store

    os.setsid()
    output = os.open(home / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.environ.update(
        FOMO_HOME=str(home), FOMO_PROJECT=str(project), FOMO_STORE=f"s3://{bucket}/store"
    )
    publish, push, kernel = Store._publish, Store._push_if_pending, owners._kernel()
    owners._kernel = lambda: f"{kernel} {name}"  # type: ignore[assignment]
    socket.gethostname = lambda: name  # type: ignore[assignment]
    stage.training_flops = lambda *_: {}  # type: ignore[assignment]

    def published(self: Store, staging: Path, recipe: Any, cost: Any) -> None:
        note("made", recipe)
        publish(self, staging, recipe, cost)
        note("published", recipe)

    def pushed(self: Store, artifact: Any) -> None:
        push(self, artifact)
        note("pushed", artifact)

    def note(what: str, one: Any) -> None:
        with (home / what).open("a") as file:
            file.write(f"{one.kind}/{one.digest} {time.time()}\n")

    Store._publish = published  # type: ignore[method-assign]
    Store._push_if_pending = pushed  # type: ignore[method-assign]
    status: object = 1
    try:
        sys.argv = ["fomo", "run", "toy"]
        status = fomo()
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1 if status else 0)


def contents(home: Path) -> dict[str, Any]:
    """The files of each artifact of a home, with their checksums."""
    found = {}
    for path in (home / "store").glob("[!.]*/*/manifest.json"):
        found[f"{path.parent.parent.name}/{path.parent.name}"] = json.loads(path.read_text())
    left = [*(home / "store" / ".staging").glob("*"), *(home / "resume").glob("*")]
    # What is made within others is not asked for again: the next cleaning takes what was begun.
    left = [path for path in left if not any(kind in path.name for kind in WITHIN)]
    assert not left, left
    return found


def contents_of_bucket(bucket: str) -> dict[str, Any]:
    """As `contents`, of what the server has."""
    import boto3

    client, found = boto3.client("s3"), {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", ()):
            assert not entry["Key"].startswith("store/.resume"), entry["Key"]
            address, _, name = entry["Key"].removeprefix("store/").rpartition("/")
            if name == "manifest.json":
                data = client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
                found[address] = json.loads(data)
    return found


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """What differs."""
    return ", ".join(one for one in {*found, *expected} if found.get(one) != expected.get(one))


def serve(folder: Path) -> int:
    """The process of an S3 server on loopback, whose address is in the environment."""
    address = folder / "address"
    process = os.fork()
    if process == 0:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        address.with_suffix(".new").write_text("http://{}:{}".format(*server.get_host_and_port()))
        address.with_suffix(".new").rename(address)
        signal.pause()
    while not address.exists():
        time.sleep(0.05)
    os.environ.update(
        AWS_ENDPOINT_URL=address.read_text(), AWS_ACCESS_KEY_ID="someone", AWS_REGION="us-east-1",
        AWS_SECRET_ACCESS_KEY="secret", AWS_EC2_METADATA_DISABLED="true",
        AWS_DEFAULT_REGION="us-east-1",
    )  # fmt: skip
    return process


def toy(folder: Path) -> Path:
    """The tests' project, of three stages that each keep a resume point after every step."""
    path = Path(__file__).parents[1] / "tests" / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    project = module.Project(folder / "project")
    project.set_up()
    execution = {"device": "cpu", "resume_seconds": 1e-9, "resume_remote": True}
    project.write("toy", budget={"steps": 4}, execution=execution)
    return Path(project.root)


def preload() -> None:
    """Import what takes long once, for all processes."""
    import open_clip  # noqa: F401
    import torch

    import fomo_dagster.cli.main
    import fomo_dagster.cli.running
    import fomo_dagster.evaluation.evaluate
    import fomo_dagster.graph.work.stage
    import fomo_dagster.plots.scores
    import fomo_dagster.tables.views  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    main()

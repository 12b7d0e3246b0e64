"""Kill whatever computes, at random moments, and look at what is left.

    python benchmarks/kills.py [--tries 50] [--by processes ray] [--seed 0]

Each try begins a sweep of two experiments in an empty place, kills a worker, the command, or what
Ray runs on one of two nodes, and runs the sweep again until it is up to date. Then the artifacts
must be those of a run that nobody killed, and nothing may have been computed twice that the first
run had finished. For `ray` it starts a cluster of two nodes itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

FOMO, RAY = (str(Path(sys.executable).with_name(name)) for name in ("fomo", "ray"))
LEADERBOARD = "leaderboard"
MOST_RUNS = 4
EXPERIMENT = {
    "extends": "quickstart",
    "backbone": {"pretraining": {"budget": {"samples": 640}}},
    "stream": {"stages": 2},
    "budget": {"samples": 1280},
    "evaluation": {"adaptation": ["digits"], "held_out": ["shapes"]},
    "execution": {"resume_seconds": 0.3},
}


class Home:
    """A home of the sweep's, and what runs on it."""

    def __init__(self, project: Path, root: Path, executor: str) -> None:
        self._project, self.root, self._executor = project, root, executor

    def start(self, name: str = "sweep") -> subprocess.Popen[str]:
        """Begin `fomo run`."""
        environment = {
            **os.environ, "FOMO_HOME": str(self.root), "FOMO_EXECUTOR": self._executor,
            "FOMO_DEVICES": "cpu:2", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return subprocess.Popen(
            [FOMO, "run", name], env=environment, cwd=self._project, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def contents(self) -> Mapping[str, Any]:
        """The checksums of the files of every artifact but leaderboards: there is one for each set
        of experiments that ended."""
        return {
            path.parent.name: json.loads(path.read_text())["files"]
            for path in self.root.glob("store/[!.]*/*/manifest.json")
            if path.parents[1].name != LEADERBOARD
        }

    def workers(self) -> list[psutil.Process]:
        """The processes that compute something."""
        found = []
        launched: list[Path] = []
        with suppress(OSError):  # where a folder goes as it is listed
            launched = list(self.root.glob("launches/*/process_*"))
        for path in launched:
            with suppress(OSError, ValueError, psutil.NoSuchProcess):
                found.append(psutil.Process(json.loads(path.read_text())["process"]))
        return found


def computed(output: str) -> list[str]:
    """The assets that a run says it computed."""
    lines = (line.split() for line in output.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "computed"]


class Cluster:
    """Two nodes of Ray with a CPU each."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        os.environ |= {
            "RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled",
            "RAY_worker_niceness": "0",  # as of a machine that is there for this alone
        }  # fmt: skip
        port = self.address.partition(":")[2]
        self._head = self._start("--head", f"--port={port}", "--include-dashboard=false")
        time.sleep(5)
        self.second = self._start(f"--address={self.address}")

    def _start(self, *arguments: str) -> psutil.Popen:
        command = [RAY, "start", *arguments, "--num-cpus=1", "--block", "--disable-usage-stats"]
        return psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill_second(self) -> None:
        """Kill a node with all that it runs, and have another take its place."""
        kill_family(self.second)
        self.second = self._start(f"--address={self.address}")

    def end(self) -> None:
        """End both."""
        kill_family(self.second)
        kill_family(self._head)


def kill_family(process: psutil.Process) -> None:
    """Kill a process and all that it started."""
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    with suppress(psutil.NoSuchProcess):
        process.wait()


@contextmanager
def prepared(project: Path) -> Iterator[None]:
    """The experiments, and a home `made` with shards and θ₀."""
    experiments = project / "experiments"
    experiments.mkdir()
    (experiments / "one.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"budget": {"samples": 128}}))
    (experiments / "sweep.yaml").write_text(
        yaml.safe_dump(EXPERIMENT | {"sweep": {"seed": [0, 1]}})
    )
    finished(Home(project, project / "made", "in_process").start("one"))
    yield


def finished(process: subprocess.Popen[str]) -> str:
    """The output of a run that must succeed."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(output)
    return output


def attempt(
    home: Home, target: str, after: float, cluster: Cluster | None
) -> tuple[int, list[str], bool]:
    """Kill a target so many seconds after the first worker was there, and run again until all is
    up to date: how many runs that took, all that was computed, and whether there was a target."""
    process = home.start()
    while process.poll() is None and not home.workers():
        time.sleep(0.02)
    time.sleep(after)
    hit = process.poll() is None
    if target == "node" and cluster is not None:
        cluster.kill_second()
    elif target == "command":
        process.kill()
    elif workers := home.workers():
        with suppress(psutil.NoSuchProcess):
            random.choice(workers).send_signal(signal.SIGKILL)
    else:
        hit = False
    output, _ = process.communicate()
    outputs, status = [output], process.returncode
    while status and len(outputs) < MOST_RUNS:
        process = home.start()
        output, _ = process.communicate()
        outputs.append(output)
        status = process.returncode
    if status:
        raise SystemExit("\n".join(outputs))
    return len(outputs), [asset for one in outputs for asset in computed(one)], hit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--by", nargs="+", default=["processes", "ray"])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, prepared(project := Path(folder)):
        alone = Home(project, project / "alone", "in_process")
        shutil.copytree(project / "made", alone.root)
        began = time.monotonic()
        finished(alone.start())
        longest, expected = time.monotonic() - began, alone.contents()
        cluster = Cluster() if "ray" in arguments.by else None
        try:
            for number in range(arguments.tries):
                executor = arguments.by[number % len(arguments.by)]
                targets = ["worker", "command"] + ["node"] * (executor == "ray")
                target, after = random.choice(targets), random.uniform(0, longest / 2)
                home = Home(project, project / f"try_{number}", executor)
                shutil.copytree(project / "made", home.root)
                runs, made, hit = attempt(home, target, after, cluster)
                counts = Counter(asset for asset in made if asset != LEADERBOARD)
                twice = [asset for asset, times in counts.items() if times > 1]
                lost = home.contents() != expected
                left = list(home.root.glob("launches/*")) + list(home.root.glob("resume/*"))
                seen["other bits"] += lost
                seen["computed twice"] += bool(twice)
                seen["left behind"] += bool(left)
                seen[f"{executor} {target}" if hit else "over before"] += 1
                print(
                    f"{number + 1}: {executor}, {target} after {after:.1f} s, {runs} runs"
                    + ", over before" * (not hit)
                    + f", OTHER BITS in {home.root}" * lost
                    + f", twice: {twice}" * bool(twice)
                    + f", left: {[path.name for path in left]}" * bool(left),
                    flush=True,
                )
                shutil.rmtree(home.root)
        finally:
            if cluster is not None:
                cluster.end()
    print(dict(seen))


if __name__ == "__main__":
    main()

"""Promotions and rollbacks by several processes at once, some of them killed: is there ever half of
one?

    python benchmarks/promotions.py [--tries 50] [--users 3] [--shared]

Each user promotes and rolls back as fast as it can; after a random time one is killed with SIGKILL.
Then every record must be whole, each must follow from the one before, and the next promotion must
work. `--shared`: each user has a home of its own, and they share a store.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import tempfile
import time
from itertools import count
from pathlib import Path

from fomo_dagster.errors import InputError
from fomo_dagster.home import Home
from fomo_dagster.releases.promoting import promote, roll_back
from fomo_dagster.releases.records import Candidate, History, ReleaseLog
from fomo_dagster.releases.verdicts import Verdict
from fomo_dagster.store.recipes import Recipe

NAME = "search"
PASSED = Verdict("knowledge", True, "not below what is live", "fine")


def candidate(home: Home, number: int) -> Candidate:
    """One whose weights are in the store."""
    recipe = Recipe("trained", 1, {"number": number})
    artifact = home.store.get_or_make(recipe, lambda folder: (folder / "weights").touch())
    return Candidate(
        experiment="daily", stage=number % 1000, checkpoint=artifact.digest,
        weights=(artifact.kind, artifact.digest), backbone={"name": "toy"}, evaluations={},
        scores={}, lineage={f"asset {place}": artifact.digest for place in range(200)},
    )  # fmt: skip


def user(home: Home, seed: int) -> None:
    """Promotes and rolls back for ever."""
    log, chance = ReleaseLog(home, NAME), random.Random(seed)
    for number in count(1000 * seed):
        with contextlib.suppress(InputError):  # another was first
            if chance.random() < 0.5:
                live = log.read().live
                promote(log, candidate(home, number), [PASSED], live, "manual")
            else:
                roll_back(log)


def check(history: History) -> None:
    """Raises if the records do not follow from each other."""
    live, released = None, set[int]()
    for place, record in enumerate(history.records, 1):
        assert record.entry == place, record
        if record.kind == "release":
            assert record.reference == live, record
            assert record.release == len(released) + 1, record
            released.add(record.release)
        else:
            assert record.release in released, record
            assert record.release != live, record
        live = record.live
        assert live == record.release, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--users", type=int, default=3)
    parser.add_argument("--shared", action="store_true")
    arguments = parser.parse_args()
    chance, forked = random.Random(0), multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        url = f"file://{folder}/store" if arguments.shared else None
        homes = [
            Home(Path(folder) / (f"home{place}" if arguments.shared else "home"), url)
            for place in range(arguments.users)
        ]
        promote(
            ReleaseLog(homes[0], NAME), candidate(homes[0], 0), [PASSED], None, "manual", first=True
        )
        for home in homes[1:] if arguments.shared else []:
            ReleaseLog(home, NAME).join()
        records = 1
        for tried in range(1, arguments.tries + 1):
            users = [
                forked.Process(target=user, args=(home, tried * 100 + place))
                for place, home in enumerate(homes)
            ]
            for one in users:
                one.start()
            time.sleep(chance.uniform(0.05, 0.5))
            assert users[0].pid is not None
            os.kill(users[0].pid, signal.SIGKILL)
            time.sleep(0.05)
            for one in users:
                one.kill()
                one.join()
            histories = [ReleaseLog(home, NAME).read() for home in homes]
            assert all(history == histories[0] for history in histories)
            check(histories[0])
            log = ReleaseLog(homes[-1], NAME)
            promote(log, candidate(homes[-1], -tried), [PASSED], log.read().live, "manual")
            kept = len(log.read().records)
            print(
                f"{tried}: {kept - records} records, release {log.read().live} is live", flush=True
            )
            records = kept
    print(f"{arguments.tries} tries: {records} records, each whole, and each after the one before")


if __name__ == "__main__":
    main()

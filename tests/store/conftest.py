"""An S3 server of this process, on loopback: real requests of the real driver."""

import itertools
import logging
import threading
from collections.abc import Iterator

import pytest

from fomo_dagster.store.connections import Connection

BUCKETS = itertools.count()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """A client of boto3, with credentials and address in the environment as users have them."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": "someone", "AWS_REGION": "us-east-1",
        "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return boto3.client("s3", region_name="us-east-1")


@pytest.fixture
def bucket(s3):
    """The name of an empty bucket."""
    name = f"bucket{next(BUCKETS)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def push_at_once(monkeypatch):
    """Two stores make three files each that hold their names, and upload them turn by turn."""

    def push(stores, recipe):
        turns, upload = threading.Barrier(2, timeout=20), Connection.upload

        def in_turns(self, source, path):
            turns.wait()
            upload(self, source, path)

        def make(name):
            def write(folder):
                for file in ("first", "second", "third"):
                    (folder / file).write_text(name)

            stores[name].get_or_make(recipe, write)

        monkeypatch.setattr(Connection, "upload", in_turns)
        threads = [threading.Thread(target=make, args=name) for name in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return push

"""The remote side of the store on S3, by the driver that users have, against a server of moto."""

import json

import pytest
from botocore.exceptions import ClientError
from s3fs import S3FileSystem

from fomo_dagster.errors import StoreError
from fomo_dagster.store import connections
from fomo_dagster.store.artifacts import Store, record_path
from fomo_dagster.store.connections import Connection
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.remotes import Remote

pytestmark = pytest.mark.slow

RECIPE = Recipe("thing", 1, {"number": 1})
MANIFEST = f"store/thing/{RECIPE.digest}/manifest.json"


def make_thing(folder):
    (folder / "data.bin").write_bytes(b"0123456789" * 1000)
    (folder / "empty").touch()
    record_path(folder, "plot.png").write_bytes(b"plot")


def never(folder):
    pytest.fail("it was made")


def content(artifact):
    return {name: artifact.path(name).read_bytes() for name in artifact.manifest["files"]}


@pytest.fixture
def machine(tmp_path, bucket):
    return lambda name: Store(tmp_path / name, Remote(f"s3://{bucket}/store"))


@pytest.fixture
def keys(s3, bucket):
    return lambda: [o["Key"] for o in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def ending(keys, name):
    return next(key for key in keys() if key.endswith(f"/{name}"))


def test_a_bucket_brings_what_another_machine_made(machine, keys):
    made = machine("first").get_or_make(RECIPE, make_thing)
    assert MANIFEST in keys()
    second = machine("second")
    assert second.holds(RECIPE)
    assert not (second.root / "thing").exists()
    found = second.get_or_make(RECIPE, never)
    assert content(found) == content(made)
    assert found.cost == made.cost
    assert found.record("plot.png").read_bytes() == b"plot"


DAMAGES = {
    "a file is missing": lambda s3, b, k: s3.delete_object(Bucket=b, Key=ending(k, "data.bin")),
    "bytes are altered": lambda s3, b, k: s3.put_object(
        Bucket=b, Key=ending(k, "data.bin"), Body=b"9876543210" * 1000
    ),
    "an empty manifest": lambda s3, b, k: s3.put_object(Bucket=b, Key=MANIFEST, Body=b""),
    "a manifest of names above": lambda s3, b, k: s3.put_object(
        Bucket=b, Key=MANIFEST, Body=s3.get_object(Bucket=b, Key=MANIFEST)["Body"].read()
        .replace(b'"data.bin"', b'"../../../data.bin"'),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_in_a_bucket_is_made_again_and_replaced(
    s3, bucket, machine, keys, tmp_path, name
):
    good = content(machine("first").get_or_make(RECIPE, make_thing))
    for key in ("../../evil", "x/../../../evil", "evil\\..\\evil"):
        s3.put_object(Bucket=bucket, Key=f"store/thing/{RECIPE.digest}/{key}", Body=b"evil")
    DAMAGES[name](s3, bucket, keys)
    assert machine("second").get_or_make(RECIPE, make_thing).computed
    assert content(machine("third").get_or_make(RECIPE, never)) == good
    assert not list(tmp_path.rglob("*evil*"))
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", "third"}


def test_machines_that_push_to_a_bucket_at_once_leave_what_one_made(machine, push_at_once):
    push_at_once({name: machine(name) for name in "ab"}, RECIPE)
    found = content(machine("third").get_or_make(RECIPE, never))
    assert set(found.values()) in ({b"a"}, {b"b"})


def test_a_manifest_is_written_when_all_its_files_are_there(machine, keys, monkeypatch):
    seen, create = [], Connection.create

    def noting(self, data, path):
        seen.append((path.rpartition("/")[2], keys()))
        return create(self, data, path)

    monkeypatch.setattr(Connection, "create", noting)
    made = machine("first").get_or_make(RECIPE, make_thing)
    (*_, (last, there)) = seen
    assert last == "manifest.json"
    for name in ("data.bin", "empty", "record/plot.png", "record/cost.json"):
        assert any(key.endswith(f"/{name}") for key in there)
    assert json.loads((made.folder / "manifest.json").read_bytes())["files"].keys() == {
        "data.bin", "empty",
    }  # fmt: skip


def test_a_bucket_that_is_not_there_is_said_and_not_made(s3, tmp_path):
    store = Store(tmp_path, Remote("s3://no-such-bucket/store"))
    for ask in (store.holds, lambda recipe: store.get_or_make(recipe, never)):
        with pytest.raises(StoreError, match=r"s3://no-such-bucket/store cannot .* create the b"):
            ask(RECIPE)
    with pytest.raises(ClientError, match="404"):
        s3.head_bucket(Bucket="no-such-bucket")


def test_nobody_who_answers_is_said_in_little_time(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 1.0)  # the driver tries five times
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match=r"s3://bucket/store cannot be read .* run again"):
        Store(tmp_path, Remote("s3://bucket/store")).get_or_make(RECIPE, never)
    S3FileSystem.clear_instance_cache()

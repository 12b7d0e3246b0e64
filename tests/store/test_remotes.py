"""The remote side of the store: what is there is whole or counts as missing, whoever wrote it."""

import gzip
import json
import tarfile
import threading
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from fomo_dagster.errors import InputError, StoreError
from fomo_dagster.home import Home
from fomo_dagster.store import connections
from fomo_dagster.store.artifacts import Store, record_path
from fomo_dagster.store.connections import Connection
from fomo_dagster.store.recipes import Recipe
from fomo_dagster.store.remotes import Remote

RECIPE = Recipe("thing", 1, {"number": 1})
OTHER = Recipe("thing", 1, {"number": 2})


def make_thing(folder):
    (folder / "below").mkdir()
    (folder / "data.bin").write_bytes(b"0123456789" * 1000)
    (folder / "below" / "text").write_text("words")
    record_path(folder, "plot.png").write_bytes(uuid.uuid4().bytes)


def never(folder):
    pytest.fail("it was made")


def content(artifact):
    return {name: artifact.path(name).read_bytes() for name in artifact.manifest["files"]}


@pytest.fixture
def machine(tmp_path, remote_url):
    """`machine(name)`: the store of a machine that shares the remote."""
    return lambda name: Store(tmp_path / name / "store", Remote(remote_url))


class Files:
    """The objects of a remote by their names after the bucket, read and written as they are."""

    def __init__(self, url):
        self.filesystem, self.root = fsspec.url_to_fs(url)

    def names(self):
        self.filesystem.invalidate_cache()
        found = self.filesystem.find(self.root)
        return sorted(path.removeprefix(f"{self.root}/") for path in found)

    def ending(self, name):
        (found,) = [path for path in self.names() if path.endswith(f"/{name}")]
        return found

    def read(self, name):
        return self.filesystem.cat_file(f"{self.root}/{name}")

    def write(self, name, data):
        self.filesystem.pipe_file(f"{self.root}/{name}", data)

    def remove(self, name):
        self.filesystem.rm_file(f"{self.root}/{name}")

    def change_manifest(self, change):
        name = self.ending("manifest.json")
        manifest = json.loads(self.read(name))
        change(manifest)
        self.write(name, json.dumps(manifest).encode())

    def rename_in_manifest(self, old, new):
        self.change_manifest(lambda m: m["files"].update({new: m["files"].pop(old)}))


def manifest_is(data):
    return lambda files: files.write(files.ending("manifest.json"), data)


def manifest_names(name):
    return lambda files: files.rename_in_manifest("below/text", name)


def entry_is(**changes):
    def change(manifest):
        manifest["files"]["data.bin"].update(changes)

    return lambda files: files.change_manifest(change)


def data_is(data):
    return lambda files: files.write(files.ending("data.bin"), data)


def another_thing(files):
    """What is whole, and stands where another thing belongs."""
    manifest = json.loads(files.read(files.ending("manifest.json")))
    manifest["recipe"] = OTHER.as_data()
    files.write(files.ending("manifest.json"), json.dumps(manifest).encode())


# Seen by a look at names and sizes, or only once the bytes are here.
DAMAGES = {
    "a file is missing": (lambda f: f.remove(f.ending("data.bin")), True),
    "a file is truncated": (data_is(b"0123456789" * 999), True),
    "a file goes on": (data_is(b"0123456789" * 2000), True),
    "bytes are altered": (data_is(b"9876543210" * 1000), False),
    "an empty manifest": (manifest_is(b""), True),
    "a manifest of garbage": (manifest_is(b"\x00\xff{"), True),
    "half a manifest": (manifest_is(b'{"recipe": {"kind": "thing"'), True),
    "a manifest that is a list": (manifest_is(b"[1]"), True),
    "a manifest that is a number": (manifest_is(b"1" * 5000), True),
    "a manifest nested without end": (manifest_is(b'{"recipe": ' + b"[" * 100_000), True),
    "a manifest without files": (lambda f: f.change_manifest(lambda m: m.pop("files")), True),
    "files that are none": (lambda f: f.change_manifest(lambda m: m.update(files={})), True),
    "files as a list": (lambda f: f.change_manifest(lambda m: m.update(files=["x"])), True),
    "another's manifest": (another_thing, True),
    "a size that is negative": (entry_is(size=-1), True),
    "a size that is true": (entry_is(size=True), True),
    "a checksum that is none": (entry_is(checksum="x"), True),
    "a name above": (manifest_names("../../../evil"), True),
    "a name above, below another": (manifest_names("below/../../evil"), True),
    "an absolute name": (manifest_names("/tmp/evil"), True),
    "a name of Windows": (manifest_names("..\\evil"), True),
    "a drive": (manifest_names("C:evil"), True),
    "a name with NUL": (manifest_names("evil\0"), True),
    "a name with a line's end": (manifest_names("evil\n"), True),
    "an empty part": (manifest_names("below//text"), True),
    "a name too long": (manifest_names("x" * 300), True),
    "the manifest's own name": (manifest_names("manifest.json"), True),
    "a name in the record": (manifest_names("record/text"), True),
    "a file where a folder must be": (manifest_names("data.bin/text"), True),
    "a record above": (lambda f: f.change_manifest(lambda m: m.update(record=["../x"])), True),
    "a record that is none": (lambda f: f.change_manifest(lambda m: m.update(record=3)), True),
}  # fmt: skip


@pytest.fixture
def remote_url():
    return f"memory://{uuid.uuid4().hex}"


def heals(machine, files, damage, *, seen, caplog):
    """A damage on the remote is said, what it spoils is made again, and whole for the next."""
    good = content(machine("first").get_or_make(RECIPE, make_thing))
    damage(files)
    files.write("thing/../../evil", b"evil")
    second = machine("second")
    assert second.holds(RECIPE) is not seen
    again = second.get_or_make(RECIPE, make_thing)
    assert again.computed
    assert f"thing {RECIPE.digest} at {second.remote.url} is damaged: " in caplog.text
    third = machine("third").get_or_make(RECIPE, never)
    assert content(third) == content(again) == good
    inside = {"first", "second", "third"}
    machines = third.folder.parents[3]
    assert {path.name for path in machines.iterdir() if path.is_dir()} <= inside | {"remote"}
    assert not list(machines.rglob("*evil*"))


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_on_a_remote_is_made_again_and_replaced(machine, remote_url, caplog, name):
    damage, seen = DAMAGES[name]
    heals(machine, Files(remote_url), damage, seen=seen, caplog=caplog)


def _table(path, whole):
    pl.DataFrame({"a": range(9)}).write_parquet(path)
    if not whole:
        path.write_bytes(path.read_bytes()[:-1] + b"2")


def _tensors(path, whole):
    save_file({"a": np.zeros(9)}, path)
    if not whole:  # what its header names is not all there
        path.write_bytes(path.read_bytes()[:-1])


def _tar(path, whole):
    with tarfile.open(path, "w") as tar:
        tar.add(__file__, "a")
    if not whole:
        path.write_bytes(gzip.compress(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "write"),
    [("table.parquet", _table), ("[0].safetensors", _tensors), ("0.tar", _tar)],
)
def test_what_others_pushed_as_what_it_is_not_is_made_again(machine, caplog, name, write):
    machine("first").get_or_make(RECIPE, lambda folder: write(folder / name, whole=False))
    second = machine("second").get_or_make(RECIPE, lambda folder: write(folder / name, whole=True))
    assert second.computed
    assert f"is damaged: {name} is no {name.split('.')[1]} file" in caplog.text
    assert content(machine("third").get_or_make(RECIPE, never)) == content(second)
    caplog.clear()
    assert content(machine("second").get_or_make(RECIPE, never)) == content(second)
    assert not caplog.text


def test_only_what_a_manifest_lists_is_fetched(machine, remote_url):
    machine("first").get_or_make(RECIPE, make_thing)
    files = Files(remote_url)
    folder = files.ending("data.bin").removesuffix("/data.bin")
    for name in (f"thing/{RECIPE.digest}/stray", f"{folder}/stray", f"{folder}/record/stray"):
        files.write(name, b"stray")
    fetched = machine("second").get_or_make(RECIPE, never)
    assert not list(fetched.folder.rglob("stray"))
    assert fetched.cost["seconds"] >= 0
    assert fetched.record("plot.png").read_bytes() == files.read(files.ending("plot.png"))


def test_what_a_run_says_of_itself_may_be_lost_or_damaged(machine, remote_url):
    machine("first").get_or_make(RECIPE, make_thing)
    files = Files(remote_url)
    files.write(files.ending("cost.json"), b'{"cost": {"seconds": "long", "samples": 3}, "x": NaN')
    files.remove(files.ending("plot.png"))
    fetched = machine("second").get_or_make(RECIPE, never)
    assert fetched.cost == {}
    assert fetched.record("plot.png") is None
    assert fetched.created_at


def test_what_older_versions_left_on_a_remote_is_found(machine, remote_url):
    made = machine("first").get_or_make(RECIPE, make_thing)
    old = {key: value for key, value in made.manifest.items() if key != "record"}
    old |= {"cost": {"seconds": 3.5}, "created_at": "2026-01-02T03:04:05+00:00"}
    files = Files(remote_url)
    for name in files.names():
        files.remove(name)
    for name, data in content(made).items():
        files.write(f"thing/{RECIPE.digest}/{name}", data)
    files.write(f"thing/{RECIPE.digest}/manifest.json", json.dumps(old).encode())
    second = machine("second")
    assert second.holds(RECIPE)
    found = second.get_or_make(RECIPE, never)
    assert content(found) == content(made)
    assert (found.cost, found.created_at) == (old["cost"], old["created_at"])


def test_a_push_that_is_killed_leaves_nothing_that_is_seen(machine, remote_url, monkeypatch):
    first, files = machine("first"), Files(remote_url)
    upload = Connection.upload

    def killed(self, source, path):
        if source.name == "text":
            upload(self, source, path)
            raise KeyboardInterrupt
        upload(self, source, path)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "upload", killed)
        with pytest.raises(KeyboardInterrupt):
            first.get_or_make(RECIPE, make_thing)
    assert files.ending("text")
    assert not machine("second").holds(RECIPE)
    first.push_pending()
    assert content(machine("second").get_or_make(RECIPE, never)) == content(first.find(RECIPE))
    assert not list((first.root / ".pending").iterdir())


def test_what_a_killed_maker_left_goes_where_another_machine_made_it(machine):
    one, two = machine("one"), machine("two")
    left = one.root / ".staging" / f"{RECIPE.kind}-{RECIPE.digest}-{uuid.uuid4().hex}"
    others = left.with_name(f"{OTHER.kind}-{OTHER.digest}-{uuid.uuid4().hex}")
    for folder in (left, others):
        folder.mkdir(parents=True)
        (folder / "half").write_text("ha")
    two.get_or_make(RECIPE, make_thing)
    assert content(one.get_or_make(RECIPE, never))
    assert list(left.parent.iterdir()) == [others]


def test_machines_that_push_other_bytes_at_once_leave_those_of_one(machine, push_at_once):
    """As of two accelerators, whose sums differ in the last place."""
    push_at_once({name: machine(name) for name in "ab"}, RECIPE)
    found = content(machine("third").get_or_make(RECIPE, never))
    assert set(found.values()) in ({b"a"}, {b"b"})


def test_what_is_there_whole_is_not_pushed_again(machine, remote_url, monkeypatch):
    machine("first").get_or_make(RECIPE, make_thing)
    before = {name: Files(remote_url).read(name) for name in Files(remote_url).names()}
    second = machine("second")
    monkeypatch.setattr(second.remote, "fetch", lambda *arguments: None)  # it came in between
    assert second.get_or_make(RECIPE, make_thing).computed
    assert {name: Files(remote_url).read(name) for name in before} == before


def test_a_link_that_leads_out_of_a_local_remote_is_not_followed(tmp_path):
    elsewhere, there = tmp_path / "elsewhere", tmp_path / "shared" / RECIPE.kind / RECIPE.digest
    elsewhere.mkdir()
    there.parent.mkdir(parents=True)
    there.symlink_to(elsewhere)
    store = Store(tmp_path / "store", Remote(f"file://{tmp_path / 'shared'}"))
    with pytest.raises(StoreError, match=f"{RECIPE.digest}.* leads to {elsewhere}.*the symlink"):
        store.get_or_make(RECIPE, make_thing)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("kind", ["../../x", "", "a/b", ".leases", "/tmp"])
def test_a_kind_or_digest_that_leads_out_of_the_store_is_refused(tmp_path, kind):
    store = Store(tmp_path)
    for address in ((kind, RECIPE.digest), ("thing", kind or "x"), ("thing", "..")):
        with pytest.raises(StoreError, match="no address in the store"):
            store.open(*address)
    (tmp_path / ".pending").mkdir()
    (tmp_path / ".pending" / "..-..").touch()
    store.push_pending()


# Sentences. A filesystem that does what it is told, over one in memory.


class Moody(fsspec.get_filesystem_class("memory")):
    """In memory; `fail` is what it raises at a word of its methods."""

    protocol = "moody"
    fail: ClassVar[dict] = {}
    cachable = False

    def _raise(self, word):
        if self.fail.get(word):
            raise self.fail[word].pop()

    def ls(self, *arguments, **options):
        self._raise("list")
        return super().ls(*arguments, **options)

    def pipe_file(self, *arguments, **options):
        self._raise("write")
        return super().pipe_file(*arguments, **options)

    def _open(self, *arguments, **options):
        self._raise("open")
        return super()._open(*arguments, **options)


@pytest.fixture
def moody(monkeypatch):
    fsspec.register_implementation("moody", Moody, clobber=True)
    monkeypatch.setattr(connections, "WAITS_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(Moody, "fail", {})
    return lambda name: Store(Path(name), Remote(f"moody://{uuid.uuid4().hex}"))


REFUSALS = {
    "no right to list": ("list", PermissionError("Access Denied"), "see that its credentials"),
    "no right to write": ("write", PermissionError("Forbidden"), "cannot be written (Forb"),
    "throttled": ("write", OSError(16, "SlowDown"), "SlowDown): see that it can be reached"),
    "no network": ("list", ConnectionError("Name or service not known"), "(Name or service not"),
    "an error without words": ("list", TimeoutError(), "read (TimeoutError): see"),
    "no credentials": ("list", type("NoCredentialsError", (Exception,), {})("none"), "credentials"),
    "no bucket": ("write", FileNotFoundError("the bucket is not there"), "create the bucket"),
    "a package of the driver": ("list", ImportError("install gcsfs"), "install that package"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_remote_that_cannot_be_used_is_said_before_anything_is_made(moody, tmp_path, name):
    word, error, said = REFUSALS[name]
    Moody.fail[word] = [error] * 10
    with pytest.raises(StoreError, match=r"the remote store moody://\w+ cannot be ") as raised:
        moody(tmp_path).get_or_make(RECIPE, never)
    assert said in str(raised.value)
    assert "leave FOMO_STORE unset" in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuch://bucket/x", "Protocol not known"), ("s3:/bucket/x", "is no URL"),
        ("s3://", "names no bucket"), ("gs:bucket", "is no URL"), ("bucket/x", "is no URL"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_one_is_refused_before_anything_is_made(tmp_path, url, said):
    store = Store(tmp_path, Remote(url))
    for ask in (store.holds, store.find, lambda recipe: store.get_or_make(recipe, never)):
        with pytest.raises(InputError, match=said):
            ask(RECIPE)


def test_what_passes_is_tried_again_a_few_times(moody, tmp_path):
    store = moody(tmp_path)
    Moody.fail |= {"write": [OSError("busy"), OSError("busy")], "open": [ConnectionError("reset")]}
    store.get_or_make(RECIPE, make_thing)
    Moody.fail["open"] = [ConnectionError("reset"), TimeoutError()]
    assert content(Store(tmp_path / "b", store.remote).get_or_make(RECIPE, never))


def test_a_remote_that_never_answers_is_given_up(moody, tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.05)
    over = threading.Event()
    monkeypatch.setattr(Moody, "ls", lambda *arguments, **options: over.wait(20))
    with pytest.raises(StoreError, match="no answer within 0 s"):
        moody(tmp_path).get_or_make(RECIPE, never)
    over.set()


def test_a_file_without_end_is_left_at_its_size(moody, tmp_path, monkeypatch):
    store = moody(tmp_path / "a")
    store.get_or_make(RECIPE, make_thing)
    read = []

    class Endless:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def read(self, count):
            read.append(count)
            assert len(read) < 10
            return b"0" * count

    opened = Moody._open

    def endless(self, path, *arguments, **options):
        return Endless() if path.endswith("data.bin") else opened(self, path, *arguments, **options)

    monkeypatch.setattr(Moody, "_open", endless)
    assert Store(tmp_path / "b", store.remote).find(RECIPE) is None
    assert len(read) == 1


@pytest.mark.parametrize(
    "url",
    [
        "moody://me:secr@t/x@host/x", "moody://AKIA:secr@bucket/host?token=t/x",
        "moody://host/x?X-Amz-Signature=secr@t/x", "moody://me:secr%40t%2Fx@host/x",
    ],
)  # fmt: skip
def test_no_message_holds_a_secret_of_the_url(moody, tmp_path, url):
    Moody.fail["list"] = [OSError(f"cannot open {url}: secr@t/x is wrong")]
    with pytest.raises(StoreError) as raised:
        Store(tmp_path, Remote(url)).get_or_make(RECIPE, never)
    assert "secr" not in str(raised.value)
    assert str(raised.value).count("***") >= 3
    assert "host" in str(raised.value)


@pytest.mark.parametrize(("status", "told"), [(404, None), (403, None), (500, "500")])
def test_a_web_server_that_fails_is_not_one_that_lacks_an_artifact(status, told, monkeypatch):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    monkeypatch.setattr("fomo_dagster.store.connections.WAITS_SECONDS", ())
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = Remote(f"http://127.0.0.1:{server.server_port}/store")
        if told is None:
            assert not remote.has("pool", "0" * 32)
        else:
            with pytest.raises(StoreError, match=f"cannot be read.*{told}"):
                remote.has("pool", "0" * 32)
        server.shutdown()
    if told:  # nobody listens there any more
        with pytest.raises(StoreError, match="cannot be read"):
            remote.has("pool", "0" * 32)


@pytest.mark.parametrize(("named", "url"), [("", None), (" \n", None), ("/a b\n", "/a b")])
def test_a_blank_remote_is_none_and_no_folder_of_blanks(monkeypatch, named, url):
    monkeypatch.setenv("FOMO_STORE", named)
    assert Home.from_environment().remote_url == url

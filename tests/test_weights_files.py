"""Files of weights are told by their first bytes, whatever they are called."""

import gzip
import io
import json
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from fomo_dagster.cli.merging import declared_technique, merge_files
from fomo_dagster.errors import DataError
from fomo_dagster.models.backbones import create, load
from fomo_dagster.models.weights import read
from fomo_dagster.weights_files import format_of
from tests.conftest import ARCHITECTURE

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3)}


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def write(path, kind):
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=kind == "pytorch")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "pytorch", "pytorch of old"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
def test_weights_are_read_as_what_they_are_under_any_suffix(tmp_path, kind, suffix):
    path = write(tmp_path / f"weights{suffix}", kind)
    assert format_of(path) == kind.removesuffix(" of old")
    assert torch.equal(read(path)["w"], WEIGHTS["w"])


def test_files_with_swapped_suffixes_are_merged(tmp_path):
    files = [write(tmp_path / "a.pt", "safetensors"), write(tmp_path / "b.safetensors", "pytorch")]
    out = tmp_path / "out.safetensors"
    merge_files(out, files, None, declared_technique("weighted_mean", []))
    assert torch.equal(load_file(out)["w"], WEIGHTS["w"])


def zipped(names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return data.getvalue()


NO_WEIGHTS = {
    "empty": (b"", "is empty"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "a web page": (b"\n<!DOCTYPE html><html>", "web page"),
    "an error of S3": (b"<?xml version='1.0'?><Error/>", "XML"),
    "gzip": (gzip.compress(b"weights"), "gzip: unpack"),
    "a zip of something else": (zipped(["readme.txt"]), "zip archive of readme.txt"),
    "half a zip": (zipped(["data.pkl"])[:40], "zip archive that ends early"),
    "half a header": (struct.pack("<Q", 5000) + b'{"w":', "ends early: its header alone has 5000"),
    "a web page with a mark of its encoding": (b"\xef\xbb\xbf<!doctype html>", "web page"),
    "an index of several files": (b'{"metadata": {}, "weight_map": {}}', "give their folder"),
    "an error in JSON": (b'{"error":"Repository not found"}', "server's error"),
    "text": (b"hello, these are no weights", "begins with b'hello"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
}


@pytest.mark.parametrize("case", NO_WEIGHTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_what_is_no_weights_is_called_what_it_is(tmp_path, case, suffix):
    content, said = NO_WEIGHTS[case]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read(path)
    assert f"weights{suffix}" in str(raised.value)
    assert said in str(raised.value)


def test_a_header_as_long_as_gzip_begins_is_one(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "weights.safetensors"
    length = int.from_bytes(b"\x1f\x8b", "little")
    path.write_bytes(struct.pack("<Q", length) + header.ljust(length) + struct.pack("<f", 2.5))
    assert read(path)["w"].tolist() == [2.5]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_are_read_without_what_wrapped_the_model(tmp_path, prefix):
    save_file({f"{prefix}w": WEIGHTS["w"]}, tmp_path / "a")
    assert list(read(tmp_path / "a")) == ["w"]


ODD = {
    "float8_e4m3fn": WEIGHTS["w"].to(torch.float8_e4m3fn),
    "sparse": WEIGHTS["w"].to_sparse(),
    "without values": WEIGHTS["w"].to("meta"),
    "complex64": WEIGHTS["w"].to(torch.complex64),
}


@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path, kind):
    torch.save({"v": WEIGHTS["w"], "w": ODD[kind]}, tmp_path / "a.pt")
    with pytest.raises(DataError, match=rf"w \({kind}\)"):
        read(tmp_path / "a.pt")


def test_integers_are_not_taken_for_weights(tmp_path):
    weights = dict(create(ARCHITECTURE, 0).module.state_dict())
    weights["text_projection"] = (weights["text_projection"] * 100).to(torch.int8)
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match="text_projection int8 instead of float32"):
        load(ARCHITECTURE, tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_pickle_that_would_run_something_runs_nothing(tmp_path, suffix, recwarn):
    harmful = Harmful(tmp_path / "it_ran")
    for content in (pickle.dumps(harmful), pickle.dumps({"w": harmful}, protocol=4)):
        path = tmp_path / f"harmful{suffix}"
        path.write_bytes(content)
        with pytest.raises(DataError, match="harmful"):
            read(path)
    assert not recwarn.list
    assert not harmful.path.exists()


def test_tensors_that_do_not_fit_are_refused_with_both_shapes(tmp_path):
    save_file(WEIGHTS, tmp_path / "a.safetensors")
    save_file({"w": torch.zeros(3, 2)}, tmp_path / "b.safetensors")
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(DataError, match=r"w \(F32 \[3, 2\] instead of F32 \[2, 3\]\)"):
        merge_files(tmp_path / "out.pt", files, None, declared_technique("weighted_mean", []))

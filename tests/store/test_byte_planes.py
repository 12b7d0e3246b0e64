"""What differs between two files of weights brings the one back from the other, bit for bit."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fomo_dagster.store import byte_planes
from fomo_dagster.store.byte_planes import ranges_of, restored, write_differences
from fomo_dagster.store.manifests import DamagedError

BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "F64": 8, "U8": 1, "BOOL": 1}
SMALL_BLOCK = 64


@pytest.fixture(scope="module", autouse=True)
def _small_blocks():
    """So that a file of a few hundred bytes has several."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(byte_planes, "BLOCK_BYTES", SMALL_BLOCK)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def safetensors(tensors, metadata=None, after=b""):
    """The bytes of a file of tensors, name → (dtype, shape, bytes), in their order."""
    header, place = {"__metadata__": metadata} if metadata else {}, 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [place, place + len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        place += len(data)
    text = json.dumps(header).encode()
    content = b"".join(data for _, _, data in tensors.values())
    return struct.pack("<Q", len(text)) + text + content + after


@st.composite
def tensors(draw):
    """A tensor of any numbers, NaNs and infinities among them."""
    dtype = draw(st.sampled_from(sorted(BYTES)))
    shape = draw(st.lists(st.integers(0, 7), max_size=3))
    size = int(np.prod(shape, dtype=int)) * BYTES[dtype]
    return dtype, shape, draw(st.binary(min_size=size, max_size=size))


def moved(data, by):
    """The bytes with some of them changed a little."""
    return bytes((byte + (place % 5 == 0) * by) % 256 for place, byte in enumerate(data))


@st.composite
def pairs(draw):
    """A file and its base, whose tensors are alike, moved a little, of other kinds or not there."""
    own = draw(st.dictionaries(st.sampled_from("abcdef"), tensors(), max_size=5))
    base = {}
    for name, (dtype, shape, data) in own.items():
        what = draw(st.sampled_from(["same", "moved", "other", "missing", "reshaped"]))
        if what in ("same", "moved"):
            base[name] = (dtype, shape, moved(data, draw(st.integers(1, 255)) * (what == "moved")))
        elif what == "other":
            base[name] = draw(tensors())
        elif what == "reshaped":
            base[name] = (dtype, [1, *shape], data)
    base |= draw(st.dictionaries(st.sampled_from("ghi"), tensors(), max_size=2))
    order = draw(st.permutations(list(base)))
    metadata = draw(st.one_of(st.none(), st.just({"format": "pt"})))
    after = draw(st.sampled_from([b"", b"\x00" * 9]))
    return safetensors(own, metadata, after), safetensors({name: base[name] for name in order})


def written(folder, data, base):
    paths = [folder / name for name in ("file", "base", "differences")]
    paths[0].write_bytes(data)
    paths[1].write_bytes(base)
    write_differences(*paths)
    return paths


def back(differences, base):
    return b"".join(restored(differences, base, base.parent))


@given(pairs())
def test_any_file_comes_back_bit_for_bit(folder, pair):
    _, base, differences = written(folder, *pair)
    assert back(differences, base) == pair[0]


@pytest.mark.parametrize("dtype", ["F32", "F64", "F16", "BF16"])
def test_no_numbers_and_infinities_come_back_with_their_bits(folder, dtype):
    bits = b"\xff\xff\xff\xff\x00\x00\xc0\x7f\x01\x00\x80\x7f\x00\x00\x80\xff\x00\x00\x00\x80" * 8
    file = safetensors({"a": (dtype, [len(bits) // BYTES[dtype]], bits)})
    base = safetensors({"a": (dtype, [len(bits) // BYTES[dtype]], bits[::-1])})
    _, path, differences = written(folder, file, base)
    assert back(differences, path) == file


def floats(numbers):
    return safetensors({"a": ("F32", list(numbers.shape), numbers.astype("<f4").tobytes())})


def test_near_numbers_take_half_and_equal_ones_next_to_nothing(folder, monkeypatch):
    monkeypatch.setattr(byte_planes, "BLOCK_BYTES", 2**20)
    random = np.random.default_rng(0)
    base = random.standard_normal(100_000)
    sizes = {}
    for change in (0, 1e-4, 1e-2, 1):
        near = base * (1 + change * random.standard_normal(base.shape))
        paths = written(folder, floats(near), floats(base))
        sizes[change] = paths[2].stat().st_size / paths[0].stat().st_size
    assert sizes[0] < 0.01
    assert sizes[1e-4] < 0.5 < sizes[1e-2] < 0.75 < sizes[1] < 1.001


def test_what_has_no_counterpart_is_stored_as_it_is(folder):
    data = {name: ("F32", [4], name.encode() * 16) for name in "abcd"}
    base = {"a": data["a"], "b": ("I32", [4], bytes(16)), "c": ("F32", [2, 2], bytes(16))}
    path, other, _ = written(folder, safetensors(data), safetensors(base))
    header, *found = ranges_of(path, other)
    start = struct.unpack("<Q", other.read_bytes()[:8])[0] + 8
    assert (header.width, header.base) == (1, None)
    assert [(one.bytes, one.width, one.base) for one in found] == [(16, 4, start), (48, 4, None)]


def test_signs_are_moved_to_the_last_bit_and_back():
    numbers = np.array([0, -1, 1, -2, 2, 127, -128], np.int8).view(np.uint8)
    moved = byte_planes._with_sign_last(numbers)
    assert moved.tolist() == [0, 1, 2, 3, 4, 254, 255]
    for dtype in ("<u1", "<u2", "<u4", "<u8"):
        bits = np.frombuffer(np.random.default_rng(0).bytes(8 * 500), dtype)
        there = byte_planes._with_sign_last(bits)
        assert np.array_equal(byte_planes._with_sign_first(there), bits)
        assert len(np.unique(there)) == len(np.unique(bits))


@given(st.data())
def test_differences_that_end_early_or_go_on_are_refused(folder, data):
    base = np.arange(100.0)
    _, path, differences = written(folder, floats(base + 0.1), floats(base))
    whole = differences.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"\x00"):
        differences.write_bytes(wrong)
        with pytest.raises(DamagedError):
            back(differences, path)


@given(st.data())
def test_altered_differences_are_refused_or_give_other_bytes_or_the_same(folder, data):
    """Nothing else is raised; what comes back is held against a checksum by who asks for it."""
    base = np.arange(100.0)
    file, path, differences = written(folder, floats(base + 0.1), floats(base))
    altered = bytearray(differences.read_bytes())
    place = data.draw(st.integers(0, len(altered) - 1))
    altered[place] ^= data.draw(st.integers(1, 255))
    differences.write_bytes(bytes(altered))
    try:
        found = back(differences, path)
    except DamagedError:
        return
    assert len(found) == file.stat().st_size


@pytest.mark.parametrize(
    "wrong",
    [
        b"", b"1234567", struct.pack("<Q", 2**40) + b"{}", struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{", struct.pack("<Q", 3) + b"\xff\xff\xff",
        safetensors({"a": ("F32", [9], bytes(36))})[:-1],
    ],
)  # fmt: skip
def test_what_is_no_file_of_tensors_is_refused(folder, wrong):
    right = safetensors({"a": ("F32", [1], bytes(4))})
    for pair in ((wrong, right), (right, wrong)):
        with pytest.raises(DamagedError, match="is no safetensors file"):
            written(folder, *pair)


def test_memory_is_that_of_a_few_blocks(folder, monkeypatch):
    monkeypatch.setattr(byte_planes, "BLOCK_BYTES", 2**16)
    base = np.random.default_rng(0).standard_normal(2**20)
    _, path, differences = written(folder, floats(base * 1.0001), floats(base))
    tracemalloc.start()
    write_differences(folder / "file", path, differences)
    assert sum(len(block) for block in restored(differences, path, path.parent)) > 2**22
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**16

"""Files in YAML: what stands there is what is read, or what is refused with its line."""

import time

import pytest

from fomo_dagster.errors import InputError
from fomo_dagster.yaml_files import line_of, read_mapping, read_parts, read_value


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "file.yaml"

    def write_and_read(text):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_mapping(path)

    return write_and_read


@pytest.mark.parametrize(
    "text", ["no", "on", "Yes", "off", "2020-01-01", "1:30", "2024_01", "0o17", "1e", "=", "y", "-"]
)
def test_what_older_yaml_takes_for_something_else_is_text(text):
    if text != "-":  # an empty list
        assert read_value(text) == text
    assert read_value(f"{{{text}: 1}}") == {text: 1}


@pytest.mark.parametrize("key", ["1", "1e3", "null", "true", "2020-01-01", "0123"])
def test_a_key_is_the_text_that_stands_there(key):
    assert read_value(f"{key}: x") == {key: "x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E3", 1000.0), (".5", 0.5), ("5.", 5.0), ("-7", -7), ("+3", 3), ("0", 0),
        ("0x1F", 31), ("1.5e3", 1500.0), ("true", True), ("False", False), ("~", None),
        ("null", None), ("", None), ("!!str 1e3", "1e3"), ("'1e3'", "1e3"), ("!!float 3", 3.0),
        ("-.inf", float("-inf")),
    ],
)  # fmt: skip
def test_numbers_and_constants_are_those_of_yaml_1_2(text, value):
    found = read_value(text)
    assert found == value
    assert type(found) is type(value)


def test_merge_keys_give_way_to_the_mappings_own(read):
    text = "x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: {<<: [{b: 4}, *x]}\n"
    assert read(text) == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 1, "b": 4}}


def doubled(levels, first, form):
    """Each line is nine times the one before."""
    lines = [f"a0: &a0 {first}"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} " + form.format(",".join([f"*a{level - 1}"] * 9)))
    return "\n".join(lines)


REFUSED = {
    "a list that doubles": (doubled(30, "[x]", "[{}]"), "with what anchors repeat"),
    "a long text in many places": (
        f"a: &a {'x' * 2**20}\nb: [{'*a,' * 10_000}]",
        "line 2: .* with what anchors repeat",
    ),
    "merges that double": (doubled(30, "{x: 1}", "{{<<: [{}]}}"), "with what anchors repeat"),
    "a list in itself": ("a: &a [*a]", "an anchor contains itself"),
    "a mapping in itself by a merge": ("a: &a {<<: *a}", "an anchor contains itself"),
    "brackets": ("a: " + "[" * 100_000, "nest"),
    "dashes": ("a:\n" + "".join("  " * n + "-\n" for n in range(1, 900)), "nest"),
    "braces": ("{a: " * 200 + "1" + "}" * 200, "more than 64 levels deep"),
    "an object": ("a: !!python/object/apply:os.getpid []", "tag !!python/object/apply:os.getpid"),
    "bytes": ("a: !!binary aGk=", "the tag !!binary"),
    "a set": ("a: !!set {x}", "the tag !!set"),
    "an octal number": ("a: 1\nb: 010", "line 2: 010 may be a number to the base 8"),
    "too large a number": ("a: 1e999", "too large for a number"),
    "too long a number": ("a: " + "9" * 5000, "5,000 digits"),
    "a key that repeats": ("a:\n  b: 1\n  b: 2", "line 3: key 'b' is given twice"),
    "a key that is a mapping": ("a: {{NAME}}", "must be text"),
    "a tab": ("a:\n\tb: 1", "line 2: not valid YAML.*indent by spaces"),
    "two documents": ("a: 1\n---\nb: 2", "single document"),
    "a list": ("- a", "keys and values"),
    "half a surrogate": ('a: "\\ud800"', "line 1"),
    "an unset variable": ("a: 1\nb: ${NOT_SET}", "line 2: .*NOT_SET is not set"),
    "another encoding": ("a: é".encode("utf-16"), "UTF-8"),
    "a large file": (b"#" * (16 * 2**20 + 1), "more than 16 MiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_safely_is_refused_at_once(read, case):
    text, said = REFUSED[case]
    started = time.process_time()
    with pytest.raises(InputError, match=said) as refused:
        read(text)
    assert time.process_time() - started < 1
    assert "file.yaml" in str(refused.value)


def test_parts_that_are_wrong_leave_the_others_alone(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text('a: 1\nb: {x: "${NOT_SET}"}\nc: {y: 1, y: 2}\nd: [no]\n')
    parts = dict(read_parts(path))
    assert (parts["a"], parts["d"]) == (1, ["no"])
    assert "line 2" in str(parts["b"])
    assert "'y' is given twice" in str(parts["c"])


def test_lines_are_those_of_the_deepest_key_that_is_there(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("a:\n  b:\n  - x: 1\n  -\n    y: 2\n")
    assert line_of(path, ("a", "b", 1, "y")) == 5
    assert line_of(path, ("a", "b", 0, "z")) == 3
    assert line_of(path, ("z",)) is None

"""The one reader for the project's YAML files.

Values that are plainly a number, true, false or null are read as such, by the core schema of YAML
1.2. Everything else is text, such as `no`, `on`, `2020-01-01`, `1:30` and `2024_01`. Keys are
always text. `${NAME}` stands for an environment variable. Refused before anything is built from
them: files that are too large, nested too deeply, or too large after their anchors are expanded,
and tags that would create objects.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.resolver import BaseResolver

from fomo_dagster.errors import InputError
from fomo_dagster.texts import is_text

MOST_BYTES = 16 * 2**20
MOST_VALUES = 1_000_000  # with what aliases stand for counted at every place
LONG_TEXT = 64  # characters
MOST_LEVELS = 64

VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
TAG = "tag:yaml.org,2002:"
CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+")
OCTAL = re.compile(r"[-+]?0[0-9]+")
FLOAT = re.compile(
    r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
MERGE = "<<"

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; raises `InputError` naming the file and the line."""
    return {key: value() for key, value in _parts(path)}


def read_parts(path: Path) -> Iterator[tuple[str, Any]]:
    """Each key of a YAML file with its value, or with the `InputError` of what is wrong with that
    value alone. Raises `InputError` if the file as a whole cannot be read."""
    for key, value in _parts(path):
        try:
            yield key, value()
        except InputError as error:
            yield key, error


def read_value(text: str) -> Any:
    """A value as it could be written in a file; raises `InputError` if it is not YAML."""
    try:
        node = _compose(text)
        return None if node is None else _built(node)
    except _FaultError as fault:
        raise InputError(fault.what) from fault


def line_of(path: Path, keys: Sequence[Any], *, whole: bool = False) -> int | None:
    """The line of a file where the first of these nested keys is written, as many keys as the file
    has; None if it does not have the first one or, for `whole`, not all of them."""
    try:
        node = _compose(text_of(path))
    except (InputError, _FaultError):
        return None
    found, depth = None, 0
    for key in keys:
        if isinstance(node, MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == key), None)
            place, node = pair if pair is not None else (None, None)
        elif isinstance(node, SequenceNode) and isinstance(key, int) and key < len(node.value):
            place = node = node.value[key]
        else:
            break
        if place is None:
            break
        found, depth = place.start_mark.line + 1, depth + 1
    return None if whole and depth < len(keys) else found


class _FaultError(Exception):
    """What is wrong, and in which line where that is known."""

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.what, self.line = what, line

    def of(self, path: Path) -> InputError:
        where = f"{path}" if self.line is None else f"{path}, line {self.line}"
        return InputError(f"{where}: {self.what}")


class _Value:
    """A value of a file, made when it is asked for."""

    def __init__(self, path: Path, node: Node) -> None:
        self._path, self._node = path, node

    def __call__(self) -> Any:
        try:
            return _built(self._node)
        except _FaultError as fault:
            raise fault.of(self._path) from fault


def _parts(path: Path) -> Iterable[tuple[str, _Value]]:
    try:
        node = _compose(text_of(path))
        if node is None:
            return []
        if not isinstance(node, MappingNode):
            kind = "list" if isinstance(node, SequenceNode) else "single value"
            raise InputError(f"{path} must hold keys and values, not a {kind}")
        return [(key, _Value(path, value)) for key, value in _pairs(node).items()]
    except _FaultError as fault:
        raise fault.of(path) from fault


def text_of(path: Path) -> str:
    """The text of a file written by hand; `InputError` if it cannot be read, or is too large."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise InputError(f"{path} cannot be read: it is no file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise InputError(
                f"{path} cannot be read: it has more than {MOST_BYTES // 2**20} MiB, and such files"
                " are written by hand"
            )
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} cannot be read: it is no text in UTF-8 (byte {error.start}): save it as UTF-8"
        ) from error


def _compose(text: str) -> Node | None:
    if not is_text(text):  # as of an argument in another encoding
        raise _FaultError(f"half a character (a lone surrogate): {text!r}")
    try:
        node: Node | None = _Composer(_checked_events(text)).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(filter(None, (error.context, error.problem)))
        if mark is not None and text.splitlines()[mark.line : mark.line + 1]:
            line = text.splitlines()[mark.line]
            if "\t" in line[: len(line) - len(line.lstrip())]:
                said = f"{said} (a tab: indent by spaces)"
        raise _FaultError(
            f"not valid YAML: {said}", None if mark is None else mark.line + 1
        ) from error
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise _FaultError(f"not valid YAML: {first}") from error
    if node is not None:
        _count(node, {}, set())
    return node


def _checked_events(text: str) -> Iterator[Any]:
    depth = 0
    for event in yaml.parse(text, Loader=_Parser):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MOST_LEVELS:
                line = event.start_mark.line + 1  # type: ignore[union-attr]
                raise _FaultError(f"nested more than {MOST_LEVELS} levels deep", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        yield event


class _Composer(Composer, BaseResolver):
    """PyYAML's composer over events, which leaves what a plain scalar is to `_scalar`."""

    def __init__(self, events: Iterator[Any]) -> None:
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._events = events
        self._next: Any = next(events, None)

    def check_event(self, *kinds: Any) -> bool:
        return isinstance(self._next, kinds)

    def peek_event(self) -> Any:
        return self._next

    def get_event(self) -> Any:
        event, self._next = self._next, next(self._events, None)
        return event

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        plain = kind is ScalarNode and implicit[0]
        return "" if plain else {ScalarNode: "str", SequenceNode: "seq", MappingNode: "map"}[kind]


def _count(node: Node, counts: dict[int, int], above: set[int]) -> int:
    """The values in a node, each alias counted for what it stands for."""
    if isinstance(node, ScalarNode):  # a long one counts as several: an alias repeats its length
        return 1 + len(node.value) // LONG_TEXT
    line = node.start_mark.line + 1
    if id(node) in above:
        raise _FaultError("an anchor contains itself", line)
    if id(node) not in counts:
        above.add(id(node))
        parts = node.value
        if isinstance(node, MappingNode):
            parts = [part for pair in parts for part in pair]
        counts[id(node)] = 1 + sum(_count(part, counts, above) for part in parts)
        above.remove(id(node))
        if counts[id(node)] > MOST_VALUES:
            raise _FaultError(f"more than {MOST_VALUES:,} values, with what anchors repeat", line)
    return counts[id(node)]


def _built(node: Node) -> Any:
    if isinstance(node, ScalarNode):
        return _scalar(node)
    name = node.tag.removeprefix(TAG)
    if isinstance(node, SequenceNode) and name == "seq":
        return [_built(part) for part in node.value]
    if isinstance(node, MappingNode) and name == "map":
        return {key: _built(value) for key, value in _pairs(node).items()}
    raise _unknown_tag(node)


def _pairs(node: MappingNode) -> dict[str, Node]:
    """Key → value; those of `<<` where the mapping has no such key itself."""
    own: dict[str, Node] = {}
    merged: dict[str, Node] = {}
    for key_node, value in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            raise _FaultError("a key is a list or a mapping, and must be text: quote it", line)
        if key_node.tag.removeprefix(TAG) not in ("", "str"):
            raise _unknown_tag(key_node)
        key = _with_variables(key_node)
        if key == MERGE and not key_node.tag:
            for mapping in value.value if isinstance(value, SequenceNode) else [value]:
                if not isinstance(mapping, MappingNode):
                    raise _FaultError(
                        "the value of << must be a mapping, or a list of mappings", line
                    )
                merged = {**_pairs(mapping), **merged}
        elif not key:
            raise _FaultError("a key is empty", line)
        elif key in own:
            raise _FaultError(f"key {key!r} is given twice", line)
        else:
            own[key] = value
    return {**merged, **own}


def _scalar(node: ScalarNode) -> Any:
    text, tag = _with_variables(node), node.tag.removeprefix(TAG)
    if tag == "str" or (not tag and text != node.value):  # a variable's value is text
        return text
    if tag not in ("", "null", "bool", "int", "float"):
        raise _unknown_tag(node)
    line = node.start_mark.line + 1
    value: Any = text
    if text in CONSTANTS:
        value = CONSTANTS[text]
    elif OCTAL.fullmatch(text):
        raise _FaultError(
            f"{text} may be a number to the base 8 or 10: write it without the leading "
            "0, or quote it if it is text",
            line,
        )
    elif INT.fullmatch(text) or FLOAT.fullmatch(text):
        value = _number(text, line)
    if not tag:
        return value
    kinds: dict[str, Any] = {"null": type(None), "bool": bool, "int": int, "float": int | float}
    if not isinstance(value, kinds[tag]):
        raise _FaultError(f"{text!r} is not a {tag}, although its tag says so", line)
    return float(value) if tag == "float" and value is not None else value


def _number(text: str, line: int) -> int | float:
    try:
        if INT.fullmatch(text):
            return int(text, 0)
        value = float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
    except ValueError as error:  # of more digits than Python takes
        raise _FaultError(f"a number of {len(text):,} digits", line) from error
    if value in (float("inf"), float("-inf")) and "inf" not in text.lower():
        raise _FaultError(f"{text} is too large for a number: quote it if it is text", line)
    return value


def _with_variables(node: ScalarNode) -> str:
    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1])
        if not value:  # an empty one is as good as none, and would name the root of the file system
            raise _FaultError(
                f"the environment variable {match[1]} is not set, which {match[0]} stands for: "
                f"export {match[1]}=…",
                node.start_mark.line + 1,
            )
        return value

    text = VARIABLE.sub(value_of, node.value)
    if not is_text(text):
        raise _FaultError(
            f"half a character (a lone surrogate): {text!r}", node.start_mark.line + 1
        )
    return text


def _unknown_tag(node: Node) -> _FaultError:
    tag = node.tag.replace(TAG, "!!")
    return _FaultError(f"the tag {tag} is not taken: leave it out", node.start_mark.line + 1)

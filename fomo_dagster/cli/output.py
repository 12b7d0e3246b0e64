"""What commands print: values as they are, to people in letters, to programs in UTF-8.

Names, captions and errors come from outside. Nothing in them is markup, moves the cursor, or
stands for a row of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

LONGEST_CELL = 200  # characters

# Control characters but for tab and newline, halves of characters, and what turns the direction of
# writing: a terminal obeys the first and third, and the second cannot be written.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_CONTROLS = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t"})


def printable(text: str) -> str:
    """`text` with what a terminal would obey in the form of Python's escapes."""
    return _UNPRINTABLE.sub(_escape, text)


def cell(value: object) -> Text:
    """A value in a table: on one line, and cut with an ellipsis where it is very long."""
    return Text(cell_text(value))


def cell_text(value: object) -> str:
    """What `cell` says of a value."""
    text = whole_cell(value)
    return text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}…"


def whole_cell(value: object) -> str:
    """As `cell_text`, however long it is."""
    return "" if value is None else printable(str(value).translate(_CONTROLS))


def line(*parts: str | tuple[str, str]) -> Text:
    """Texts, and pairs of a text and its style, one after the other."""
    return Text.assemble(
        *(
            printable(part) if isinstance(part, str) else (printable(part[0]), part[1])
            for part in parts
        )
    )


class Terminal(Console):
    """A console that takes no value for markup, an emoji's name or a control code."""

    def __init__(self, *, stderr: bool = False, file: TextIO | None = None) -> None:
        super().__init__(stderr=stderr, file=file, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to `until_nobody_reads`."""
        raise


def say(console: Console, *parts: str | tuple[str, str]) -> None:
    """Print a sentence, as of `line`; it is not broken at the terminal's width."""
    console.print(line(*parts), soft_wrap=True)


class TerminalHandler(logging.Handler):
    """Warnings of a log as sentences."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(BrokenPipeError):
            say(Terminal(stderr=True), self.format(record))


class WarningsTo(logging.Handler):
    """Warnings of a log, told to whoever takes them."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        self._warn(record.getMessage())


def prepare_streams() -> None:
    """Have what a terminal's encoding lacks printed in the form of escapes; warnings through
    `TerminalHandler`, where nothing else takes them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not logging.root.handlers:  # OpenCLIP's first line of log would add one of its own form
        logging.root.addHandler(TerminalHandler(logging.WARNING))


@contextlib.contextmanager
def until_nobody_reads() -> Iterator[None]:
    """End quietly, and not in success, once nobody reads any more what is printed within."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush once more as it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@contextlib.contextmanager
def stdout_of_now() -> Iterator[TextIO]:
    """A file that goes where stdout goes now, wherever stdout goes later.

    Dagster points the descriptor to a log file while a step runs, and copies that line by line to
    where it pointed: lines come late, and bars never.
    """
    try:
        number = sys.stdout.fileno()
    except io.UnsupportedOperation:  # no file, as in a test: Dagster leaves it alone
        yield sys.stdout
        return
    sys.stdout.flush()
    encoding = sys.stdout.encoding
    with open(os.dup(number), "w", encoding=encoding, errors="backslashreplace") as file:
        yield file


def print_data(text: str) -> None:
    """Print what another program reads: in UTF-8 wherever it goes."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(errors="surrogateescape"))  # paths may be no UTF-8


def print_json(data: object) -> None:
    """Print data as JSON. What no number is, NaN and the infinities, is null."""
    print_data(json.dumps(as_json(data), indent=1, default=str) + "\n")


def print_csv(frame: pl.DataFrame) -> None:
    """Print rows as CSV."""
    print_data(frame.write_csv())


def as_json(value: object) -> object:
    """Data as JSON can hold it: NaN and the infinities are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        number = float(value)
        return number if Decimal(repr(number)) == value else str(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"

"""What a command says: documents on standard output, messages for people on standard error.

What comes out of a thread (messages, arguments, results) was written by a model or by somebody it talks to. So
control characters never reach the terminal: they could move the cursor and show an approver other arguments than
those that will run.
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # each of these is imported where it is used: documents need no Rich, texts no Pydantic
    from rich.console import Console, RenderableType

_WIDE = 100_000  # columns where nobody looks: nothing is wrapped or cut, so that ids can be cut out by programs
# C0 but for tab and newline, DEL, C1, and what reorders text; JSON itself escapes the first of these.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Format(StrEnum):
    """The form of what a command prints."""

    text = "text"
    json = "json"
    jsonl = "jsonl"


class Output:
    """Standard output in the form that was asked for, and standard error."""

    def __init__(self, form: Format) -> None:
        self.form = form
        self.is_text = form is Format.text

    @cached_property
    def console(self) -> "Console":
        """Standard output for people."""
        return _console(sys.stdout)

    @cached_property
    def err(self) -> "Console":
        """Standard error for people."""
        return _console(sys.stderr)

    def show(self, document: Any, text: "RenderableType | Callable[[], RenderableType]") -> None:
        """The one document of a command, or what a person reads instead; as a function it is only made where it is
        read."""
        if self.is_text:
            _print(self.console, text() if callable(text) else text)
        else:
            self._write(document)

    def show_all(self, documents: Sequence[Any], text: "RenderableType") -> None:
        """A list: one JSON array, or one document a line."""
        if self.form is Format.jsonl:
            for document in documents:
                self._write(document)
        else:
            self.show(documents, text)

    def say(self, text: "RenderableType") -> None:
        """Tell a person something on standard error; where a program reads, only errors are told."""
        if self.is_text:
            _print(self.err, text)

    def raw(self, data: bytes) -> None:
        """Bytes as they are; on a terminal without what could harm it."""
        if self.console.is_terminal:
            data = safe(data.decode(errors="backslashreplace")).encode()
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def _write(self, document: Any) -> None:
        from pydantic_core import to_jsonable_python

        indent = 2 if self.form is Format.json else None
        text = json.dumps(to_jsonable_python(document), ensure_ascii=False, indent=indent)
        sys.stdout.write(_CONTROLS.sub(_escaped, text) + "\n")
        sys.stdout.flush()  # `watch` is read while it runs


def safe(text: str) -> str:
    """The text with its control characters made visible."""
    return _CONTROLS.sub(_escaped, text)


def line(text: str) -> str:
    """The text on one line."""
    return safe(" ".join(text.split()))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _print(console: "Console", text: "RenderableType") -> None:
    from rich.panel import Panel

    if console.is_terminal:
        console.print(text, soft_wrap=isinstance(text, str))
        return
    with console.capture() as written:  # no frame and no padding: both are for eyes
        console.print(text.renderable if isinstance(text, Panel) else text)
    console.file.write("".join(f"{line.rstrip()}\n" for line in written.get().splitlines()))
    console.file.flush()


def _console(stream: IO[str]) -> "Console":
    from rich.console import Console

    seen = stream.isatty()  # and not what FORCE_COLOR says: it is set where programs read
    width = None if seen else _WIDE
    return Console(file=stream, width=width, force_terminal=seen, markup=False, highlight=False, emoji=False)

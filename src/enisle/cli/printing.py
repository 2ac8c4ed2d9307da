"""What others wrote (workloads, images, registries) on its way to a person's terminal: it is shown, and steers nothing.

Control characters, and those that turn the direction of text around, are escaped as JSON or Python would write them.
The bytes that a workload itself prints are no matter of this module: they go through as they are.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any, TextIO

# What JSON leaves as it is though a terminal may obey it: DEL, C1 (U+009B is CSI in one character), line separators,
# bidirectional overrides, halves of surrogate pairs.
_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text on one line and without control characters."""
    if text.isprintable():
        return text
    return "".join(" " if char in "\n\t" else _shown(char) for char in text)


def visible(text: str) -> str:
    """As ``printable``, but for text of several lines."""
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" else _shown(char) for char in text)


def _shown(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def for_output(stream: TextIO | None = None) -> Callable[[str], str]:
    """What is done to text on its way to standard output, or another stream: nothing if a program reads it."""
    return visible if (stream or sys.stdout).isatty() else str


def say(text: str, *, flush: bool = False) -> None:
    """A line on standard output."""
    print(for_output()(text), flush=flush)


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON in UTF-8 that is the same for programs and harmless on a terminal; compact without ``indent``."""
    text = json.dumps(value, indent=indent, separators=None if indent else (",", ":"), ensure_ascii=False)
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def say_json(value: Any, *, indent: int | None = None) -> None:
    """JSON on standard output."""
    print(json_text(value, indent=indent), flush=True)

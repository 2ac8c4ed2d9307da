"""What a build says, stage after stage, although stages may run side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Emit = Callable[[dict[str, Any]], None]


class Section:
    """What one stage says: passed on at once when it is its turn, kept until then."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self.kept: list[dict[str, Any]] = []
        self.ended = False

    def message(self, message: dict[str, Any]) -> None:
        """One message of Docker's stream."""
        if self._transcript.current is self:
            self._transcript.emit(message)
        else:
            self.kept.append(message)

    def say(self, text: str) -> None:
        """Text for the user."""
        if text:
            self.message({"stream": text})

    def end(self) -> None:
        """Nothing more will come: it is the next stage's turn."""
        self.ended = True
        self._transcript.advance()


class Transcript:
    """Sections in the order of the Dockerfile."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self._waiting: list[Section] = []
        self.current: Section | None = None

    def section(self) -> Section:
        """The next section."""
        section = Section(self)
        self._waiting.append(section)
        self.advance()
        return section

    def advance(self) -> None:
        """Move on to the first section that has not ended, giving out what was kept."""
        while self.current is None or self.current.ended:
            if not self._waiting:
                return
            self.current = self._waiting.pop(0)
            for message in self.current.kept:
                self.emit(message)
            self.current.kept.clear()

    def flush(self, failed: Section) -> None:
        """The build ends with this section: let it speak whatever came before it."""
        if failed is not self.current:
            for message in failed.kept:
                self.emit(message)
            failed.kept.clear()


class Quiet:
    """Keeps messages that are wanted only after a failure."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []

    def __call__(self, message: dict[str, Any]) -> None:
        self.kept.append(message)


def excerpt(text: str, name: str, line: int, around: int = 2) -> str:
    """The lines around one of a file, it marked."""
    rows = text.splitlines()
    first, last = max(1, line - around), min(len(rows), line + around)
    body = "".join(f"{'>>>' if row == line else '   '} {row:4} | {rows[row - 1]}\n" for row in range(first, last + 1))
    return f"{name}:{line}\n{'-' * 20}\n{body}{'-' * 20}\n"

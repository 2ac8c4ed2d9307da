"""What a build says to clients of Docker's classic builder: one text, stage after stage, although stages may run side
by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enisle.build import report
from enisle.build.report import Place
from enisle.errors import EnisleError
from enisle.formats.dockerfile.instructions import Instruction, Stage
from enisle.formats.reference import parse_reference
from enisle.model.ids import ImageId

Emit = Callable[[dict[str, Any]], None]
_RED, _PLAIN = "\x1b[91m", "\x1b[0m"  # what dockerd puts around stderr


class Section(report.Section):
    """What one stage says: passed on at once when it is its turn, kept until then."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self.kept: list[dict[str, Any]] = []
        self.ended = False

    def message(self, message: dict[str, Any]) -> None:
        if self._transcript.current is self:
            self._transcript.emit(message)
        else:
            self.kept.append(message)

    def note(self, text: str) -> None:
        if text:
            self.message({"stream": text})

    def step(self, instruction: Instruction, place: Place) -> None:
        self.note(f"Step {place.number}/{place.total} : {instruction.text}\n")

    def cached(self) -> None:
        self.note(" ---> Using cache\n")

    def image(self, image: ImageId | None) -> None:
        self.note(f" ---> {short(image) if image else ''}\n")

    def output(self, text: str, *, stderr: bool) -> None:
        self.note(f"{_RED}{text}{_PLAIN}" if stderr and text else text)

    def failed(self, error: EnisleError) -> None:
        self._transcript.flush(self)

    def end(self) -> None:
        self.ended = True
        self._transcript.advance()


class Transcript(report.Report):
    """Sections in the order of the Dockerfile. ``quiet``: nothing but the image's id, and all if the build fails."""

    def __init__(self, emit: Emit, *, quiet: bool = False) -> None:
        self._outside = emit
        self._held: list[dict[str, Any]] | None = [] if quiet else None
        self._waiting: list[Section] = []
        self.current: Section | None = None

    def emit(self, message: dict[str, Any]) -> None:
        """One message of Docker's stream."""
        if self._held is None:
            self._outside(message)
        else:
            self._held.append(message)

    def section(self, stage: Stage, *, alone: bool, has_image: bool) -> Section:
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

    def warn(self, text: str) -> None:
        self.emit({"stream": f"[Warning] {text}\n"})

    def built(self, image: ImageId) -> None:
        self.emit({"aux": {"ID": image}})
        self.emit({"stream": f"Successfully built {short(image)}\n"})

    def tagged(self, name: str) -> None:
        self.emit({"stream": f"Successfully tagged {parse_reference(name).familiar}\n"})

    def explain(self, text: str, name: str, line: int) -> None:
        for message in self._held or ():
            self._outside(message)
        if line:
            self._outside({"stream": excerpt(text, name, line)})

    def ended(self, image: ImageId) -> None:
        if self._held is not None:
            self._outside({"stream": f"{image}\n"})


def short(image: str) -> str:
    """An image's id as Docker's builder shows it."""
    return image.partition(":")[2][:12]


def excerpt(text: str, name: str, line: int, around: int = 2) -> str:
    """The lines around one of a file, it marked."""
    rows = text.splitlines()
    first, last = max(1, line - around), min(len(rows), line + around)
    body = "".join(f"{'>>>' if row == line else '   '} {row:4} | {rows[row - 1]}\n" for row in range(first, last + 1))
    return f"{name}:{line}\n{'-' * 20}\n{body}{'-' * 20}\n"

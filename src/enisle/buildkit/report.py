"""What the builder tells, as BuildKit's vertices with BuildKit's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enisle.build import report
from enisle.build.report import Place
from enisle.build.stage import StepFailed
from enisle.buildkit.status import Progress, Step
from enisle.errors import EnisleError
from enisle.formats.dockerfile.instructions import Copy, Instruction, Run, SetText, Stage
from enisle.model.ids import ImageId

_SHOWN_LENGTH = 300


def _is_shown(instruction: Instruction) -> bool:
    """Whether an instruction has a vertex: those that change files."""
    return isinstance(instruction, Run | Copy) or (isinstance(instruction, SetText) and instruction.kind == "WORKDIR")


def _text(instruction: Instruction) -> str:
    text = instruction.text
    if isinstance(instruction, Run) and instruction.heredocs:
        text += f" ({instruction.heredocs[0].content.partition(chr(10))[0].strip()}...)"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def words_of(error: EnisleError) -> str:
    """A failure as BuildKit words it."""
    if isinstance(error, StepFailed) and error.exit_code:
        return f'process "{" ".join(error.words)}" did not complete successfully: exit code: {error.exit_code}'
    return str(error)


class Section(report.Section):
    """One stage: a vertex for the image of its FROM, and one for each instruction that changes files."""

    def __init__(self, progress: Progress, stage: Stage, *, alone: bool, has_image: bool) -> None:
        self._progress = progress
        self._base = stage.base
        name = stage.base.name or ("" if alone else f"stage-{stage.index}")
        self._prefix = f"{name} " if name else ""
        shown = [one for one in stage.instructions if _is_shown(one)]
        self._numbers = {id(one): number for number, one in enumerate([stage.base, *shown] if has_image else shown, 1)}
        self._step: Step | None = None

    def step(self, instruction: Instruction, place: Place) -> None:
        self._finish()
        number = self._numbers.get(id(instruction))
        if number is not None:
            total = str(len(self._numbers))
            text = f"FROM {self._base.image}" if instruction is self._base else _text(instruction)
            self._step = self._progress.vertex(f"[{self._prefix}{number:>{len(total)}}/{total}] {text}")

    def _finish(self) -> None:
        if self._step is not None:
            self._step.done()
            self._step = None

    def cached(self) -> None:
        if self._step is not None:
            self._step.cached()

    def image(self, image: ImageId | None) -> None:
        self._finish()

    def note(self, text: str) -> None:
        """BuildKit tells of no containers."""

    def output(self, text: str, *, stderr: bool) -> None:
        if self._step is not None and text:
            self._step.log(text.encode("utf-8", "replace"), stream=2 if stderr else 1)

    def message(self, message: dict[str, Any]) -> None:
        if self._step is not None:
            self._step.pulled(message)

    def failed(self, error: EnisleError) -> None:
        if self._step is not None:
            self._step.failed(words_of(error))
            self._step = None

    def end(self) -> None:
        self._finish()

    def cancel(self) -> None:
        """The build ends before this stage."""
        if self._step is not None:
            self._step.failed("context canceled")
            self._step = None


class Report(report.Report):
    """The whole build. ``built`` is called with the image before anybody else can remove it."""

    def __init__(self, progress: Progress, built: Callable[[ImageId], None]) -> None:
        self._progress = progress
        self._built = built
        self._sections: list[Section] = []
        self.source: tuple[str, str, int] | None = None

    def section(self, stage: Stage, *, alone: bool, has_image: bool) -> Section:
        section = Section(self._progress, stage, alone=alone, has_image=has_image)
        self._sections.append(section)
        return section

    def warn(self, text: str) -> None:
        self._progress.warn(text)

    def built(self, image: ImageId) -> None:
        self._built(image)

    def tagged(self, name: str) -> None:
        """Names are given when the image is exported."""

    def explain(self, text: str, name: str, line: int) -> None:
        if line:
            self.source = (text, name, line)

    def ended(self, image: ImageId) -> None:
        """The client sees it by the answer to its call."""

    def abandon(self) -> None:
        """Whatever is under way ends with the build."""
        for section in self._sections:
            section.cancel()

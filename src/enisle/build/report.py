"""What a build tells while it runs. Each protocol that clients speak has a report of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from enisle.errors import EnisleError
from enisle.formats.dockerfile.instructions import Instruction, Stage
from enisle.model.ids import ImageId


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an instruction stands: ``number`` of ``total`` in the build."""

    number: int
    total: int


class Section(ABC):
    """What one stage tells."""

    @abstractmethod
    def step(self, instruction: Instruction, place: Place) -> None:
        """An instruction begins; the one before it, if any, is done."""

    @abstractmethod
    def cached(self) -> None:
        """The step's result was there already."""

    @abstractmethod
    def image(self, image: ImageId | None) -> None:
        """What the stage is now."""

    @abstractmethod
    def note(self, text: str) -> None:
        """About how a step is carried out; only where all is told."""

    @abstractmethod
    def output(self, text: str, *, stderr: bool) -> None:
        """What a command prints."""

    @abstractmethod
    def message(self, message: dict[str, Any]) -> None:
        """Progress of a pull, as Docker's API has it."""

    @abstractmethod
    def failed(self, error: EnisleError) -> None:
        """The step could not be carried out; nothing more will come."""

    @abstractmethod
    def end(self) -> None:
        """The stage is done."""


class Report(ABC):
    """What the whole build tells."""

    @abstractmethod
    def section(self, stage: Stage, *, alone: bool, has_image: bool) -> Section:
        """The next stage in the order of the Dockerfile. ``alone``: there is no other. ``has_image``: it begins with an
        image, not with another stage or nothing."""

    @abstractmethod
    def warn(self, text: str) -> None:
        """Something the user should know."""

    @abstractmethod
    def built(self, image: ImageId) -> None:
        """The image is there."""

    @abstractmethod
    def tagged(self, name: str) -> None:
        """It has one more name."""

    @abstractmethod
    def explain(self, text: str, name: str, line: int) -> None:
        """A line of the Dockerfile (its text and name; 0: none) has failed."""

    @abstractmethod
    def ended(self, image: ImageId) -> None:
        """All is done."""

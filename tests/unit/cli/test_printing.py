"""What others wrote is shown, and steers no terminal."""

from __future__ import annotations

import json
import os

import pytest

from enisle.cli import printing
from enisle.cli.command import warn
from enisle.cli.template import Template

HOSTILE = "a\x1b[2J\x9b31m\x07\u202eb"


def test_escapes_are_shown() -> None:
    assert printing.printable(f"{HOSTILE}\nc\td") == r"a\x1b[2J\x9b31m\x07\u202eb c d"
    assert printing.visible(f"{HOSTILE}\nc\td") == r"a\x1b[2J\x9b31m\x07\u202eb" + "\nc\td"
    assert printing.visible("Größe 日本 ✓") == "Größe 日本 ✓"


def test_json_is_the_same_value_and_steers_nothing() -> None:
    text = printing.json_text({HOSTILE: ["\x7f", "\udc80", "ö"]}, indent=2)
    assert json.loads(text) == {HOSTILE: ["\x7f", "\udc80", "ö"]}
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "ö" in text


def test_programs_get_text_as_it_is_and_people_get_it_visible() -> None:
    with open(os.devnull, "w") as pipe:
        assert printing.for_output(pipe)(HOSTILE) == HOSTILE
    master, slave = os.openpty()
    with open(master, "w") as _, open(slave, "w") as terminal:
        assert printing.for_output(terminal)(HOSTILE) == printing.visible(HOSTILE)


def test_templates_keep_what_the_user_wrote() -> None:
    template = Template("\x1b[1m{{.Name}}", clean=printing.visible)
    assert template.render({"Name": "\x1b[2J"}) == "\x1b[1m" + r"\x1b[2J"


def test_errors_cannot_steer_either(capsys: pytest.CaptureFixture[str]) -> None:
    warn(f"enisle: {HOSTILE}\nsecond line")
    assert capsys.readouterr().err == r"enisle: a\x1b[2J\x9b31m\x07\u202eb" + "\nsecond line\n"

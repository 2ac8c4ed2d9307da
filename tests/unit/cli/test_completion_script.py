"""The completion script of bash, by bash: words as readline splits them, candidates as it wants them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enisle.cli.main import main
from tests.unit.sdk.fake_server import FakeServer

CASES = [
    (["rm", "w"], ["web"]),
    (["run", "--network", "=", "ba"], ["back"]),
    (["rmi", "debian", ":", "1"], ["12"]),
    (["cp", "w"], ["web:"]),
    (["load", "-i", "some-f"], ["some-file"]),
]


def test_bash_is_given_what_goes_on_from_its_last_break(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("GET", "/containers/json", [{"Id": "1", "Names": ["/web"], "State": "running", "Status": "Up"}])
    server.on("GET", "/images/json", [{"Id": "x", "RepoTags": ["debian:12"]}])
    server.on("GET", "/networks", [{"Name": "bridge", "Driver": "bridge"}, {"Name": "back"}])
    (tmp_path / "some-file").touch()
    assert main(["completion", "bash"]) == 0
    lines = [capsys.readouterr().out, f'enisle() {{ "{sys.executable}" -m enisle.cli.main "$@"; }}']
    for words, _ in CASES:
        quoted = " ".join(f"'{word}'" for word in ["enisle", *words])
        lines.append(f'COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _enisle; echo "${{COMPREPLY[*]}}"')
    done = subprocess.run(
        ["bash", "--norc", "-c", "\n".join(lines)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ENISLE_HOST": server.host},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert [line.split() for line in done.stdout.splitlines()] == [expected for _, expected in CASES]

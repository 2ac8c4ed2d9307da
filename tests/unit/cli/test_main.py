"""The command line as a whole, against a fake daemon."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enisle.cli.main import main
from tests.unit.sdk.fake_server import Answer, Asked, FakeServer, frame

Cli = Callable[..., int]
ID = "0123456789abcdef" * 4


@pytest.fixture
def cli(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.setenv("ENISLE_HOST", server.host)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return lambda *words: main(list(words))


def summary(**values: Any) -> dict[str, Any]:
    base = {
        "Id": ID, "Names": ["/web"], "Image": "debian:12", "Command": "sleep 1", "Created": 1, "State": "running",
        "Status": "Up 5 seconds", "Ports": [], "Labels": {"a": "b"}, "Isolation": "container", "Mounts": [],
    }  # fmt: skip
    return base | values


def test_ps_shows_the_wall(cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/containers/json", [summary(), summary(Names=["/guest"], Isolation="vm")])
    assert cli("ps", "-a", "--filter", "status=running") == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split("   ")[0] == "CONTAINER ID"
    assert "WALL" in header
    assert first.split()[0] == ID[:12]
    assert " container " in first
    assert " vm " in second
    assert json.loads(server.asked[0].query["filters"]) == {"status": ["running"]}


def test_ps_formats(cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/containers/json", [summary()])
    assert cli("ps", "--format", '{{.ID}} {{.Names}} {{.Label "a"}} {{.State}}') == 0
    assert capsys.readouterr().out == f"{ID[:12]} web b running\n"
    assert cli("container", "ls", "-q", "--no-trunc") == 0
    assert capsys.readouterr().out == f"{ID}\n"
    assert cli("ps", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["Id"] == ID


def runnable(server: FakeServer, *, code: int = 0, output: bytes = b"") -> None:
    server.on("POST", "/containers/create", Answer(201, {"Id": ID, "Warnings": ["mind"]}))
    server.on("POST", f"/containers/{ID}/start", Answer(204))
    server.on("POST", f"/containers/{ID}/attach", Answer(hijack=lambda connection: connection.sendall(output)))
    server.on("POST", f"/containers/{ID}/wait", {"StatusCode": code})


def test_run_gives_output_and_exit_code(cli: Cli, server: FakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    runnable(server, code=7, output=frame(1, b"to out\n") + frame(2, b"to err\n"))
    assert cli("run", "--rm", "--name", "x", "debian:12", "sh", "-c", "exit 7") == 7
    captured = capfd.readouterr()
    assert captured.out == "to out\n"
    assert captured.err == "WARNING: mind\nto err\n"
    order = [asked.path.rpartition("/")[2] for asked in server.asked]
    assert order == ["create", "attach", "wait", "start"]
    assert server.asked[0].query == {"name": "x"}
    assert server.asked[0].json()["HostConfig"]["AutoRemove"] is True
    assert server.asked[2].query == {"condition": "removed"}


def test_run_detached_prints_the_id(
    cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runnable(server)
    assert cli("run", "-d", "--cidfile", str(tmp_path / "cid"), "debian") == 0
    assert capsys.readouterr().out == f"{ID}\n"
    assert (tmp_path / "cid").read_text() == ID
    assert cli("run", "-d", "--cidfile", str(tmp_path / "cid"), "debian") == 125
    assert "file found" in capsys.readouterr().err


def test_run_fetches_an_image_that_is_missing(cli: Cli, server: FakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    answers = [Answer(404, {"message": "No such image: debian:12"}), Answer(201, {"Id": ID})]
    server.on("POST", "/containers/create", lambda asked: answers.pop(0))
    runnable(server)
    server.on("POST", "/images/create", Answer(pieces=[b'{"status":"Pulling from debian","id":"12"}\n']))
    assert cli("run", "debian:12") == 0
    captured = capfd.readouterr()
    assert "Unable to find image 'debian:12' locally\n12: Pulling from debian\n" in captured.err
    assert captured.out == ""
    pulled = server.requests("POST", "/images/create")[0]
    assert pulled.query == {"fromImage": "debian", "tag": "12"}


def test_run_never_pulls_when_told_so(cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("POST", "/containers/create", Answer(404, {"message": "No such image: debian"}))
    assert cli("run", "--pull", "never", "debian") == 125
    assert capsys.readouterr().err == "enisle: No such image: debian\n"
    assert not server.requests("POST", "/images/create")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('exec: "nope": executable file not found in $PATH', 127),
        ("exec /etc/passwd: permission denied", 126),
        ("driver failed: port is already allocated", 125),
    ],
)
def test_run_tells_why_it_did_not_start(
    cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str], message: str, code: int
) -> None:
    server.on("POST", f"/containers/{ID}/start", Answer(400, {"message": message}))
    runnable(server)
    assert cli("run", "debian", "nope") == code
    assert message in capsys.readouterr().err


def test_run_passes_stdin_and_its_end(
    cli: Cli, server: FakeServer, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(connection: Any) -> None:
        data = b""
        while piece := connection.recv(1000):
            data += piece
        connection.sendall(frame(1, data.upper()))

    server.on("POST", f"/containers/{ID}/attach", Answer(hijack=echo))
    runnable(server)
    source = tmp_path / "input"
    source.write_bytes(b"hello\n" * 50_000)
    keep = os.dup(0)
    with source.open("rb") as file:
        os.dup2(file.fileno(), 0)
    try:
        assert cli("run", "-i", "debian", "cat") == 0
    finally:
        os.dup2(keep, 0)
        os.close(keep)
    assert capfd.readouterr().out == "HELLO\n" * 50_000


def test_exec_gives_the_exit_code(cli: Cli, server: FakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    server.on("POST", "/containers/web/exec", Answer(201, {"Id": "e1"}))
    server.on("POST", "/exec/e1/start", Answer(hijack=lambda connection: connection.sendall(frame(1, b"x"))))
    server.on("GET", "/exec/e1/json", {"ExitCode": 3})
    assert cli("exec", "-u", "1", "web", "sh", "-u") == 3
    assert capfd.readouterr().out == "x"
    assert server.asked[0].json()["Cmd"] == ["sh", "-u"]
    assert server.asked[0].json()["User"] == "1"


def test_logs_come_apart(cli: Cli, server: FakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/containers/web/json", {"Id": ID, "Config": {"Tty": False}})
    server.on(
        "GET", f"/containers/{ID}/logs", Answer(pieces=[frame(1, b"a\n") + frame(2, b"b\n")[:5], frame(2, b"b\n")[5:]])
    )
    assert cli("logs", "-n", "5", "--since", "2024-05-01T12:00:00Z", "web") == 0
    assert capfd.readouterr() == ("a\n", "b\n")
    assert server.asked[1].query["tail"] == "5"
    assert server.asked[1].query["since"] == "1714564800.000000000"


def test_each_is_done_even_if_one_fails(cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("POST", "/containers/(a|c)/stop", Answer(204))
    server.on("POST", "/containers/b/stop", Answer(404, {"message": "No such container: b"}))
    server.on("POST", "/containers/d/stop", Answer(304))
    assert cli("stop", "-t", "3", "a", "b", "c", "d") == 1
    assert capsys.readouterr() == ("a\nc\nd\n", "enisle: No such container: b\n")
    assert server.asked[0].query == {"t": "3"}


def test_inspect_finds_whatever_has_the_name(cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", "/(containers|images|networks)/x(/json)?", Answer(404, {"message": "no"}))
    server.on("GET", "/volumes/x", {"Name": "x", "Mountpoint": "/m"})
    assert cli("inspect", "-f", "{{.Mountpoint}}", "x") == 0
    assert capsys.readouterr().out == "/m\n"
    assert cli("inspect", "gone", "x") == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == [{"Name": "x", "Mountpoint": "/m"}]
    assert captured.err == "enisle: No such object: gone\n" or "page not found" in captured.err


def test_images_list_each_name(cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    images = [
        {"Id": "sha256:" + "a" * 64, "RepoTags": ["debian:12", "r:5000/x:1"], "Created": 1, "Size": 117_000_000},
        {"Id": "sha256:" + "b" * 64, "RepoTags": [], "RepoDigests": [], "Created": 1, "Size": 5},
    ]
    server.on("GET", "/images/json", images)
    assert cli("images") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:]] == [
        ["debian", "12", "a" * 12],
        ["r:5000/x", "1", "a" * 12],
        ["<none>", "<none>", "b" * 12],
    ]
    assert lines[1][-1] == "117MB"
    assert cli("images", "-q") == 0
    assert capsys.readouterr().out.split() == ["a" * 12, "b" * 12]


def test_pull_shows_progress_and_errors(cli: Cli, server: FakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    server.on(
        "POST", "/images/create", Answer(pieces=[b'{"errorDetail":{"message":"manifest unknown"},"error":"x"}\n'])
    )
    assert cli("pull", "r:5000/x") == 1
    assert capfd.readouterr() == ("Using default tag: latest\n", "enisle: manifest unknown\n")


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def stat_header(mode: int) -> dict[str, str]:
    import base64

    value = {"name": "x", "size": 1, "mode": mode, "mtime": "2024-05-01T12:00:00Z", "linkTarget": ""}
    return {"X-Docker-Container-Path-Stat": base64.b64encode(json.dumps(value).encode()).decode()}


def test_cp_out_renames_and_stays_inside(
    cli: Cli, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("GET", "/containers/web/archive", Answer(body=archive(hosts=b"127"), headers=stat_header(0o644)))
    assert cli("cp", "web:/etc/hosts", f"{tmp_path}/copy") == 0
    assert (tmp_path / "copy").read_bytes() == b"127"
    (tmp_path / "inner").mkdir()
    evil = archive(**{"hosts/../../outside": b"evil"})
    server._routes.clear()
    server.on("GET", "/containers/web/archive", Answer(body=evil, headers=stat_header(0o644)))
    assert cli("cp", "web:/etc/hosts", f"{tmp_path}/inner") == 1
    assert not (tmp_path / "outside").exists()
    assert "leads out" in capsys.readouterr().err


def test_cp_in_packs_under_the_new_name(cli: Cli, server: FakeServer, tmp_path: Path) -> None:
    def stat(asked: Asked) -> Answer:
        there = asked.query["path"] == "/srv"
        return Answer(headers=stat_header((1 << 31) | 0o755)) if there else Answer(404, {"message": "no such file"})

    server.on("HEAD", "/containers/web/archive", stat)
    server.on("GET", "/containers/web/json", {"Id": ID})
    server.on("PUT", "/containers/web/archive", Answer())
    site = tmp_path / "site"
    (site / "d").mkdir(parents=True)
    (site / "d" / "f").write_text("text")
    assert cli("cp", str(site), "web:/srv") == 0
    assert cli("cp", f"{site}/.", "web:/srv") == 0
    assert cli("cp", str(site), "web:/new") == 0
    found = []
    for asked in server.requests("PUT", "/containers/web/archive"):
        with tarfile.open(fileobj=io.BytesIO(asked.body)) as tar:
            found.append((asked.query["path"], sorted(name.removeprefix("./") for name in tar.getnames())))
    assert found == [
        ("/srv", ["site", "site/d", "site/d/f"]),
        ("/srv", [".", "d", "d/f"]),
        ("/", ["new", "new/d", "new/d/f"]),
    ]


def test_save_leaves_no_half_file(cli: Cli, server: FakeServer, tmp_path: Path) -> None:
    target = tmp_path / "image.tar"
    server.on("GET", "/images/get", Answer(404, {"message": "No such image: x"}))
    assert cli("save", "-o", str(target), "x") == 1
    assert list(tmp_path.glob("image.tar*")) == []
    server._routes.clear()
    server.on("GET", "/images/get", Answer(pieces=[b"tar", b"ball"]))
    assert cli("save", "-o", str(target), "x", "y") == 0
    assert target.read_bytes() == b"tarball"


def test_prune_asks_unless_forced(
    cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("POST", "/containers/prune", {"ContainersDeleted": [ID], "SpaceReclaimed": 1500})
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert cli("container", "prune") == 1
    assert not server.asked
    assert cli("container", "prune", "-f") == 0
    assert f"{ID}\n\nTotal reclaimed space: 1.5kB\n" in capsys.readouterr().out


def test_login_keeps_what_the_registry_takes(
    cli: Cli, server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.on("POST", "/auth", {"Status": "Login Succeeded", "IdentityToken": ""})
    server.on("POST", "/images/r.example/x/push", Answer(pieces=[b'{"status":"done"}\n']))
    monkeypatch.setattr("sys.stdin", io.StringIO("secret\n"))
    assert cli("login", "-u", "ann", "--password-stdin", "r.example") == 0
    assert "Login Succeeded" in capsys.readouterr().out
    assert server.asked[0].json() == {"username": "ann", "password": "secret", "serveraddress": "r.example"}
    assert cli("push", "r.example/x:1") == 0
    assert server.asked[1].headers["x-registry-auth"]
    assert cli("logout", "r.example") == 0
    assert json.loads((tmp_path / "docker" / "config.json").read_text())["auths"] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pss",), "Did you mean 'enisle ps'"),
        (("image", "lss"), "Did you mean 'enisle image ls'"),
        (("run", "--memroy", "1g", "x"), "Did you mean --memory?"),
        (("run",), "requires at least 1 argument"),
        (("rename", "a"), "requires exactly 2 arguments"),
        (("ps", "x"), "accepts no arguments"),
        (("run", "-m", "lots", "x"), "invalid size: 'lots'"),
        (("run", "-d", "-a", "stdout", "x"), "both --attach and --detach"),
        (("--nonsense", "ps"), "unknown flag: --nonsense"),
        (("completion", "tcsh"), "expected bash, zsh or fish"),
    ],
)
def test_wrong_command_lines_end_with_125(
    cli: Cli, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert cli(*words) == 125
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_without_a_daemon_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENISLE_HOST", f"unix://{tmp_path}/gone")
    assert main(["ps"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["run", "x"]) == 125
    assert main(["version"]) == 1


def test_help_is_there_for_everything(capsys: pytest.CaptureFixture[str]) -> None:
    from enisle.cli import tree

    assert main([]) == 0
    assert main(["--help"]) == 0
    for name in tree.TOP:
        assert main([name, "--help"]) == 0
        assert main(["help", name]) == 0
    for group, verbs in tree.GROUPS.items():
        main([group])
        for verb in verbs.verbs:
            assert main([group, verb, "--help"]) == 0
            assert f"enisle {group} {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("buffered", [True, False])
def test_output_on_a_full_disk_is_a_failure_in_one_sentence(server: FakeServer, buffered: bool) -> None:
    server.on("GET", "/containers/json", [summary()])
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, *([] if buffered else ["-u"]), "-m", "enisle.cli.main", "-H", server.host, "ps"],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    sentence = "enisle: standard output cannot be written: No space left on device.\n"
    assert (done.returncode, done.stderr) == (1, sentence)


def test_networks_are_made_as_the_flags_say(cli: Cli, server: FakeServer) -> None:
    server.on("POST", "/networks/create", Answer(201, {"Id": "n"}))
    assert cli("network", "create", "--config-only", "--subnet", "10.1.0.0/24", "kept") == 0
    assert cli("network", "create", "--config-from", "kept", "--ipv4=false", "--ipv6", "made") == 0
    first, second = (asked.json() for asked in server.asked)
    assert (first["ConfigOnly"], "ConfigFrom" in first, "EnableIPv4" in first) == (True, False, False)
    assert first["IPAM"]["Config"] == [{"Subnet": "10.1.0.0/24"}]
    assert second["ConfigFrom"] == {"Network": "kept"}
    assert (second["ConfigOnly"], second["EnableIPv4"], second["EnableIPv6"]) == (False, False, True)


@pytest.mark.parametrize(
    ("words", "own", "foreign"),
    [
        ("network create", "--subnet", "--entrypoint"),
        ("volume create", "--size", "--entrypoint"),
        ("container create", "--entrypoint", "--detach"),
        ("run", "--detach", "--subnet"),
    ],
)
def test_help_shows_the_flags_of_the_verb(
    words: str, own: str, foreign: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert f" {own} " in shown
    assert f" {foreign} " not in shown


def test_help_tells_what_each_flag_does() -> None:
    from enisle.cli import tree

    paths = {path for group in tree.GROUPS.values() for path in group.verbs.values()} | set(tree.TOP.values())
    silent = [
        f"{path} --{flag.name}" for path in paths for flag in tree.load(path).flags if not (flag.help or flag.hidden)
    ]
    assert not silent


def test_help_for_the_workload_is_not_ours(cli: Cli, server: FakeServer, capfd: pytest.CaptureFixture[str]) -> None:
    runnable(server, output=frame(1, b"usage of ls\n"))
    assert cli("run", "--name", "x", "debian", "ls", "--help") == 0
    assert capfd.readouterr().out == "usage of ls\n"
    assert server.asked[0].json()["Cmd"] == ["ls", "--help"]

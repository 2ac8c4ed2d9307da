"""Our own client against a real daemon. The docker client's tests cover the API; these cover what is ours."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    """A name for one instance, which is removed afterwards."""
    made = f"cli-{os.urandom(4).hex()}"
    yield made
    daemon.enisle("rm", "-f", "-v", made, check=False)


def popen(daemon: Daemon, *words: str, **options: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "ENISLE_HOST": f"unix://{daemon.socket}", "TERM": "xterm"}
    return subprocess.Popen([sys.executable, "-m", "enisle.cli.main", *words], env=environment, **options)  # type: ignore[call-overload,no-any-return]


def test_output_streams_and_exit_code(daemon: Daemon) -> None:
    done = daemon.enisle("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_the_vm_wall_has_a_kernel_of_its_own(daemon: Daemon, name: str) -> None:
    done = daemon.enisle("run", "--name", name, "--vm", "-m", "256m", "busybox", "uname", "-r", timeout_s=300)
    assert done.stdout.strip() != os.uname().release
    (listed,) = json.loads(daemon.enisle("ps", "-a", "--json", "--filter", f"name={name}").stdout)
    assert listed["Isolation"] == "vm"
    shown = daemon.enisle("ps", "-a", "--filter", f"name={name}", "--format", "{{.Wall}} {{.Names}}").stdout
    assert shown == f"vm {name}\n"


def test_stdin_and_its_end(daemon: Daemon) -> None:
    text = "line\n" * 100_000
    assert daemon.enisle("run", "--rm", "-i", "busybox", "cat", input=text).stdout == text


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/etc", 126)])
def test_commands_that_cannot_run(daemon: Daemon, name: str, command: str, code: int) -> None:
    done = daemon.enisle("run", "--name", name, "busybox", command, check=False)
    assert done.returncode == code
    assert done.stderr.startswith("enisle: ")


def test_refusals_of_the_daemon_end_with_125(daemon: Daemon) -> None:
    done = daemon.enisle("run", "--rm", "--pull", "never", "no-such-image", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    done = daemon.enisle("run", "--rm", "-m", "1m", "busybox", check=False)
    assert done.returncode == 125


def test_signals_reach_the_workload(daemon: Daemon) -> None:
    script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    process = popen(daemon, "run", "--rm", "busybox", "sh", "-c", script, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == b"caught\n"
    process.stdout.close()
    assert process.wait(30) == 9


def read_until(master: int, wanted: bytes) -> bytes:
    text = b""
    while wanted not in text:
        text += os.read(master, 4096)
    return text


def test_a_terminal_with_detach_and_attach(daemon: Daemon, name: str) -> None:
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    shell = popen(daemon, "run", "-it", "--name", name, "busybox", "sh", **streams)
    read_until(master, b"# ")
    os.write(master, b"tty && echo in''side\n")
    assert b"/dev/pts/0" in read_until(master, b"inside")
    os.write(master, b"\x10\x11")
    read_until(master, b"read escape sequence")
    assert shell.wait(30) == 0
    assert daemon.enisle("inspect", "-f", "{{.State.Running}}", name).stdout == "true\n"
    shell = popen(daemon, "attach", name, **streams)
    os.write(master, b"echo a''gain\n")
    read_until(master, b"again")
    os.write(master, b"exit 5\n")
    assert shell.wait(30) == 5
    os.close(slave)
    os.close(master)


def test_start_attached_gives_output_and_exit_code(daemon: Daemon, name: str) -> None:
    daemon.enisle("create", "--name", name, "-i", "busybox", "sh", "-c", "cat; exit 3")
    done = daemon.enisle("start", "-ai", name, input="hello", check=False)
    assert (done.returncode, done.stdout) == (3, "hello")


def test_exec_and_lifecycle(daemon: Daemon, name: str) -> None:
    daemon.enisle("run", "-d", "--name", name, "--label", "cli=yes", "busybox", "sleep", "1000")
    assert daemon.enisle("exec", "-e", "X=1", "-w", "/tmp", name, "sh", "-c", "echo $X; pwd").stdout == "1\n/tmp\n"
    assert daemon.enisle("exec", name, "sh", "-c", "exit 4", check=False).returncode == 4
    assert daemon.enisle("exec", name, "nope", check=False).returncode in (126, 127)
    assert daemon.enisle("pause", name).stdout == f"{name}\n"
    daemon.enisle("unpause", name)
    daemon.enisle("update", "-m", "64m", "--memory-swap", "-1", name)
    assert daemon.enisle("inspect", "-f", "{{.HostConfig.Memory}}", name).stdout == f"{64 << 20}\n"
    assert name in daemon.enisle("stats", "--no-stream", name).stdout
    assert "sleep 1000" in daemon.enisle("top", name).stdout
    assert daemon.enisle("kill", name).stdout == f"{name}\n"
    assert daemon.enisle("wait", name).stdout == "137\n"
    shown = daemon.enisle("ps", "-a", "--filter", "label=cli=yes", "--filter", f"name={name}").stdout
    assert "Exited (137)" in shown
    assert daemon.enisle("rm", name).stdout == f"{name}\n"
    done = daemon.enisle("rm", name, check=False)
    assert (done.returncode, done.stderr) == (1, f"enisle: No such container: {name}\n")


def test_files_in_and_out(daemon: Daemon, name: str, tmp_path: Path) -> None:
    daemon.enisle("create", "--name", name, "busybox", "true")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"content")
    (tree / "link").symlink_to("sub/file")
    daemon.enisle("cp", str(tree), f"{name}:/tmp")
    daemon.enisle("cp", f"{tree}/.", f"{name}:/opt")
    daemon.enisle("cp", f"{name}:/tmp/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "file").read_bytes() == b"content"
    assert (tmp_path / "back" / "link").is_symlink()
    daemon.enisle("cp", "-L", f"{name}:/opt/link", str(tmp_path / "followed"))
    assert (tmp_path / "followed").read_bytes() == b"content"
    changed = daemon.enisle("diff", name).stdout.splitlines()
    assert {"A /tmp/tree/sub/file", "A /opt/link"} <= set(changed)
    exported = tmp_path / "root.tar"
    daemon.enisle("export", "-o", str(exported), name)
    with tarfile.open(exported) as tar:
        assert "tmp/tree/sub/file" in {member.removeprefix("./") for member in tar.getnames()}
    done = daemon.enisle("cp", f"{name}:/gone", str(tmp_path), check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_images_through_files(daemon: Daemon, name: str, tmp_path: Path) -> None:
    image = f"{name}:1"
    daemon.enisle("run", "--name", name, "busybox", "sh", "-c", "echo made > /made")
    daemon.enisle("commit", "-m", "with a file", "-c", "CMD cat /made", name, image)
    assert daemon.enisle("run", "--rm", image).stdout == "made\n"
    assert "with a file" in daemon.enisle("history", image).stdout
    archive = tmp_path / "image.tar"
    daemon.enisle("save", "-o", str(archive), image)
    daemon.enisle("tag", image, f"{name}:2")
    listed = daemon.enisle("images", name, "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(listed) == [f"{name}:1", f"{name}:2"]
    daemon.enisle("rmi", f"{name}:1", f"{name}:2")
    assert daemon.enisle("load", "-i", str(archive)).stdout == f"Loaded image: {image}\n"
    daemon.enisle("rmi", image)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    root = tmp_path / "root.tar"
    root.write_bytes(buffer.getvalue())
    assert daemon.enisle("import", str(root), f"{name}:imported").stdout.strip()
    daemon.enisle("rmi", f"{name}:imported")


def test_logs(daemon: Daemon, name: str) -> None:
    daemon.enisle("run", "--name", name, "busybox", "sh", "-c", "echo one; echo two >&2; echo three")
    done = daemon.enisle("logs", name)
    assert (done.stdout, done.stderr) == ("one\nthree\n", "two\n")
    # Which of two streams was read last is chance; that one line was asked for is not.
    last = daemon.enisle("logs", "-n", "1", name)
    assert len((last.stdout + last.stderr).splitlines()) == 1
    assert daemon.enisle("logs", "-f", "--since", "1h", name).stdout == "one\nthree\n"


def test_volumes_and_networks(daemon: Daemon, name: str) -> None:
    assert daemon.enisle("volume", "create", name).stdout == f"{name}\n"
    daemon.enisle("run", "--rm", "-v", f"{name}:/data", "busybox", "touch", "/data/kept")
    assert daemon.enisle("run", "--rm", "-v", f"{name}:/data", "busybox", "ls", "/data").stdout == "kept\n"
    assert name in daemon.enisle("volume", "ls", "-q").stdout.split()
    daemon.enisle("volume", "rm", name)
    network = f"n{name}"
    daemon.enisle("network", "create", "--internal", network)
    shown = daemon.enisle("network", "inspect", "-f", "{{.Internal}} {{.Driver}}", network).stdout
    assert shown == "true bridge\n"
    daemon.enisle("network", "rm", network)
    done = daemon.enisle("network", "rm", network, check=False)
    assert (done.returncode, done.stderr) == (1, f"enisle: network {network} not found\n")


def test_ports_are_shown(daemon: Daemon, name: str) -> None:
    daemon.enisle("run", "-d", "--name", name, "-p", "127.0.0.1::80", "busybox", "sleep", "1000")
    address = daemon.enisle("port", name, "80").stdout.strip()
    assert address.startswith("127.0.0.1:")
    assert f"{address}->80/tcp" in daemon.enisle("ps", "--filter", f"name={name}").stdout


def test_events(daemon: Daemon, name: str) -> None:
    daemon.enisle("run", "--name", name, "busybox", "true")
    lines = daemon.enisle("events", "--since", "5m", "--until", "0s", "--filter", f"container={name}", "--json").stdout
    actions = [json.loads(line)["Action"] for line in lines.splitlines()]
    assert [action for action in actions if action in ("create", "start", "die")] == ["create", "start", "die"]


def test_doctor_reports_what_the_daemon_sees(daemon: Daemon) -> None:
    lines = {line["name"]: line for line in json.loads(daemon.enisle("doctor", "--json", check=False).stdout)}
    assert lines["daemon"]["ok"]
    assert lines["overlayfs"]["ok"]
    assert str(daemon.data_root) in lines["disk space"]["detail"]


def test_facts(daemon: Daemon) -> None:
    found = json.loads(daemon.enisle("version", "--json").stdout)
    assert found["Server"]["ApiVersion"] == "1.47"
    assert "vm" in daemon.enisle("info").stdout
    assert json.loads(daemon.enisle("info", "--format", "json").stdout)["Name"]
    assert "Images" in daemon.enisle("system", "df").stdout
    assert "Volumes" in daemon.enisle("system", "df", "-v").stdout


def test_completion_knows_what_is_there(daemon: Daemon, name: str) -> None:
    daemon.enisle("create", "--name", name, "busybox", "true")
    assert name in daemon.enisle("__complete", "--", "start", name[:6]).stdout.split()
    for shell in ("bash", "zsh", "fish"):
        assert "__complete" in daemon.enisle("completion", shell).stdout

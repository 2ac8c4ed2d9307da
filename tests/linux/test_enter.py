"""What the program in C begins, execs and first processes, is what Python begins: the same, or the same failure."""

from __future__ import annotations

import base64
import itertools
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from enisle.drivers import native
from enisle.wire.plans import ProcessPlan, to_json
from tests.linux.keepers import CAPABILITIES, Failed, Host, Peer, read_all

PASSWD = """root:x:0:0:root:/root:/bin/sh
#hidden:x:5:5::/hidden:
nohome:x:1001:1001::
short:x:1002:1002
few:x:1003
two:x:1004:1004:one:/first:
two:x:1005:1005:two:/second:
big:x:4294967295:1::/big:
zeros:x:01006:1006::/zeros:
: :x:1:1::/:
many:x:1007:1007:a:/many:/bin/sh:more:and:more
5000:x:1008:1008::/number:
last:x:1009:1009::/last:/bin/sh"""
GROUP = """root:x:0:
a:x:2001:many,two
b:x:2002: many
c:x:2003:x,many\t
d:x:2004
e:x:02005:many
f:x:2006:manyx,xmany
#g:x:2007:many
h:x:2008:two,,two
many:x:2009:"""
_numbers = itertools.count()
SHOW = (
    "exec 2>/dev/null; id -u; id -g; grep -E 'Groups|Cap|NoNewPrivs|Seccomp:|SigIgn|SigBlk|SigCgt' /proc/self/status; "
    "env | sort; pwd; umask; "
    "ulimit -n; ulimit -c; ls /proc/self/fd; stat -c %u /proc/self/fd/1; wc -l < /proc/self/cgroup; "
    "cat /proc/self/oom_score_adj"
)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Host, Peer]]]:
    """With it, and without anything compiled; in each an idle container. As with nohup and the like, some signals
    are ignored when the launcher is started."""
    made: list[tuple[Host, Peer]] = []
    ignored = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGQUIT, signal.SIGUSR2)}
    try:
        for compiled in (True, False):
            host = Host(tmp_path_factory.mktemp("host"), with_compiled=compiled)
            (host.layer / "etc/passwd").write_text(PASSWD)
            (host.layer / "etc/group").write_text(GROUP)
            (host.layer / "private").mkdir(mode=0o700)
            (host.layer / "way").symlink_to("/proc/self/fd")
            (host.layer / "script").write_text("#!/nowhere\n")
            (host.layer / "script").chmod(0o755)
            (host.layer / "bin/locked").write_text("")
            keeper = host.keeper(plan := host.plan("sleep", "1000"))
            made.append((host, keeper))
            keeper.ask("start", wall="container", plan=to_json(plan))
        yield made
    finally:
        for number, usual in ignored.items():
            signal.signal(number, usual)
        for host, keeper in made:
            keeper.close()
            host.close()


def run(keeper: Peer, process: ProcessPlan) -> Any:
    """Exit code and output, or how it failed."""
    ours, theirs = socket.socketpair()
    try:
        number = keeper.post(
            "exec", (theirs.fileno(),), exec_id=f"x{next(_numbers)}", process=to_json(process), stdin=False
        )
        theirs.close()
        keeper.answer(number)
        output = read_all(ours)
        return keeper.event("exec_exit")["exit_code"], output
    except Failed as error:
        return error.kind, error.exit_code, str(error)
    finally:
        ours.close()


def first(host: Host, args: tuple[str, ...], fields: dict[str, Any]) -> Any:
    """The same of a container's first process."""
    try:
        return host.run(host.plan(*args, **fields))
    except Failed as error:
        return error.kind, error.exit_code, str(error)


def both(hosts: list[tuple[Host, Peer]], *args: str, **fields: Any) -> Any:
    """What becomes of an exec; that and a first process are the same with it and without."""
    fields = {"env": ["PATH=/bin:/usr/bin"], "capabilities": list(CAPABILITIES), **fields}
    quick, plain = (first(host, args, fields) for host, _keeper in hosts)
    assert quick == plain
    quick, plain = (run(keeper, ProcessPlan(args=list(args), **fields)) for _host, keeper in hosts)
    assert quick == plain
    return quick


@pytest.mark.parametrize(
    "user",
    [
        *("", "0", "root", "nohome", "short", "few", "two", "1004", "1005", "big", "zeros", "many", "1007", "4242"),
        *("5000", "1008", "last", "#hidden", "hidden", ":a", "0:a", "two:2002", "two:nope", "1007:", "4242:0", "+5"),
        *("2147483647", "2147483648", "99999999999999999999", "-1", " 7", "7 ", "two:-1", "a\nb", "x" * 3000, "ü"),
    ],
)
def test_who_it_runs_as(hosts: list[tuple[Host, Peer]], user: str) -> None:
    both(hosts, "sh", "-c", SHOW, user=user)


@pytest.mark.parametrize("groups", [["a"], ["2001", "a", "3000"], ["nope"], ["-3"], ["2147483648"], ["d", "h", "2002"]])
def test_with_what_groups(hosts: list[tuple[Host, Peer]], groups: list[str]) -> None:
    both(hosts, "sh", "-c", SHOW, user="many", groups=groups)


@pytest.mark.parametrize(
    "fields",
    [
        {"env": []},
        {"env": ["HOME=", "PATH=/bin", "A=1", "A=2", "B", "=c", "D="]},
        {"env": ["HOME=/elsewhere", "PATH=/nope::/bin:"]},
        {"capabilities": []},
        {"capabilities": ["NET_RAW"], "user": "two"},
        {"no_new_privileges": True, "umask": 0o77},
        {"rlimits": [["NOFILE", 100, 200], ["CORE", 0, -1]]},
        {"rlimits": [["NOFILE", 1 << 30, 1 << 30], ["NPROC", -1, -1]]},
        {"oom_score_adj": 700},
        {"cwd": "/tmp", "user": "4242"},
        {"cwd": "tmp"},
    ],
)
def test_with_what(hosts: list[tuple[Host, Peer]], fields: dict[str, Any]) -> None:
    code, output = both(hosts, "/bin/sh", "-c", f"PATH=/bin; {SHOW}", **fields)
    assert code == 0, output
    assert b"SigIgn:\t0000000000000000" in output


@pytest.mark.parametrize(
    "cwd", ["/nope", "/etc/passwd", "/private", "/way/0", "/way/4", "/proc/self/fd/4", "/proc/1/root"]
)
def test_where(hosts: list[tuple[Host, Peer]], cwd: str) -> None:
    both(hosts, "pwd", cwd=cwd)
    both(hosts, "pwd", cwd=cwd, user="4242")


@pytest.mark.parametrize(
    "command",
    ["nope", "/nope", "/etc", "/etc/passwd", "/script", "locked", "./bin/true", "..", "/", "bin/sh/x", "\udcff"],
)
def test_what_cannot_be_run(hosts: list[tuple[Host, Peer]], command: str) -> None:
    both(hosts, command)
    both(hosts, command, user="4242", env=["PATH=/etc:/private:/bin:/"])


@pytest.mark.parametrize("user", ["", "two"])
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_with_a_filter(hosts: list[tuple[Host, Peer]], user: str, no_new_privileges: bool) -> None:
    number = {"x86_64": 170, "aarch64": 161}[os.uname().machine]  # sethostname(2)
    refusing = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 95), (0x06, 0, 0, 0x7FFF0000)]
    program = base64.b64encode(b"".join(struct.pack("=HBBI", *each) for each in refusing)).decode()
    options = {"seccomp_bpf": program, "no_new_privileges": no_new_privileges, "user": user}
    _code, output = both(hosts, "sh", "-c", f"(hostname x 2>&1); {SHOW}", **options)
    assert b"not supported" in output and b"Seccomp:\t2" in output
    assert both(hosts, "true", seccomp_bpf=base64.b64encode(bytes(8)).decode(), user=user)[1] == 128


def test_with_a_terminal(hosts: list[tuple[Host, Peer]]) -> None:
    options = {"terminal": True, "terminal_size": [11, 22], "stdin": True}
    code, output = both(hosts, "sh", "-c", "tty; stty size; cut -d' ' -f7 /proc/$$/stat; exit 4", **options)
    assert code == 4 and b"11 22" in output
    assert both(hosts, "sh", "-c", "stat -c %u $(tty)", user="two", **options)[1].strip() == b"1004"


def test_what_is_too_long_for_it_runs_all_the_same(hosts: list[tuple[Host, Peer]]) -> None:
    assert both(hosts, "sh", "-c", "echo ${#A}", env=["PATH=/bin", f"A={'a' * 100_000}"]) == (0, b"100000\n")


def test_it_is_the_program_in_use(hosts: list[tuple[Host, Peer]]) -> None:
    """Else all of this would compare Python with itself."""
    for (_host, keeper), wanted in zip(hosts, (1, 0), strict=True):
        links = f"ls -l /proc/{keeper.pid}/fd"
        shown = subprocess.run(["sh", "-c", links], capture_output=True, text=True, check=True).stdout
        assert shown.count("memfd:enisle-enter") == wanted


def test_without_a_compiler_there_is_a_line_in_the_log(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert native.ensure(tmp_path) == native.Native()
    assert "enter cannot be compiled: there is no C compiler" in caplog.text

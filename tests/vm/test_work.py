"""What is done in a running VM: execs, terminals, input, files, figures, pausing."""

import io
import os
import signal
import tarfile
import time

import pytest

from enisle.launcher.wall import WallError
from enisle.linux.route import Route
from enisle.wire.plans import LimitsPlan, NicPlan
from tests.vm.wall import Vm

pytestmark = pytest.mark.timeout(400)


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def archive(**files: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid, member.mtime = len(content), 12, 34, 1_600_000_000
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def test_exec_with_user_groups_directory_and_environment(running: Vm) -> None:
    done = running.exec(
        "sh", "-c", "id; pwd; echo $A $HOME; umask; exit 4", user="www:audio", cwd="/tmp", env=["PATH=/bin", "A=b"]
    )
    assert done.exit_code == 4
    assert done.output.decode().splitlines() == [
        "uid=33(www) gid=29(audio) groups=29(audio)",
        "/tmp",
        "b /var/www",
        "0022",
    ]
    assert running.exec("id", "-G", user="www").output == b"33 29\n"
    assert running.exec("id", user="4242:17").output == b"uid=4242 gid=17 groups=17\n"


@pytest.mark.parametrize("user", ["4294967296", "-1", "2147483647", "99999999999999999999", "nobody-here", "1000\n"])
def test_users_that_are_none_never_become_root(running: Vm, user: str) -> None:
    error = running.exec("id", user=user).error
    assert "unable to find user" in error.message


def test_a_user_has_no_capabilities_and_root_those_it_was_given(running: Vm) -> None:
    def effective(**changes: object) -> int:
        output = running.exec("grep", "CapEff", "/proc/self/status", **changes).output
        return int(output.split()[1], 16)

    assert effective(user="www") == 0
    assert effective(capabilities=["CHOWN"]) == 1
    assert running.exec("grep", "NoNewPrivs", "/proc/self/status", no_new_privileges=True).output.split()[1] == b"1"


def test_input_and_its_end(running: Vm) -> None:
    data = os.urandom(700_000)
    assert running.exec("cat", stdin=data).output == data
    assert running.exec("wc", "-c", stdin=b"").output.strip() == b"0"


def test_much_output_arrives_whole(running: Vm) -> None:
    output = running.exec("seq", "1", "200000").output
    assert output == b"".join(b"%d\n" % number for number in range(1, 200_001))


def test_output_that_nobody_takes_stops_the_writer_and_nobody_else(running: Vm) -> None:
    stalled = running.begin("sh", "-c", "seq 1 400000; echo end")
    stalled.session.pause_output()
    assert running.exec("echo", "alive").output == b"alive\n"
    assert not stalled.ended
    stalled.session.resume_output()
    running.wait(lambda: stalled.ended, 60)
    assert stalled.output.endswith(b"400000\nend\n")


def test_a_terminal(running: Vm) -> None:
    stdio = running.begin(
        "sh", "-c", "tty; stty size; read x; echo got $x; stty size", terminal=True, stdin=True, terminal_size=[30, 90]
    )
    running.wait(lambda: b"30 90" in stdio.output, 60)
    stdio.session.resize(40, 100)
    stdio.session.write_stdin(b"word\r")
    running.wait(lambda: stdio.ended, 60)
    text = stdio.output.decode()
    assert text.startswith("/dev/pts/")
    assert "got word" in text
    assert "40 100" in text


def test_signals_to_an_exec(running: Vm) -> None:
    stdio = running.begin("sleep", "1000")
    stdio.session.signal(signal.SIGINT)
    running.wait(lambda: stdio.ended, 60)
    assert stdio.exit_code == 128 + signal.SIGINT


def test_many_sessions_at_once(running: Vm) -> None:
    several = [running.begin("sh", "-c", f"read x; echo {number} $x", stdin=True) for number in range(12)]
    for number, stdio in enumerate(several):
        stdio.session.write_stdin(b"in%d\n" % number)
    for number, stdio in enumerate(several):
        running.wait(lambda stdio=stdio: stdio.ended, 60)  # type: ignore[misc]
        assert stdio.output == b"%d in%d\n" % (number, number)


def test_processes_and_figures(running: Vm) -> None:
    listed = running.ask(lambda done: running.wall.top("", done))
    assert [row[-1] for row in listed["processes"] if "sleep" in row[-1]] == ["sleep 100000"]
    stats = running.ask(running.wall.stats)
    assert stats.memory_limit_bytes == 256 << 20
    assert 0 < stats.memory_bytes < 256 << 20
    assert stats.cpu_total_ns > 0
    assert stats.pids >= 2
    assert stats.memory_stats["host_rss"] > 10 << 20
    assert stats.memory_stats["host_peak_rss"] >= stats.memory_stats["host_rss"] // 2


def test_files_go_in_and_out(running: Vm) -> None:
    content = os.urandom(1_500_000)
    assert running.put_files("/tmp", archive(**{"in/big": content, "in/small": b"x"})) == {}
    assert running.exec("stat", "-c", "%u %g %Y %s", "/tmp/in/big").output == b"12 34 1600000000 1500000\n"
    found = running.read_files("get", "/tmp/in")
    assert set(members(found)) == {"in", "in/big", "in/small"}
    with tarfile.open(fileobj=io.BytesIO(found)) as tar:
        extracted = tar.extractfile("in/big")
        assert extracted is not None and extracted.read() == content
    assert running.put_files("/tmp", archive(owned=b"y"), copy_uid_gid=True) == {}
    assert running.exec("stat", "-c", "%u", "/tmp/owned").output == b"0\n"


def test_stat_of_files_links_and_nothing(running: Vm) -> None:
    def stat(path: str) -> object:
        return running.ask(lambda done: running.wall.files({"verb": "stat", "path": path}, [], done))

    answer = stat("/bin/sh")
    assert isinstance(answer, dict)
    assert (answer["stat"]["name"], answer["stat"]["linkTarget"]) == ("sh", "/bin/busybox")
    missing = stat("/no/such/file")
    assert isinstance(missing, WallError)
    assert missing.kind == "not_found"


@pytest.mark.parametrize(
    ("name", "words"), [("../../out", "leads out"), ("a/../../b", "leads out"), ("in", "cannot overwrite directory")]
)
def test_archives_that_must_not_be_unpacked(running: Vm, name: str, words: str) -> None:
    running.exec("mkdir", "-p", "/tmp/in")
    answer = running.put_files("/tmp", archive(**{name: b"z"}), no_overwrite_dir_non_dir=True)
    assert isinstance(answer, WallError)
    assert words in answer.message


def test_a_link_does_not_lead_a_copy_out_of_its_directory(running: Vm) -> None:
    running.exec("sh", "-c", "mkdir -p /tmp/trap; ln -sfn /etc /tmp/trap/link")
    running.put_files("/tmp/trap", archive(**{"link/passwd": b"evil"}))
    assert b"evil" not in running.exec("cat", "/etc/passwd").output


def test_changes_layer_and_export(running: Vm) -> None:
    running.exec("sh", "-c", "mkdir /new; echo 1 > /new/file; rm /etc/plain; echo more >> /etc/group; chmod 700 /data")
    answer = running.ask(lambda done: running.wall.files({"verb": "changes", "path": "/"}, [], done))
    changes = dict(answer["changes"])
    wanted = {"/new": 1, "/new/file": 1, "/etc": 0, "/etc/plain": 2, "/etc/group": 0, "/data": 0}
    assert wanted.items() <= changes.items()
    assert not {"/proc", "/dev", "/etc/hosts", "/sys"} & set(changes)
    layer = members(running.read_files("upper"))
    assert {"new", "new/file", "etc/.wh.plain", "etc/group", "data"} <= set(layer)
    assert layer["data"].mode == 0o700
    exported = members(running.read_files("export"))
    assert "new/file" in exported and "etc/plain" not in exported and "bin/busybox" in exported
    assert exported["etc/hosts"].size == 0  # a mount: its place only
    assert not any(name.startswith("proc/") for name in exported)


def test_a_paused_machine_can_be_looked_at_and_goes_on(running: Vm) -> None:
    counter = running.begin("sh", "-c", "while :; do echo tick; sleep 0.05; done")
    running.wait(lambda: counter.output.count(b"tick") > 2, 60)
    assert running.ask(running.wall.pause) is None
    running.wait(lambda: True, 1)
    assert set(members(running.read_files("get", "/data"))) == {"data", "data/seed"}
    before = counter.output.count(b"tick")
    assert running.ask(running.wall.stats).memory_limit_bytes
    assert counter.output.count(b"tick") <= before + 1
    assert running.ask(running.wall.unpause) is None
    running.wait(lambda: counter.output.count(b"tick") > before + 3, 60)
    seconds = int(running.exec("date", "+%s").output)
    assert abs(seconds - time.time()) < 5
    counter.session.signal(signal.SIGKILL)
    running.wait(lambda: counter.ended, 60)


def test_the_clock_is_right_and_runs_as_the_hosts(running: Vm) -> None:
    def compare() -> tuple[float, float]:
        """How far the guest's clock is behind at most, and its uptime less ours."""
        before = time.time()
        epoch, uptime = running.exec("sh", "-c", "date +%s; cut -d' ' -f1 /proc/uptime").output.split()
        return before - int(epoch), float(uptime) - time.monotonic()

    behind, offset = compare()
    assert -30 < behind < 2
    time.sleep(3)
    behind_later, offset_later = compare()
    assert -30 < behind_later < 2
    assert abs(offset_later - offset) < 1.5


def test_memory_can_shrink_but_not_grow(running: Vm) -> None:
    assert (
        running.ask(lambda done: running.wall.update(LimitsPlan(memory_bytes=192 << 20, cpu_shares=512), done)) is None
    )
    refused = running.ask(lambda done: running.wall.update(LimitsPlan(memory_bytes=1 << 30), done))
    assert isinstance(refused, WallError)
    assert "256 MiB" in refused.message


def test_nics_come_and_go(running: Vm) -> None:
    bridge = f"etv{os.getpid() % 100000}"
    with Route() as route:
        route.create_bridge(bridge, up=True)
    nic = NicPlan(
        name="eth5",
        host_ifname=f"ett{os.getpid() % 100000}",
        bridge=bridge,
        mac="02:aa:00:00:00:05",
        addresses=["10.99.0.2/24", "fd99::2/64"],
        gateway4="10.99.0.1",
    )
    try:
        assert running.ask(lambda done: running.wall.add_nic(nic, done)) is None
        shown = running.exec("ip", "-o", "addr", "show", "eth5").output.decode()
        assert "10.99.0.2/24" in shown and "fd99::2/64" in shown
        assert b"default via 10.99.0.1 dev eth5" in running.exec("ip", "route").output
        assert "eth5" in running.ask(running.wall.stats).nics
        assert running.ask(lambda done: running.wall.remove_nic("eth5", done)) is None
        assert b"eth5" not in running.exec("ip", "-o", "link").output
        with Route() as route:
            assert not route.exists(nic.host_ifname)
        again = running.ask(lambda done: running.wall.remove_nic("eth5", done))
        assert isinstance(again, WallError) and again.kind == "not_found"
    finally:
        with Route() as route:
            route.delete_link(bridge)

"""Images and containers that attack whoever starts, enters or reads them. A canary on the host must stay as it is."""

from __future__ import annotations

import ctypes
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.wire.plans import ContainerPlan, MountPlan, to_json
from tests.linux.keepers import Failed, Host, host, read_all


@pytest.fixture(scope="module", params=[True, False], ids=["program", "python"])
def box(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("box"), with_compiled=request.param) as made:
        yield made


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory that nothing may change."""
    path = tmp_path / "canary"
    (path / "inner").mkdir(parents=True)
    (path / "file").write_text("secret of the host")
    before = fingerprint(path)
    yield path
    assert fingerprint(path) == before


def fingerprint(path: Path) -> list[tuple[str, int, int, str]]:
    found = []
    for entry in sorted([path, *path.rglob("*")]):
        status = entry.lstat()
        content = hashlib.sha256(entry.read_bytes()).hexdigest() if entry.is_file() else ""
        found.append((str(entry), status.st_mode, status.st_uid, content))
    return found


def link_out(plan: ContainerPlan, name: str, target: Path | str) -> None:
    """Put a link into the instance's own layer, in place of whatever the image has there."""
    path = Path(plan.upper) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_kernel_file_systems_are_not_mounted_over_links(box: Host, canary: Path, name: str) -> None:
    plan = box.plan("true")
    link_out(plan, name, canary)
    with pytest.raises(Failed, match="link"):
        box.run(plan)


def test_mount_targets_that_are_links_stay_inside(box: Host, canary: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    plan = box.plan("sh", "-c", "grep -c ' /canary' /proc/self/mountinfo; ls /a")
    link_out(plan, "a", "../../../../../../../../.." + str(canary))
    plan.mounts.append(MountPlan(kind="bind", target="/a/made/here", source=str(source)))
    plan.mounts.append(MountPlan(kind="tmpfs", target="/a/tmp"))
    assert box.run(plan)[1].split() == [b"0", b"made", b"tmp"]


def test_etc_files_that_are_links_stay_inside(box: Host, canary: Path, tmp_path: Path) -> None:
    source = tmp_path / "resolv.conf"
    source.write_text("nameserver 1.2.3.4\n")
    plan = box.plan("cat", "/etc/resolv.conf")
    link_out(plan, "etc/resolv.conf", f"/../..{canary}/stub/resolv.conf")
    plan.mounts.append(MountPlan(kind="bind", target="/etc/resolv.conf", source=str(source)))
    assert box.run(plan) == (0, b"nameserver 1.2.3.4\n")


def test_null_device_of_the_image_is_not_used_for_masks(box: Host) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    plan = box.plan("sh", "-c", "echo x > /proc/keys; cat /proc/keys; ls -l /dev/null")
    (Path(plan.upper) / "dev").mkdir()
    link_out(plan, "dev/null", "/proc/sys/kernel/core_pattern")
    assert b"1,   3" in box.run(plan)[1]
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_console_of_the_image_is_not_followed(box: Host, canary: Path) -> None:
    plan = box.plan("sh", "-c", "stat -c %t /dev/console", terminal=True)
    (Path(plan.upper) / "dev").mkdir()
    link_out(plan, "dev/console", canary / "file")
    assert box.run(plan) == (0, b"88\r\n")  # major 136: a terminal of this container


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10])
def test_working_directory_is_not_a_leaked_descriptor(box: Host, number: int) -> None:
    plan = box.plan("sh", "-c", "pwd; ls /proc/self/fd; cat ../../../../etc/hostname", cwd=f"/proc/self/fd/{number}")
    with pytest.raises(Failed, match="chdir to cwd"):
        box.run(plan)


def test_working_directory_through_a_link_stays_inside(box: Host, canary: Path) -> None:
    plan = box.plan("pwd", cwd="/a/link/b")
    link_out(plan, "a/link", "../../../../../../../.." + str(canary))
    assert box.run(plan) == (0, f"{canary}/b\n".encode())


@pytest.mark.parametrize("kind", ["huge", "fifo", "zero", "out", "directory", "binary", "missing"])
def test_passwd_and_group_of_the_image(box: Host, canary: Path, kind: str) -> None:
    plan = box.plan("stat", "-c", "%u", "/proc/self/cwd", user="1000")
    etc = Path(plan.upper) / "etc"
    etc.mkdir()
    for name in ("passwd", "group"):
        path = etc / name
        if kind == "huge":
            path.touch()
            os.truncate(path, 2 << 30)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "zero":
            path.symlink_to("/dev/zero")
        elif kind == "out":
            path.symlink_to(f"/../..{canary}/file")
        elif kind == "directory":
            path.mkdir()
        elif kind == "binary":
            path.write_bytes(os.urandom(1 << 20))
        else:
            os.mknod(path, 0o020000, 0)  # a whiteout
    begin = time.monotonic()
    assert box.run(plan) == (0, b"1000\n")
    assert time.monotonic() - begin < 5
    plan.process.user = "somebody"
    with pytest.raises(Failed, match="unable to find user somebody"):
        box.run(plan)


def test_modules_of_the_image_are_never_loaded(box: Host) -> None:
    """Traps at every place where an interpreter or C library would look."""
    plan = box.plan("true")
    trap = "import os\nos.system('touch /trapped')\nopen('/trapped','w')\n"
    for version in ("3.11", "3.12", "3.13"):
        for name in ("encodings/idna.py", "encodings/__init__.py", "os.py", "json/__init__.py", "stringprep.py"):
            for prefix in ("usr/lib", "usr/local/lib"):
                path = Path(plan.upper) / prefix / f"python{version}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(trap)
    keeper = box.keeper(plan)
    plan.process.args, plan.process.user = ["sleep", "1000"], "user"
    keeper.ask("start", wall="container", plan=to_json(plan))
    keeper.ask("exec", exec_id="x", process=to_json(box.plan("true", user="user").process))
    keeper.event("exec_exit")
    with pytest.raises(Failed):
        keeper.ask("exec", exec_id="y", process=to_json(box.plan("ä\udcff", user="ünbekannt").process))
    keeper.ask("files", verb="stat", path="/etc")
    keeper.ask("signal", signal=9)
    keeper.event("exit")
    assert not (Path(plan.upper) / "trapped").exists()


def test_interpreter_is_a_sealed_copy(box: Host) -> None:
    """What enters a container is visible there as /proc/PID/exe; writing through that reaches no file of the host."""
    plan = box.plan("sleep", "1000")
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    for process in (box.launcher_pid, keeper.pid):
        assert os.readlink(f"/proc/{process}/exe").startswith("/memfd:")
        with pytest.raises(OSError):
            os.open(f"/proc/{process}/exe", os.O_RDWR)
    keeper.ask("signal", signal=9)
    keeper.event("exit")


def test_overwriting_whoever_enters(box: Host) -> None:
    """A root loop inside opens every exe for writing while execs come in (CVE-2019-5736, CVE-2016-9962)."""
    interpreter = Path(os.path.realpath("/usr/bin/python3"))
    before = hashlib.sha256(interpreter.read_bytes()).digest()
    script = """
        while :; do for p in /proc/[0-9]*; do
            [ $p = /proc/1 ] || [ $p = /proc/$$ ] || {
                case "$(readlink $p/exe)" in /bin/busybox|'') ;; *) echo saw $(readlink $p/exe);; esac
                cat $p/environ $p/maps 2>/dev/null | grep -q python && echo leaked
                echo x 2>/dev/null >> $p/exe && case "$(readlink $p/exe)" in *memfd*|*python*) echo written;; esac
            }
        done; done 2>/dev/null
    """
    plan = box.plan("sh", "-c", script, capabilities=["SYS_PTRACE", "DAC_OVERRIDE", "KILL"])
    keeper = box.keeper(plan)
    ours, theirs = socket.socketpair()
    number = keeper.post("attach", (theirs.fileno(),), stdin=False)
    theirs.close()
    keeper.answer(number)
    keeper.ask("start", wall="container", plan=to_json(plan))
    process = to_json(box.plan("true").process)
    for index in range(100):
        keeper.ask("exec", exec_id=str(index), process=process)
        keeper.event("exec_exit")
    keeper.ask("signal", signal=9)
    keeper.event("exit")
    output = read_all(ours)
    assert b"written" not in output
    assert hashlib.sha256(interpreter.read_bytes()).digest() == before


def test_cgroup_files_cannot_be_written(box: Host) -> None:
    script = """
        mkdir /tmp/c; mount -t cgroup -o memory x /tmp/c 2>&1; unshare -UrCm true 2>&1 | head -1
        for f in $(find /sys/fs/cgroup -name release_agent -o -name devices.allow); do echo x 2>&1 > $f; done
        ls /sys/fs/cgroup/memory | grep -c enisle
    """
    output = box.shell(script)[1].decode().splitlines()
    assert "permission denied" in output[0].lower() or "not permitted" in output[0].lower()
    assert output[-1] == "0"
    assert all("Read-only file system" in line for line in output[2:-1])


def test_racing_links_in_a_shared_volume(box: Host, canary: Path, tmp_path: Path) -> None:
    """A target below a volume is swapped for a link while the mounts are made (CVE-2021-30465, CVE-2024-45310)."""
    volume = tmp_path / "volume"
    (volume / "target").mkdir(parents=True)
    (volume / "link").symlink_to(f"/../../../../../..{canary}")
    stop = threading.Event()

    def race() -> None:
        exchange = ctypes.CDLL(None).renameat2
        while not stop.is_set():
            exchange(-100, os.fsencode(volume / "target"), -100, os.fsencode(volume / "link"), 2)

    racer = threading.Thread(target=race)
    racer.start()
    try:
        for _ in range(60):
            plan = box.plan("true")
            plan.mounts.append(MountPlan(kind="bind", target="/v", source=str(volume), options=["rbind"]))
            plan.mounts.append(MountPlan(kind="tmpfs", target="/v/target/inner"))
            try:
                box.run(plan)
            except Failed as error:
                assert "error mounting" in str(error)
    finally:
        stop.set()
        racer.join()


def test_copying_while_the_container_swaps_links(box: Host, canary: Path) -> None:
    script = f"""
        mkdir -p /d/real {canary}; echo inside > /d/real/file; ln -s {"../" * 20}{canary} /d/link
        while :; do mv /d/real /d/x; mv /d/link /d/real; mv /d/real /d/link; mv /d/x /d/real; done
    """
    plan = box.plan("sh", "-c", script)
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    for _ in range(100):
        reading, writing = os.pipe()
        number = keeper.post("files", (writing,), verb="get", path="/d/real/file")
        os.close(writing)
        with open(reading, "rb") as file:
            data = file.read()
        try:
            keeper.answer(number)
        except Failed:
            continue
        assert b"secret of the host" not in data
    keeper.ask("signal", signal=9)
    keeper.event("exit")


def test_copy_of_a_link_to_the_host(box: Host) -> None:
    plan = box.plan("sleep", "1000")
    link_out(plan, "shadow", "/etc/shadow")
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    reading, writing = os.pipe()
    number = keeper.post("files", (writing,), verb="get", path="/shadow")
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    keeper.answer(number)
    assert b"root:" not in data
    keeper.ask("signal", signal=9)
    keeper.event("exit")


def test_no_abstract_sockets(box: Host) -> None:
    plan = box.plan("sleep", "1000")
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    assert "@" not in "".join(line for line in Path("/proc/net/unix").read_text().splitlines() if "enisle" in line)
    keeper.ask("signal", signal=9)
    keeper.event("exit")


def test_other_users_are_not_served(box: Host) -> None:
    path = box.run_root / "launcher.sock"
    for directory in [*path.parents][:4]:
        os.chmod(directory, 0o755)
    os.chmod(path, 0o666)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
            os.write(writing, b"served" if sock.recv(1) else b"refused")
        except OSError:
            os.write(writing, b"refused")
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    assert os.read(reading, 100) == b"refused"
    os.close(reading)
    assert box.launcher.ask("ping")


def test_peers_that_send_rubbish(box: Host) -> None:
    plan = box.plan("sleep", "1000")
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    for path in (box.run_root / "launcher.sock", box.run_root / "instances" / plan.id[:16] / "keeper.sock"):
        for data in (b"\xff" * 100, b"\0\0\0\2[]", b"\0\0\0\3{x}", b'\0\0\0\x13{"op":"x","fds":99}', os.urandom(5000)):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(5)
                sock.connect(str(path))
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
    assert keeper.ask("status")["state"] == "running"
    assert box.launcher.ask("ping")
    keeper.ask("signal", signal=9)
    keeper.event("exit")


def test_floods_do_not_grow_the_keeper(box: Host) -> None:
    plan = box.plan("sh", "-c", "head -c 50000000 /dev/zero")  # one line that never ends
    plan.log.max_bytes, plan.log.max_files = 1 << 20, 2
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    peak = 0
    while True:
        try:
            text = Path(f"/proc/{keeper.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        peak = max([peak, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))])
    assert keeper.event("exit")["exit_code"] == 0
    assert peak < 32 << 10

"""A first process that was born before its plan was known serves as well as one that was not."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from enisle.linux import mounts
from enisle.linux.cgroup.layout import host_layout
from enisle.wire.mounts import kernel_mounts, shared_memory
from enisle.wire.plans import MountPlan, to_json
from tests.linux.keepers import Host, host, read_all


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("reserve")) as made:
        yield made


def children(pid: int) -> list[int]:
    """None of a process that has ended."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def name_of(pid: int) -> str:
    """ "" for one that has ended: keepers of the test before are on their way out."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def wait_for_reserve(box: Host) -> int:
    """The pid of the process that the next container will be, once the launcher has it ready; 0 on cgroup v2."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for spare in children(box.launcher_pid):
            if name_of(spare) != "enisle-spare":
                continue
            born = [pid for pid in children(spare) if name_of(pid) == "enisle-first"]
            if born or host_layout().version == 2:
                return born[0] if born else 0
    raise TimeoutError("no spare keeper")


def test_it_becomes_the_container(box: Host) -> None:
    reserve = wait_for_reserve(box)
    plan = box.plan("sleep", "1000")
    keeper = box.keeper(plan)
    started = keeper.ask("start", wall="container", plan=to_json(plan))
    assert reserve in (0, started["pid"])
    keeper.ask("signal", signal=9)
    assert keeper.event("exit")["exit_code"] == 137
    keeper.close()


def test_one_that_has_ended_is_not_waited_for(box: Host) -> None:
    reserve = wait_for_reserve(box)
    plan = box.plan("echo", "here")
    keeper = box.keeper(plan)
    if reserve:
        os.kill(reserve, signal.SIGKILL)
    ours, theirs = socket.socketpair()
    attached = keeper.post("attach", (theirs.fileno(),), stdin=False, stdout=True, stderr=True)
    theirs.close()
    keeper.answer(attached)
    keeper.ask("start", wall="container", plan=to_json(plan))
    assert read_all(ours) == b"here\n"
    assert keeper.event("exit")["exit_code"] == 0
    ours.close()
    keeper.close()


def test_what_was_mounted_since_can_be_bound(box: Host, tmp_path: Path) -> None:
    wait_for_reserve(box)
    late = mounts.new("tmpfs")
    place = os.open(tmp_path, os.O_PATH)
    mounts.attach(late, place)
    try:
        (tmp_path / "word").write_text("late")
        plan = box.plan("cat", "/seen/word")
        plan.mounts.append(MountPlan(kind="bind", target="/seen", source=str(tmp_path)))
        assert box.run(plan) == (0, b"late")
    finally:
        os.close(late)
        os.close(place)
        mounts.unmount(str(tmp_path), mounts.MNT_DETACH)


def test_mounts_made_ahead_are_those_asked_for(box: Host) -> None:
    look = (
        "while read _ _ _ root place flags _ _ kind source rest; do echo $root $place $flags $kind $rest; done "
        "</proc/self/mountinfo; ls -ln /dev | grep -v ptmx; ls /proc/sys/net /sys/class/net /proc/1/ns; "
        "touch /dev/shm/file /dev/file; touch /sys/file /proc/sys/file"
    )
    wait_for_reserve(box)
    code, ahead = box.run(box.plan("sh", "-c", look))
    too_long_for_it = [f"V{number}={'x' * 50_000}" for number in range(4)]
    again, asked = box.run(box.plan("sh", "-c", look, env=["PATH=/bin", *too_long_for_it]))
    assert code == again == 1
    lines = differing(ahead)
    assert sorted(lines) == sorted(differing(asked))  # the hierarchies of cgroups are mounted last
    assert lines[:2] == ["/ / rw,relatime overlay", "/ /proc rw,nosuid,nodev,noexec,relatime proc"]  # as it was mounted
    assert "lo" in lines and any(line.endswith("Read-only file system") for line in lines)


def differing(output: bytes) -> list[str]:
    """Without what is another in each container: its cgroup's name."""
    return re.sub(r"[0-9a-f]{16}0{48}", "ID", output.decode()).splitlines()


def test_other_mounts_than_those_made_ahead(box: Host) -> None:
    wait_for_reserve(box)
    plan = box.plan("sh", "-c", "grep -c 'shm .*size=1024k' /proc/mounts; touch /sys/x; ls /dev/shm/x")
    plan.mounts = [*kernel_mounts(read_only=True)[:-1], shared_memory(1 << 20)]
    code, output = box.run(plan)
    assert (code, output.splitlines()[0]) == (1, b"1")


def test_a_plan_too_long_for_one_packet(box: Host) -> None:
    wait_for_reserve(box)
    words = [f"V{number}={'x' * 50_000}" for number in range(4)]
    plan = box.plan("sh", "-c", "echo ${#V0} ${#V3}", env=["PATH=/bin", *words])
    assert box.run(plan) == (0, b"50000 50000\n")


@pytest.mark.parametrize("kind", ["net", "pid", "ipc", "uts"])
def test_other_namespaces_than_its_own(box: Host, kind: str) -> None:
    wait_for_reserve(box)
    plan = box.plan("readlink", f"/proc/self/ns/{kind}")
    setattr(plan.namespaces, kind, "host")
    code, output = box.run(plan)
    assert (code, output.decode().strip()) == (0, os.readlink(f"/proc/self/ns/{kind}"))


def test_it_ends_with_a_keeper_that_is_never_started(box: Host) -> None:
    reserve = wait_for_reserve(box)
    keeper = box.keeper(box.plan("true"))
    keeper.ask("stop")
    with pytest.raises(ConnectionError):
        keeper.event("exit")
    keeper.close()
    deadline = time.monotonic() + 20
    while reserve and os.path.exists(f"/proc/{reserve}"):
        assert time.monotonic() < deadline
    assert os.path.exists(f"/proc/{box.launcher_pid}")

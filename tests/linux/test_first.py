"""The root that steps make (program/steps.c) is the root that Python makes: the same, or the same failure."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from enisle.launcher.container import setup
from enisle.linux import mounts
from enisle.linux.cgroup.layout import host_layout
from enisle.wire.plans import ContainerPlan, DevicePlan, MountPlan
from tests.linux.keepers import Failed, Host

LINKS = {
    "inside": "/deep/er",
    "up": "../../../../etc",
    "chain": "inside/more",
    "loop": "loop",
    "gone": "/not/there/yet",
    "magic": "/proc/self/fd",
}
MOUNTS = (
    "while read _ _ _ root place flags _ _ kind _; do case $place in /proc*|/sys*|/dev*) ;; *) "
    "echo $root $place $flags $kind;; esac; done </proc/self/mountinfo"
)
Change = Callable[[ContainerPlan], None]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """With the program in C, and without anything compiled."""
    made: list[Host] = []
    try:
        for compiled in (True, False):
            made.append(host := Host(tmp_path_factory.mktemp("host"), with_compiled=compiled))
            for name, target in LINKS.items():
                (host.layer / name).symlink_to(target)
            (host.layer / "deep/er").mkdir(parents=True)
            (host.layer / "deep/loop").symlink_to("../inside/../loop")
            (host.layer / "file").write_text("an image's file")
        yield made
    finally:
        for host in made:
            host.close()


def run(host: Host, change: Change, *args: str, **process: Any) -> Any:
    """Exit code and output, or why it failed; names that differ from host to host left out."""
    plan = host.plan(*args, **process)
    change(plan)
    try:
        code, output = host.run(plan)
    except Failed as error:
        return error.kind, error.exit_code, str(error).removesuffix(": unknown").rpartition(": ")[2].lower()
    text = output.decode("utf-8", "surrogateescape").replace(plan.id, "ID").replace(host.cgroup_parent, "PARENT")
    return code, text.replace(str(host.directory).removeprefix("/tmp"), "HOST")


def both(hosts: list[Host], change: Change, *args: str, **process: Any) -> Any:
    in_c, in_python = (run(host, change, *args, **process) for host in hosts)
    assert "\n".join(differing(in_c, in_python)) == ""
    return in_c


def differing(*answers: Any) -> list[str]:
    """The lines that not both have."""
    in_c, in_python = ([line for part in answer for line in str(part).splitlines()] for answer in answers)
    return [line for line in difflib.ndiff(in_c, in_python) if line[0] in "+-"]


def adding(*plans: MountPlan) -> Change:
    return lambda plan: plan.mounts.extend(plans)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """On the host: a directory with a mount in it, a file and a link that leads out."""
    (tmp_path / "inner/below").mkdir(parents=True)
    (tmp_path / "inner/word").write_text("a word")
    (tmp_path / "inner/out").symlink_to("/etc")
    (tmp_path / "inner/self").symlink_to("word")
    return tmp_path


@pytest.mark.parametrize(
    "target",
    [
        *(
            "/new",
            "/new/far/down",
            "/deep/er",
            "/inside",
            "/inside/x/y",
            "/up",
            "/up/x/y",
            "/chain",
            "/chain/x",
            "/gone",
        ),
        *("/gone/x", "/loop", "/loop/x", "/deep/loop/x", "/file", "/file/x", "/magic/0", "/new/../other", "/./a//b/"),
        *(
            "/new/../../../x",
            "/inside/../y",
            f"/{'n' * 255}",
            f"/{'n' * 256}",
            "/" + "/".join("d" * 100 for _ in range(50)),
        ),
    ],
)
@pytest.mark.parametrize("source", ["inner", "inner/word"])
def test_a_bind_lands_where_it_should(hosts: list[Host], sources: Path, source: str, target: str) -> None:
    bind = MountPlan(kind="bind", target=target, source=str(sources / source), options=["rbind", "rprivate"])
    code, *_rest = both(hosts, adding(bind), "sh", "-c", f"{MOUNTS}; find / -xdev | sort")
    assert code in (0, "invalid")


@pytest.mark.parametrize(
    "plan",
    [
        MountPlan(kind="bind", target="/a", source="/not/there"),
        MountPlan(kind="bind", target="/a", source="inner", options=["ro"]),
        MountPlan(kind="bind", target="/a", source="inner", options=["bind", "ro", "nosuid", "nodev", "noexec"]),
        MountPlan(kind="bind", target="/a", source="inner", options=["rbind", "ro=top"]),
        MountPlan(kind="bind", target="/a", source="inner", options=["rbind", "ro", "rshared"]),
        MountPlan(kind="bind", target="/a", source="inner", options=["bind", "rslave", "noatime"]),
        MountPlan(kind="bind", target="/a", source="inner", options=["shared"]),
        MountPlan(kind="bind", target="/a", source="inner", options=["unbindable"]),
        MountPlan(kind="volume", target="/a", source="", subpath="inner"),
        MountPlan(kind="volume", target="/a", source="", subpath="inner/self", name="vol"),
        MountPlan(kind="volume", target="/a", source="", subpath="inner/out", name="vol"),
        MountPlan(kind="volume", target="/a", source="", subpath="../..", options=["ro"]),
        MountPlan(kind="volume", target="/a", source="", subpath="inner/nope", name="vol"),
        MountPlan(kind="image", target="/a", name="picture", layers=["inner"]),
        MountPlan(kind="image", target="/a", name="picture", layers=["inner"], subpath="below"),
        MountPlan(kind="image", target="/a", name="picture", layers=["inner", "inner/below"]),
        MountPlan(kind="tmpfs", target="/a", options=["size=1m", "mode=700", "nosuid", "ro"]),
        MountPlan(kind="tmpfs", target="/gone/a", options=["noexec"]),
        MountPlan(kind="tmpfs", target="/file"),
        MountPlan(kind="tmpfs", target="/a", options=["size=much"]),
        MountPlan(kind="tmpfs", target="/a", options=["mode=700", "nonsense"]),
        MountPlan(kind="ext9", target="/a"),
        MountPlan(kind="mqueue", target="/inside"),
        MountPlan(kind="proc", target="/loop"),
        MountPlan(kind="sysfs", target="/file"),
        MountPlan(kind="tmpfs", target="/dev", options=["mode=755"]),
        MountPlan(kind="devpts", target="/dev"),
        MountPlan(kind="devpts", target="/terminals", options=["newinstance", "mode=600"]),
    ],
)
def test_mounts(hosts: list[Host], sources: Path, plan: MountPlan) -> None:
    def change(container: ContainerPlan) -> None:
        plan.source = str(sources / plan.source) if plan.kind in ("bind", "volume") else plan.source
        plan.layers = [str(sources / layer) for layer in plan.layers]
        container.mounts.append(plan)

    look = f"exec 2>&1; {MOUNTS}; ls -lnR /a; stat -c '%a %F' /a; cat /a; echo; touch /a/x && rm /a/x; ls /dev | wc -l"
    both(hosts, change, "sh", "-c", look)


@pytest.mark.parametrize("options", [["bind"], ["rbind"], ["rbind", "ro"], ["rbind", "ro=top"], ["bind", "ro"]])
def test_what_is_mounted_below_a_source(hosts: list[Host], sources: Path, options: list[str]) -> None:
    place = os.open(sources / "inner/below", os.O_PATH)
    made = mounts.new("tmpfs")
    try:
        mounts.attach(made, place)
        bind = MountPlan(kind="bind", target="/a", source=str(sources / "inner"), options=options)
        both(hosts, adding(bind), "sh", "-c", f"exec 2>&1; {MOUNTS}; touch /a/x /a/below/x; ls /a/below")
    finally:
        mounts.unmount(str(sources / "inner/below"), mounts.MNT_DETACH)
        os.close(made)
        os.close(place)


def test_a_source_in_another_mount_namespace(hosts: list[Host]) -> None:
    holder = subprocess.Popen(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            "mount -t tmpfs none /mnt; mkdir /mnt/a; echo seen > /mnt/a/b; echo; exec sleep 100",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline()
        for path, subpath in (("/mnt/a", ""), ("/mnt", "a"), ("/nope", ""), ("/mnt", "nope")):
            plan = MountPlan(kind="volume", target="/a", source=f"/proc/{holder.pid}/root{path}", subpath=subpath)
            answer = both(hosts, adding(plan), "cat", "/a/b")
            assert answer == (0, "seen\n") or "nope" in path + subpath
        plan = MountPlan(kind="volume", target="/a", source="/proc/4194305/root/mnt")
        assert both(hosts, adding(plan), "true")[0] == "invalid"
    finally:
        holder.kill()
        holder.wait()


def _devices(*devices: DevicePlan) -> Change:
    return lambda plan: plan.devices.extend(devices)


def _setting(**fields: Any) -> Change:
    def change(plan: ContainerPlan) -> None:
        for name, value in fields.items():
            setattr(plan, name, value)

    return change


def _namespaces(**fields: str) -> Change:
    def change(plan: ContainerPlan) -> None:
        for name, value in fields.items():
            setattr(plan.namespaces, name, value)

    return change


def _without(*targets: str) -> Change:
    def change(plan: ContainerPlan) -> None:
        plan.mounts = [mount for mount in plan.mounts if mount.target not in targets]

    return change


ZERO = {"kind": "c", "major": 1, "minor": 5, "host_path": "/dev/zero"}


@pytest.mark.parametrize(
    "change",
    [
        _devices(DevicePlan(path="/dev/x", mode=0o640, uid=3, gid=4, **ZERO)),
        _devices(DevicePlan(path="/dev/null", **ZERO), DevicePlan(path="/dev/a/b/c", **ZERO)),
        _devices(DevicePlan(path="/up/x", **ZERO), DevicePlan(path="/inside/y", **ZERO)),
        _devices(DevicePlan(path="/dev/b", kind="b", major=7, minor=200, host_path="/dev/loop200")),
        _devices(DevicePlan(path="/dev/pts", **ZERO)),
        _devices(DevicePlan(path="/loop/x", **ZERO)),
        _setting(hostname="", domainname="isle"),
        _setting(hostname="h" * 64, domainname="d"),
        _setting(hostname="h" * 65),
        _setting(sysctls={"net.ipv4.ip_forward": "1", "kernel/msgmax": "5000"}),
        _setting(sysctls={"net.ipv4.nope": "1"}),
        _setting(sysctls={"net.ipv4.ip_forward": "x" * 5000}),
        _setting(sysctls={"net..ip_forward": "1"}),
        _setting(masked_paths=["/file", "/deep", "/inside", "/nope", "/file/x", "/proc/sys", "/sys/fs/cgroup/pids"]),
        _setting(read_only_paths=["/deep", "/inside", "/file", "/nope", "/sys/fs", "/dev"], masked_paths=[]),
        _setting(read_only_root=True),
        _setting(read_only_root=True, lower=[]),
        _setting(lower=[]),
        _setting(lower=["/not/there"]),
        _setting(upper="/not/there"),
        _setting(mounts=[]),
        _setting(mounts=[], read_only_root=True, sysctls={"net.ipv4.ip_forward": "1"}),
        _without("/dev"),
        _without("/dev", "/dev/pts"),
        _without("/proc"),
        _without("/sys/fs/cgroup"),
        _without("/sys"),
        *(_namespaces(**{kind: "host"}) for kind in ("net", "pid", "ipc", "uts", "cgroup")),
        _namespaces(cgroup="host", net="host", pid="host", ipc="host", uts="host"),
        _namespaces(net="4194305"),
    ],
)
@pytest.mark.parametrize(
    "process", [{}, {"terminal": True}, {"stdin": True, "user": "9:9", "cwd": "/home/of/mine", "init": True}]
)
def test_the_rest(hosts: list[Host], change: Change, process: dict[str, Any]) -> None:
    look = (
        "exec 2>&1; hostname; ls -lnR /dev/ /etc /deep | grep -v pts/; cat /proc/sys/kernel/domainname /file; tty; "
        "ls -l /proc/self/fd/0 /proc/self/fd/9; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; "
        "find /sys/fs/cgroup -maxdepth 2 | sort | head -40; sed 's/.*://' /proc/self/cgroup; ip link show lo; "
        "touch /x /dev/x /deep/x /proc/sys/x; ls -ld /home/of/mine; [ $$ = 1 ]; echo $?"
    )
    plain_ids = re.compile(r"(pipe|socket):\[\d+\]|[A-Z][a-z]{2} +\d+ +[\d:]+")
    answers = [run(host, change, "/bin/sh", "-c", look, **process) for host in hosts]
    in_c, in_python = (tuple(plain_ids.sub("", str(part)) for part in answer) for answer in answers)
    assert "\n".join(differing(in_c, in_python)) == ""


def test_what_is_not_there_is_named(hosts: list[Host], sources: Path) -> None:
    def why(change: Change) -> str:
        plan = hosts[0].plan("true")
        change(plan)
        with pytest.raises(Failed) as failed:
            hosts[0].run(plan)
        text = str(failed.value).removesuffix(": unknown").replace(str(sources), "HERE")
        return text.removeprefix("OCI runtime create failed: unable to start container process: ")

    at = 'to rootfs at "/a"'
    nope = MountPlan(kind="bind", target="/a", source=f"{sources}/nope")
    assert why(adding(nope)) == f'error mounting "HERE/nope" {at}: HERE/nope: no such file or directory'
    inner = MountPlan(kind="volume", target="/a", source=str(sources), subpath="nope", name="data")
    assert why(adding(inner)) == f'error mounting "data" {at}: nope: no such file or directory'
    option = MountPlan(kind="tmpfs", target="/a", options=["mode=700", "size=much"])
    assert why(adding(option)) == f'error mounting "tmpfs" {at}: tmpfs option size: invalid argument'
    layers = [str(hosts[0].layer), "/not/there"]
    reason = "the root file system cannot be mounted: /not/there: no such file or directory"
    assert why(_setting(lower=layers)) == reason
    assert why(adding(MountPlan(kind="tmpfs", target="/a\0b"))) == "'/a\\x00b' holds a NUL"
    assert why(_namespaces(net="4194305")) == "cannot join the net namespace of process 4194305: it has ended"


def test_hierarchies_are_mounted_last_unless_others_are_near_them(hosts: list[Host]) -> None:
    plan = hosts[0].plan("true")
    layout = host_layout()

    def order(*more: str) -> list[str]:
        plan.mounts = [*hosts[0].plan("true").mounts, *(MountPlan(kind="tmpfs", target=target) for target in more)]
        steps = setup.steps_of(plan, layout)
        assert steps is not None
        return [step.what.partition('rootfs at "')[2].rstrip('"') for step in steps if "rootfs at" in step.what]

    assert order("/a")[-2:] == ["/a", "/sys/fs/cgroup"]
    assert order("/sys")[4:] == ["/sys/fs/cgroup", "/dev/mqueue", "/dev/shm", "/sys"]
    assert order("/sys/fs/cgroup/x")[4:] == ["/sys/fs/cgroup", "/dev/mqueue", "/dev/shm", "/sys/fs/cgroup/x"]
    assert order("/sys/fs/cgroups")[-1] == "/sys/fs/cgroup"

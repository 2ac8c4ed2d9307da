"""Plans of containers: golden text for a plain one, and what each flag changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from enisle.contracts import HostMount, Launch
from enisle.drivers.container.facts import HostFacts
from enisle.drivers.container.plan import container_plan, exec_plan
from enisle.errors import EnisleError, Invalid, NotSupported
from enisle.launcher.container.filesystems import CGROUP_TREE, EMPTY_DIRECTORY, planned, usual
from enisle.launcher.container.options import parse
from enisle.launcher.container.rootfs import BINDS
from enisle.model.ids import ImageId, InstanceId
from enisle.model.instance import Endpoint, Instance, InstanceSpec, LogConfig
from enisle.model.process import ExecSpec
from enisle.model.resources import Device, DeviceRequest, Devices, Resources, Ulimit
from enisle.wire.plans import ContainerPlan, from_json, to_json

ID = InstanceId("0123456789abcdef" * 4)
DIRECTORY = Path("/data/instances") / ID
FACTS = HostFacts(nodename="thehost")


def instance(**fields: Any) -> Instance:
    base: dict[str, Any] = {"image": "busybox", "image_id": ImageId("sha256:" + "a" * 64), "command": ("true",)}
    return Instance(id=ID, name="calm_skye", created_at=1, spec=InstanceSpec(**{**base, **fields}))


def launch(*, mounts: tuple[HostMount, ...] = (), joins: dict[str, int] | None = None, **fields: Any) -> Launch:
    return Launch(
        instance=instance(**fields),
        layers=(Path("/layers/b"), Path("/layers/a")),
        directory=DIRECTORY,
        mounts=mounts,
        joins=joins or {},
        log_path=DIRECTORY / f"{ID}-json.log",
    )


def plan(**fields: Any) -> ContainerPlan:
    return container_plan(launch(**fields), FACTS, cgroup_parent="enisle")


def golden(planned: ContainerPlan) -> str:
    """The plan as text, without what is long and tested elsewhere."""
    values = to_json(planned)
    values["process"]["seccomp_bpf"] = bool(values["process"]["seccomp_bpf"])
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def test_a_plain_container() -> None:
    expected = (Path(__file__).parent / "container_plan.json").read_text(encoding="utf-8")
    assert golden(plan()) == expected


def test_all_file_systems_of_a_plain_container_are_made_ahead() -> None:
    asked = [mount for mount in plan().mounts if mount.kind not in ("cgroup", *BINDS)]
    wanted = [planned(mount.kind, mount.target, parse(mount.options)) for mount in asked]
    assert len(wanted) == 6 and set(wanted) | {EMPTY_DIRECTORY, CGROUP_TREE} == set(usual())


def test_plans_cross_the_wire_unchanged() -> None:
    planned = plan(hostname="web", devices=Devices(devices=(Device(host_path="/dev/null", path="/dev/x"),)))
    assert from_json(ContainerPlan, json.loads(json.dumps(to_json(planned)))) == planned


def test_environment_in_dockers_order() -> None:
    env = plan(env=("A=1", "PATH=/x", "B"), tty=True, hostname="web").process.env
    assert env == ["PATH=/x", "HOSTNAME=web", "TERM=xterm", "A=1"]
    assert plan().process.env[1] == f"HOSTNAME={ID[:12]}"
    assert plan(network_mode="host").process.env[1] == "HOSTNAME=thehost"


@pytest.mark.parametrize(
    ("fields", "present", "absent"),
    [
        ({}, {"CHOWN", "MKNOD", "NET_RAW"}, {"SYS_ADMIN"}),
        ({"cap_add": ("sys_admin", "CAP_NET_ADMIN")}, {"SYS_ADMIN", "NET_ADMIN", "CHOWN"}, {"CAP_NET_ADMIN"}),
        ({"cap_drop": ("ALL",)}, set(), {"CHOWN"}),
        ({"cap_drop": ("all",), "cap_add": ("CHOWN",)}, {"CHOWN"}, {"KILL"}),
        ({"cap_add": ("ALL",), "cap_drop": ("SYS_ADMIN",)}, {"BPF", "CHOWN"}, {"SYS_ADMIN"}),
        ({"privileged": True}, {"SYS_ADMIN", "BPF"}, set()),
    ],
)
def test_capabilities(fields: dict[str, Any], present: set[str], absent: set[str]) -> None:
    held = set(plan(**fields).process.capabilities)
    assert present <= held
    assert not absent & held


def test_capabilities_we_do_not_hold_are_not_promised() -> None:
    facts = HostFacts(capabilities=("CHOWN", "KILL"))
    planned = container_plan(launch(privileged=True), facts, cgroup_parent="enisle")
    assert planned.process.capabilities == ["CHOWN", "KILL"]


def test_privileged_opens_everything() -> None:
    planned = plan(privileged=True)
    assert planned.process.seccomp_bpf == ""
    assert planned.device_rules == ["a *:* rwm"]
    assert planned.masked_paths == planned.read_only_paths == []
    options = {mount.target: mount.options for mount in planned.mounts}
    assert "rw" in options["/sys"]
    assert "rw" in options["/sys/fs/cgroup"]
    assert any(device.path == "/dev/null" for device in planned.devices)
    assert not any(device.path.startswith("/dev/pts/") for device in planned.devices)


def test_exec_stays_behind_the_same_wall() -> None:
    made = instance(
        cap_drop=("ALL",), user="1000", working_dir="/srv", env=("A=1",), security_options=("no-new-privileges",)
    )
    process = exec_plan(made, ExecSpec(command=("sh",), env=("B=2",), tty=True, detach_keys="\x01x"), FACTS)
    assert process.capabilities == []
    assert process.seccomp_bpf
    assert process.no_new_privileges
    assert (process.user, process.cwd) == ("1000", "/srv")
    assert process.env[-3:] == ["A=1", "TERM=xterm", "B=2"]
    assert process.detach_keys == "\x01x"
    privileged = exec_plan(made, ExecSpec(command=("sh",), privileged=True, user="root", cwd="/"), FACTS)
    assert "SYS_ADMIN" in privileged.capabilities
    assert (privileged.user, privileged.cwd) == ("root", "/")


def test_namespaces() -> None:
    assert plan(network_mode="none").namespaces.net == "private"
    assert plan(network_mode="host").namespaces.net == "host"
    joined = plan(network_mode="container:x", joins={"net": 42}).namespaces
    assert (joined.net, joined.pid) == ("42", "private")
    planned = plan(pid_mode="host", ipc_mode="host", uts_mode="host", cgroupns_mode="host")
    names = planned.namespaces
    assert (names.pid, names.ipc, names.uts, names.cgroup, names.net) == ("host", "host", "host", "host", "private")
    assert planned.hostname == ""
    with pytest.raises(Invalid, match="non running container"):
        plan(pid_mode="container:gone")


def test_shared_memory_follows_the_ipc_mode() -> None:
    def shared(**fields: Any) -> list[tuple[str, str]]:
        return [(m.kind, m.source or m.options[-1]) for m in plan(**fields).mounts if m.target == "/dev/shm"]

    assert shared(shm_size_bytes=1 << 20) == [("tmpfs", "size=1048576")]
    assert shared(ipc_mode="none") == []
    assert shared(ipc_mode="host") == [("bind", "/dev/shm")]
    assert shared(ipc_mode="container:x", joins={"ipc": 42}) == [("bind", "/proc/42/root/dev/shm")]


def test_user_mounts_come_last_outer_first_and_replace_ours() -> None:
    mounts = tuple(
        HostMount(kind="bind", source="/s", target=target) for target in ("/a/b/c", "/dev/shm/", "/a//b", "/x/../y")
    )
    targets = [mount.target for mount in plan(mounts=mounts).mounts]
    assert targets[-4:] == ["/y", "/a/b", "/dev/shm", "/a/b/c"]
    assert targets.count("/dev/shm") == 1


def test_files_of_the_engine_are_bound_where_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    planned = container_plan(dataclasses.replace(launch(), directory=tmp_path), FACTS, cgroup_parent="enisle")
    assert [m.source for m in planned.mounts if m.target.startswith("/etc/")] == [str(tmp_path / "hosts")]


def test_sysctls() -> None:
    defaults = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
    assert plan(sysctls={"net.core.somaxconn": "1"}).sysctls == {**defaults, "net.core.somaxconn": "1"}
    assert plan(sysctls={"net/ipv4/conf/eth0.1/forwarding": "1"}).sysctls["net.ipv4.conf.eth0/1.forwarding"] == "1"
    assert plan(network_mode="host", sysctls={"kernel.shmmax": "1"}).sysctls == {"kernel.shmmax": "1"}


@pytest.mark.parametrize(
    ("key", "value", "fields", "message"),
    [
        ("kernel.core_pattern", "|/x", {}, "is not in a separate kernel namespace"),
        ("vm.swappiness", "1", {}, "is not in a separate kernel namespace"),
        ("net.ipv4.x", "1\nkernel.core_pattern=|/x", {}, "invalid value for sysctl"),
        ("net.ipv4.x=1;kernel.core_pattern", "1", {}, "invalid sysctl key"),
        ("net/../kernel/core_pattern", "1", {}, "invalid sysctl key"),
        ("net.core.somaxconn", "1", {"network_mode": "host"}, "not allowed in host network namespace"),
        ("kernel.shmmax", "1", {"ipc_mode": "host"}, "is not allowed in the hosts ipc namespace"),
        ("", "1", {}, "invalid sysctl key"),
    ],
)
def test_sysctls_of_the_host_are_out_of_reach(key: str, value: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        plan(sysctls={key: value}, **fields)


@pytest.mark.parametrize(
    ("devices", "kind", "message"),
    [
        (Devices(devices=(Device(host_path="/dev/nope", path="/dev/x"),)), Invalid, "no such file or directory"),
        (Devices(devices=(Device(host_path="/etc/passwd", path="/dev/x"),)), Invalid, "not a device node"),
        (Devices(devices=(Device(host_path="/dev/null", path="/dev/x", access="rx"),)), Invalid, "device mode"),
        (Devices(devices=(Device(host_path="/dev/null", path="../x"),)), Invalid, "invalid device path"),
        (Devices(cgroup_rules=("c 1:3",)), Invalid, "invalid device cgroup rule format"),
        (Devices(requests=(DeviceRequest(capabilities=(("gpu",),)),)), NotSupported, "could not select device driver"),
    ],
)
def test_devices_that_cannot_be_given(devices: Devices, kind: type[EnisleError], message: str) -> None:
    from enisle.drivers.container import devices as module

    with pytest.raises(kind, match=message):
        module.check(instance(devices=devices).spec)
        plan(devices=devices)


def test_a_directory_of_devices(tmp_path: Path) -> None:
    planned = plan(devices=Devices(devices=(Device(host_path="/dev/null", path="/dev/mine", access="r"),)))
    (device,) = planned.devices
    assert (device.path, device.kind, device.major, device.minor, device.access) == ("/dev/mine", "c", 1, 3, "r")
    with pytest.raises(Invalid, match="not a device node"):
        plan(devices=Devices(devices=(Device(host_path=str(tmp_path), path="/dev/x"),)))


def test_limits() -> None:
    limits = plan(resources=Resources(memory_bytes=1 << 30, nano_cpus=1_500_000_000)).limits
    assert (limits.memory_swap_bytes, limits.cpu_quota_us, limits.cpu_period_us) == (2 << 30, 150_000, 100_000)
    assert limits.pids == 4096
    assert plan(resources=Resources(pids_limit=0)).limits.pids == -1
    assert plan(resources=Resources(pids_limit=-1)).limits.pids == -1
    assert plan(resources=Resources(pids_limit=7)).limits.pids == 7


def test_rlimits() -> None:
    planned = plan(ulimits=(Ulimit(name="nofile", soft=10, hard=20), Ulimit(name="nproc", soft=5, hard=-1)))
    assert planned.process.rlimits == [["CORE", 0, -1], ["NOFILE", 10, 20], ["NPROC", 5, -1]]


def test_masked_paths_can_be_asked_for() -> None:
    planned = plan(masked_paths=(), read_only_paths=("/proc/sys",))
    assert (planned.masked_paths, planned.read_only_paths) == ([], ["/proc/sys"])


@pytest.mark.parametrize(("asked", "path"), [("", "enisle"), ("/a/b", "a/b"), ("a/", "a")])
def test_cgroup_parent(asked: str, path: str) -> None:
    assert plan(cgroup_parent=asked).cgroup_parent == path


@pytest.mark.parametrize("asked", ["../x", "a/../../b", "a//b", "./a", "a\nb"])
def test_cgroup_parent_stays_below_the_root(asked: str) -> None:
    with pytest.raises(Invalid, match="cgroup-parent"):
        plan(cgroup_parent=asked)


def test_nics() -> None:
    endpoint = Endpoint(
        network="bridge",
        network_id="n",
        name="eth0",
        host_ifname="e0",
        bridge="enisle0",
        mac="02:42:ac:11:00:02",
        ipv4="172.17.0.2/16",
        gateway4="172.17.0.1",
    )
    planned = container_plan(dataclasses.replace(launch(), endpoints=(endpoint,)), FACTS, cgroup_parent="enisle")
    (nic,) = planned.nics
    assert (nic.addresses, nic.gateway4, nic.gateway6, nic.mtu) == (["172.17.0.2/16"], "172.17.0.1", "", 1500)


def test_log_settings() -> None:
    options = {"max-size": "1m", "max-file": "3", "compress": "true", "labels": "a", "env": "E", "tag": "{{.Name}}"}
    log = plan(log=LogConfig(options=options), labels={"a": "1", "b": "2"}, env=("E=5",)).log
    assert (log.max_bytes, log.max_files, log.compress) == (1 << 20, 3, True)
    assert log.extra == {"a": "1", "E": "5", "tag": "calm_skye"}
    assert plan(log=LogConfig(driver="none")).log.driver == "none"
    assert (plan().log.max_bytes, plan().log.max_files) == (10 << 20, 5)

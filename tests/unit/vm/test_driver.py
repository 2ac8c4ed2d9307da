"""The VM driver's pure side: what is refused, what the plan says, disks."""

import dataclasses
from pathlib import Path

import pytest

from enisle.contracts import HostMount, Launch
from enisle.drivers.container.facts import HostFacts
from enisle.drivers.limits import LimitFacts
from enisle.drivers.vm import check, disk, plan
from enisle.errors import Invalid
from enisle.model.ids import ImageId, InstanceId
from enisle.model.instance import Endpoint, Instance, InstanceSpec, Mount, MountKind
from enisle.model.resources import Device, Devices, Resources
from enisle.wire.plans import VmPlan

FACTS = HostFacts(limits=LimitFacts(cpus=frozenset({0, 1})))
MACHINE = plan.Machine(
    kernel=Path("/guest/vmlinux"),
    initramfs=Path("/guest/initramfs"),
    modules=Path("/guest/modules.erofs"),
    accelerator="tcg",
    qemu="/usr/bin/qemu",
    virtiofsd="/usr/lib/qemu/virtiofsd",
)


def spec(**changes: object) -> InstanceSpec:
    values: dict[str, object] = {"image": "busybox", "image_id": ImageId("sha256:" + "0" * 64), "command": ("sh",)}
    return InstanceSpec(**{**values, **changes})  # type: ignore[arg-type]


def checked(asked: InstanceSpec, *, virtiofsd: str = "/usr/lib/qemu/virtiofsd") -> list[str]:
    return check.check(asked, FACTS, cgroup_parent="enisle", virtiofsd=virtiofsd)


def planned(directory: Path, asked: InstanceSpec, machine: plan.Machine = MACHINE, **launch: object) -> VmPlan:
    instance = Instance(id=InstanceId("ab" * 32), name="n", created_at=0, spec=asked)
    whole = Launch(instance=instance, directory=directory, disk=Path("/image.erofs"), **launch)  # type: ignore[arg-type]
    return plan.vm_plan(whole, machine, FACTS, cgroup_parent="enisle")


def test_what_is_usual_is_accepted_without_a_word() -> None:
    assert checked(spec(tty=True, hostname="web", resources=Resources(memory_bytes=256 << 20))) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"network_mode": "host"}, "--network host"),
        ({"network_mode": "container:abc"}, "--network container:abc"),
        ({"pid_mode": "host"}, "--pid host"),
        ({"pid_mode": "container:abc"}, "--pid container:abc"),
        ({"ipc_mode": "host"}, "--ipc host"),
        ({"ipc_mode": "container:abc"}, "--ipc container:abc"),
        ({"uts_mode": "host"}, "--uts host"),
        ({"userns_mode": "host"}, "--userns host"),
        ({"cgroupns_mode": "host"}, "--cgroupns host"),
        ({"devices": Devices(devices=(Device(host_path="/dev/sda", path="/dev/sda"),))}, "--device /dev/sda"),
        ({"devices": Devices(cgroup_rules=("c 1:1 rwm",))}, "--device-cgroup-rule"),
        ({"resources": Resources(memory_bytes=64 << 20)}, "128MB"),
        ({"resources": Resources(memory_bytes=256 << 20, oom_kill_disable=True)}, "--oom-kill-disable"),
        ({"storage_options": {"size": "lots"}}, "size=lots"),
        ({"storage_options": {"dm.basesize": "1"}}, "dm.basesize"),
        ({"cap_add": ("NONSENSE",)}, "invalid capability"),
        ({"hostname": "a\nb"}, "invalid hostname"),
        ({"sysctls": {"a/../../b": "1"}}, "invalid sysctl"),
        ({"sysctls": {"net.x": "1\n2"}}, "invalid sysctl"),
        ({"command": ("a\0b",)}, "NUL"),
        ({"cgroup_parent": "../x"}, "cgroup-parent"),
    ],
)
def test_what_cannot_hold_in_a_vm_is_refused_in_one_sentence(changes: dict[str, object], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        checked(spec(**changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_volumes_need_a_file_server() -> None:
    asked = spec(mounts=(Mount(kind=MountKind.BIND, target="/x", source="/tmp"),))
    assert checked(asked) == []
    with pytest.raises(Invalid, match="virtiofsd"):
        checked(asked, virtiofsd="")


def test_what_is_without_effect_is_said() -> None:
    [warning] = checked(spec(mounts=(Mount(kind=MountKind.BIND, target="/x", source="/tmp", propagation="rshared"),)))
    assert "rshared" in warning


def test_the_plan(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    endpoint = Endpoint(
        network="bridge",
        network_id="n",
        name="eth0",
        host_ifname="tap0",
        bridge="br0",
        mac="02:00:00:00:00:01",
        ipv4="10.0.0.2/24",
        gateway4="10.0.0.1",
    )
    made = planned(
        tmp_path,
        spec(cap_drop=("CHOWN",), resources=Resources(nano_cpus=1_500_000_000)),
        mounts=(HostMount(kind="bind", target="/a//b/", source="/src", options=("ro",)),),
        endpoints=(endpoint,),
    )
    assert (made.memory_bytes, made.vcpus, made.accelerator) == (512 << 20, 2, "tcg")
    assert made.files == {"/etc/hosts": "127.0.0.1 localhost\n"}
    assert [mount.target for mount in made.mounts] == ["/a/b", "/dev/shm"]
    assert made.nics[0].addresses == ["10.0.0.2/24"]
    assert made.limits.cpu_quota_us == 150_000
    assert "CHOWN" not in made.process.capabilities and "KILL" in made.process.capabilities
    assert made.uid == made.gid >= 1_900_000_000
    assert made.hostname == "ab" * 6


def test_who_may_load_modules_has_them(tmp_path: Path) -> None:
    disk = tmp_path / "modules.erofs"
    machine = dataclasses.replace(MACHINE, modules=disk)
    for wanted, asked in ((True, spec(privileged=True)), (True, spec(cap_add=("SYS_MODULE",))), (False, spec())):
        disk.unlink(missing_ok=True)
        made = planned(tmp_path, asked, machine)
        assert (made.modules_disk, made.load_modules) == ("", False)
        disk.touch()
        made = planned(tmp_path, asked, machine)
        assert (made.modules_disk, made.load_modules) == (str(disk) if wanted else "", wanted)


def test_a_guest_that_asks_for_names_inside_has_modules_its_workload_may_not_load(tmp_path: Path) -> None:
    disk = tmp_path / "modules.erofs"
    disk.touch()
    inside = Endpoint(network="lan", network_id="n", name="eth0", parent="eth0", mode="bridge")
    made = planned(tmp_path, spec(), dataclasses.replace(MACHINE, modules=disk), endpoints=(inside,))
    assert (made.modules_disk, made.load_modules) == (str(disk), False)
    bridged = Endpoint(network="bridge", network_id="b", name="eth1", bridge="b0")
    made = planned(tmp_path, spec(), dataclasses.replace(MACHINE, modules=disk), endpoints=(inside, bridged))
    assert made.modules_disk == ""


def test_two_instances_run_under_two_identities() -> None:
    one = Instance(id=InstanceId("1" * 64), name="a", created_at=0, spec=spec())
    other = dataclasses.replace(one, id=InstanceId("2" * 64))
    assert plan.uid_of(one) != plan.uid_of(other)


def test_a_mount_takes_the_place_of_the_engines_file(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("engine\n")
    made = planned(tmp_path, spec(), mounts=(HostMount(kind="bind", target="/etc/hosts", source="/mine"),))
    assert made.files == {}


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        (Resources(), 1),
        (Resources(nano_cpus=100_000_000), 1),
        (Resources(nano_cpus=1_000_000_001), 2),
        (Resources(cpu_quota_us=150_000), 2),
        (Resources(cpu_quota_us=50_000, cpu_period_us=50_000), 1),
    ],
)
def test_vcpus(resources: Resources, count: int) -> None:
    assert plan.vcpus(resources) == count


@pytest.mark.parametrize(("text", "size"), [("", 20 << 30), ("1g", 1 << 30), ("100M", 100 << 20), ("1.5GiB", 3 << 29)])
def test_disk_sizes(text: str, size: int) -> None:
    assert disk.disk_bytes({"size": text}) == size


def test_a_disk_is_sparse_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    disk.make_disk(path, tmp_path / "templates", 1 << 30)
    assert path.stat().st_size == 1 << 30
    assert 0 < disk.used_bytes(path) < 8 << 20
    with open(path, "r+b") as file:
        file.seek(0x438)
        assert file.read(2) == b"\x53\xef"  # ext4's magic number
        file.seek(0)
        file.write(b"mine")
    disk.make_disk(path, tmp_path / "templates", 1 << 30)
    assert path.read_bytes()[:4] == b"mine"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []

"""What an OCI runtime is told, held against the runtime specification.

runtime_spec.json is the structure (no prose) of the JSON schemas of opencontainers/runtime-spec, v1.2 (Apache-2.0).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from enisle.contracts import HostMount
from enisle.drivers.container.foreign import for_runtime, supported
from enisle.drivers.container.plan import container_plan
from enisle.drivers.limits import LimitFacts
from enisle.launcher.container.identity import Identity
from enisle.launcher.oci import spec
from enisle.launcher.oci.command import complaint, failure
from enisle.linux import seccomp
from enisle.model.resources import Device, Devices, Resources, Ulimit
from enisle.model.runtime import OciRuntime
from enisle.wire.plans import ContainerPlan, from_json, to_json
from tests.api.contract.schema import Schemas
from tests.unit.drivers.test_container_plan import FACTS, launch

DEFINITIONS = json.loads((Path(__file__).parent / "runtime_spec.json").read_text())["definitions"]
ROOT = Identity(0, 0, (0, 50), "/root")
RUNTIME = OciRuntime(name="other", path="/usr/sbin/other", options=("--debug",))


def planned(*, mounts: tuple[HostMount, ...] = (), **fields: Any) -> ContainerPlan:
    asked = launch(mounts=mounts, **fields)
    return for_runtime(container_plan(asked, FACTS, cgroup_parent="isle"), RUNTIME, asked.instance.spec, FACTS)


def config(plan: ContainerPlan) -> spec.Json:
    sources = {mount.target: f"/sources/{number}" for number, mount in enumerate(plan.mounts)}
    return spec.config(plan, ROOT, spec.Place(root="/upper", sources=sources, network="/proc/77/ns/net"))


def faults(value: Any, name: str = "config") -> list[str]:
    return list(Schemas(DEFINITIONS).faults(value, DEFINITIONS[name], owner=name))


BIND = HostMount(kind="bind", source="/srv", target="/data", options=("rbind", "rslave", "ro=top", "z"))
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "privileged": {"privileged": True},
    "shared": {"network_mode": "host", "pid_mode": "host", "ipc_mode": "host", "uts_mode": "host"},
    "terminal": {"tty": True, "console_size": (24, 80)},
    "limits": {
        "resources": Resources(
            memory_bytes=64 << 20, memory_swappiness=10, nano_cpus=500_000_000, pids_limit=20, cpuset_cpus="0"
        )
    },
    "devices": {"devices": Devices(devices=(Device(host_path="/dev/null", path="/dev/x", access="r"),))},
    "ulimits": {"ulimits": (Ulimit(name="core", soft=0, hard=-1),)},
    "names": {"hostname": "isle", "domainname": "example.net", "working_dir": "/srv"},
    "bind": {"mounts": (BIND,)},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_descriptions_fit_the_specification(name: str) -> None:
    assert faults(config(planned(**VARIANTS[name]))) == []


def test_what_is_wrong_is_seen() -> None:
    wrong = config(planned())
    wrong["linux"]["namespaces"].append({"type": "moon"})
    wrong["prcess"] = {}
    assert len(faults(wrong)) == 2


def test_the_plan_becomes_the_description() -> None:
    made = config(planned(hostname="isle", domainname="example.net", mounts=(BIND,), cap_drop=("ALL",)))
    linux = made["linux"]
    assert (made["hostname"], linux["sysctl"]["kernel.domainname"]) == ("isle", "example.net")
    assert {"type": "network", "path": "/proc/77/ns/net"} in linux["namespaces"]
    assert linux["cgroupsPath"].startswith("/isle/") and linux["rootfsPropagation"] == "slave"
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert made["process"]["capabilities"] == {"bounding": [], "effective": [], "permitted": []}
    assert "HOME=/root" in made["process"]["env"]
    data = next(mount for mount in made["mounts"] if mount["destination"] == "/data")
    assert data["options"] == ["rbind", "rslave", "ro"] and data["source"].startswith("/sources/")


def test_a_shared_bind_needs_a_shared_tree() -> None:
    bind = dataclasses.replace(BIND, options=("rbind", "rshared"))
    assert config(planned(mounts=(bind,)))["linux"]["rootfsPropagation"] == "shared"


def test_namespaces_of_the_host_are_not_named() -> None:
    made = config(planned(network_mode="host", pid_mode="host", ipc_mode="host", uts_mode="host", cgroupns_mode="host"))
    assert made["linux"]["namespaces"] == [{"type": "mount"}]
    assert "hostname" not in made


def test_an_update_says_only_what_was_asked_for() -> None:
    plan = planned(resources=Resources(memory_bytes=64 << 20, pids_limit=-1))
    limits = dataclasses.replace(plan.limits)
    assert spec.resources(limits) == {
        "memory": {"limit": 64 << 20, "swap": 128 << 20},
        "pids": {"limit": -1},
    }


def test_what_the_kernel_cannot_limit_is_not_asked_of_a_runtime() -> None:
    limits = planned(resources=Resources(memory_bytes=64 << 20, memory_swappiness=1, cpu_shares=5)).limits
    kept = supported(limits, LimitFacts(swap=False, swappiness=False, cpu=False))
    assert (kept.memory_bytes, kept.memory_swap_bytes, kept.memory_swappiness, kept.cpu_shares) == (
        64 << 20,
        0,
        None,
        0,
    )


def test_a_plan_with_a_runtime_crosses_the_wire() -> None:
    plan = planned()
    assert from_json(ContainerPlan, json.loads(json.dumps(to_json(plan)))) == plan
    assert (plan.runtime.name, plan.runtime.options, plan.process.seccomp_bpf) == ("other", ["--debug"], "")


def test_filters_follow_the_capabilities() -> None:
    profile = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
                {"names": ["x"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            ],
        }
    )
    names = [rule["names"] for rule in seccomp.resolve_profile(profile, ())["syscalls"]]
    assert names == [["read"], ["x"]]
    assert len(seccomp.resolve_profile(profile, ["BPF"])["syscalls"]) == 3


@pytest.mark.parametrize("text", ["{", "[]", '{"defaultAction": "NO"}', '{"defaultAction": [], "syscalls": 4}'])
def test_a_malformed_profile_is_refused(text: str) -> None:
    with pytest.raises(seccomp.ProfileError):
        seccomp.resolve_profile(text)


def test_the_runtimes_last_error_is_what_is_told() -> None:
    log = '{"level":"warning","msg":"w"}\nnoise\n{"level":"error","msg":"first"}\n{"level":"error","msg":"last"}\n'
    assert complaint(log) == "last"
    assert complaint("") == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("executable file `x` not found in $PATH: No such file or directory", 127),
        ('exec: "/etc": permission denied', 126),
        ("runtime other: /usr/sbin/other cannot be run: no such file or directory", 128),
        ("something else", 128),
    ],
)
def test_exit_codes_of_failures(text: str, code: int) -> None:
    error = failure("create", text)
    assert (error.exit_code, error.message) == (code, f"OCI runtime create failed: {text}: unknown")

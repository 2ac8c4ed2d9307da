"""What changes in a container's plan when another OCI runtime makes the container."""

from __future__ import annotations

import dataclasses
import os

from enisle.drivers.container import security
from enisle.drivers.container.facts import HostFacts
from enisle.drivers.limits import LimitFacts
from enisle.errors import Invalid, NotSupported
from enisle.model.instance import InstanceSpec
from enisle.model.runtime import OciRuntime
from enisle.wire.plans import ContainerPlan, LimitsPlan, RuntimePlan

# Static programs that distributions install for --init, Docker's own first (docker-init is tini).
_INITS = ("/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static", "/usr/bin/catatonit")


def check(spec: InstanceSpec, runtime: OciRuntime, *, own_users: bool) -> None:
    """Refuse what only our own container can do, and a runtime that is not there."""
    if not (os.path.isfile(runtime.path) and os.access(runtime.path, os.X_OK)):
        raise NotSupported(
            f"runtime {runtime.name}: {runtime.path} is no program that can be run.",
            remedy=f"Install it, or correct [runtimes.{runtime.name}] in the settings.",
        )
    if own_users:
        raise Invalid(
            f"user namespaces cannot be had with the runtime {runtime.name}",
            remedy="Use --userns host, or --runtime enisle.",
        )
    if spec.init and not _init():
        raise Invalid(
            f"--init with the runtime {runtime.name} needs one of {', '.join(_INITS)} on the host",
            remedy="Install tini or catatonit, or use --runtime enisle.",
        )


def for_runtime(plan: ContainerPlan, runtime: OciRuntime, spec: InstanceSpec, facts: HostFacts) -> ContainerPlan:
    """The plan with the runtime, and in the words of its specification what we would have compiled for ourselves."""
    options = security.parse(spec.security_options, facts)
    wants_filter = not spec.privileged or options.seccomp
    profile = security.runtime_filter(options.seccomp, plan.process.capabilities) if wants_filter else {}
    return dataclasses.replace(
        plan,
        limits=supported(plan.limits, facts.limits),
        runtime=RuntimePlan(
            name=runtime.name,
            path=runtime.path,
            options=list(runtime.options),
            seccomp=profile,
            init=_init() if spec.init else "",
        ),
        process=dataclasses.replace(plan.process, seccomp_bpf="", init=False),
    )


def supported(limits: LimitsPlan, facts: LimitFacts) -> LimitsPlan:
    """Without what this kernel has no file for: runtimes fail at that, where we pass it over with a warning."""
    kept = dataclasses.replace(limits)
    if not facts.memory:
        kept.memory_bytes = kept.memory_reservation_bytes = kept.memory_swap_bytes = 0
    if not facts.swap:
        kept.memory_swap_bytes = 0
    if not facts.swappiness:  # as the next one, of cgroup v1 only
        kept.memory_swappiness, kept.kernel_memory_tcp_bytes = None, 0
    if not facts.oom_control:
        kept.oom_kill_disable = False
    if not facts.cpu:
        kept.cpu_shares = kept.cpu_quota_us = kept.cpu_period_us = 0
    if not facts.cpuset:
        kept.cpuset_cpus = kept.cpuset_mems = ""
    if not facts.pids:
        kept.pids = 0
    if not facts.io_weight:
        kept.blkio_weight, kept.blkio_weight_devices = 0, []
    if not facts.io:
        kept.blkio_read_bps = kept.blkio_write_bps = kept.blkio_read_iops = kept.blkio_write_iops = []
    return kept


def _init() -> str:
    return next((path for path in _INITS if os.access(path, os.X_OK)), "")

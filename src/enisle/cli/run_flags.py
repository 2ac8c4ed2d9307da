"""The flags of ``run`` and ``create``: Docker's, and ``--vm``."""

from __future__ import annotations

from enisle.cli import mounts, ports, values
from enisle.cli.flags import Flag, many, option, switch
from enisle.cli.human import duration_ns, size

PULL_POLICIES = ("always", "missing", "never")

_PROCESS: tuple[Flag, ...] = (
    many("attach", "a", "list", "Attach to STDIN, STDOUT or STDERR", choices=("stdin", "stdout", "stderr")),
    option("entrypoint", "", "string", "Overwrite the image's ENTRYPOINT"),
    many("env", "e", "NAME[=VALUE]", "Set environment variables (a NAME alone takes its value from here)"),
    many("env-file", "", "file", "Read environment variables from a file", completes="file"),
    many("group-add", "", "group", "Join further groups"),
    switch("init", "", "Run an init inside that forwards signals and reaps processes"),
    switch("interactive", "i", "Keep STDIN open even if not attached"),
    option("stop-signal", "", "signal", "Signal that asks it to end", convert=values.signal),
    option("stop-timeout", "", "seconds", "How long to wait before killing it", convert=values.whole),
    switch("tty", "t", "Give it a terminal"),
    option("user", "u", "string", "User and group: NAME|UID[:GROUP|GID]"),
    option("workdir", "w", "path", "Working directory inside"),
)

_IDENTITY: tuple[Flag, ...] = (
    many("annotation", "", "map", "Add an annotation (KEY=VALUE)"),
    option("cidfile", "", "file", "Write the id to a file", completes="file"),
    option("domainname", "", "string", "NIS domain name"),
    option("hostname", "h", "string", "Host name"),
    many("label", "l", "KEY[=VALUE]", "Set a label"),
    many("label-file", "", "file", "Read labels from a file", completes="file"),
    option("log-driver", "", "string", "Where output is kept", choices=("journald", "json-file", "local", "none")),
    many("log-opt", "", "KEY=VALUE", "Options of the log driver (max-size, max-file, ...)"),
    option("name", "", "string", "Name"),
    option("platform", "", "string", "Platform of the image (os/arch[/variant])"),
    option("pull", "", "string", "When to pull: always, missing, never", default="missing", choices=PULL_POLICIES),
    switch("quiet", "q", "No output from the pull"),
    option("restart", "", "policy", "Restart it when it ends: no, on-failure[:N], unhealthy[:N], always, ...",
           convert=values.restart_policy, choices=("no", "on-failure", "unhealthy", "always", "unless-stopped")),
    switch("rm", "", "Remove it, and its anonymous volumes, when it ends"),
    switch("disable-content-trust", "", "Skip image verification", default=True, hidden=True),
)  # fmt: skip

_WALL: tuple[Flag, ...] = (
    switch("vm", "", "Run it behind a kernel of its own, as a virtual machine (same as --runtime vm)"),
    option("runtime", "", "string", "Wall or runtime: enisle (container), vm, runc", completes="runtime"),
    many("cap-add", "", "capability", "Add Linux capabilities"),
    many("cap-drop", "", "capability", "Drop Linux capabilities"),
    option("cgroup-parent", "", "string", "Parent cgroup"),
    option("cgroupns", "", "string", "Cgroup namespace: host, private", choices=("host", "private")),
    option("ipc", "", "mode", "IPC namespace: none, private, shareable, host, container:NAME"),
    option("isolation", "", "string", "Isolation technology: container, vm", choices=("container", "vm")),
    switch("oom-kill-disable", "", "Do not kill it when it runs out of memory"),
    option("oom-score-adj", "", "int", "Preference for the OOM killer (-1000 to 1000)", convert=values.whole),
    option("pid", "", "mode", "PID namespace: host, container:NAME"),
    switch("privileged", "", "All capabilities and devices of the host"),
    switch("read-only", "", "Mount the root file system read-only"),
    many("security-opt", "", "option", "no-new-privileges, seccomp=unconfined|FILE, apparmor=...", ),
    many("storage-opt", "", "KEY=VALUE", "Options of the storage driver"),
    many("sysctl", "", "NAME=VALUE", "Kernel parameters of its namespaces"),
    option("userns", "", "mode", "User namespace: host, or private (root inside is nobody outside)"),
    option("uts", "", "mode", "UTS namespace: host"),
)  # fmt: skip

_RESOURCES: tuple[Flag, ...] = (
    option("blkio-weight", "", "int", "Block I/O weight, 10 to 1000; 0: none", convert=values.whole),
    many("blkio-weight-device", "", "DEVICE:WEIGHT", "Block I/O weight of a device", convert=values.device_weight),
    option("cpu-period", "", "µs", "CFS period", convert=values.whole),
    option("cpu-quota", "", "µs", "CFS quota", convert=values.whole),
    option("cpu-rt-period", "", "µs", "Real-time period", convert=values.whole),
    option("cpu-rt-runtime", "", "µs", "Real-time runtime", convert=values.whole),
    option("cpu-shares", "c", "int", "CPU shares (relative weight)", convert=values.whole),
    option("cpus", "", "number", "Number of CPUs (1.5)", convert=values.cpus),
    option("cpuset-cpus", "", "list", "CPUs it may run on (0-3, 0,1)"),
    option("cpuset-mems", "", "list", "Memory nodes it may use (0-3, 0,1)"),
    many("device", "", "PATH[:PATH][:rwm]", "Add a device of the host", convert=values.device, completes="file"),
    many("device-cgroup-rule", "", "rule", "Allow devices by a cgroup rule (c 42:* rmw)"),
    many("device-read-bps", "", "DEVICE:RATE", "Limit reads, bytes/s", convert=values.device_rate),
    many("device-read-iops", "", "DEVICE:RATE", "Limit reads, operations/s", convert=values.device_rate),
    many("device-write-bps", "", "DEVICE:RATE", "Limit writes, bytes/s", convert=values.device_rate),
    many("device-write-iops", "", "DEVICE:RATE", "Limit writes, operations/s", convert=values.device_rate),
    many("gpus", "", "request", "GPUs ('all' for all)", convert=values.gpus),
    option("kernel-memory", "", "bytes", "Kernel memory limit (no kernel honours it any more)",
           convert=size, hidden=True),
    option("memory", "m", "bytes", "Memory limit (512m, 2g); of a VM: its memory", convert=size),
    option("memory-reservation", "", "bytes", "Soft limit of memory", convert=size),
    option("memory-swap", "", "bytes", "Limit of memory and swap together; -1: unlimited swap", convert=values.swap),
    option("memory-swappiness", "", "int", "0 to 100; -1: the host's", convert=values.swappiness),
    option("pids-limit", "", "int", "Limit of processes; -1: none", convert=values.whole),
    option("shm-size", "", "bytes", "Size of /dev/shm", convert=size),
    many("ulimit", "", "NAME=SOFT[:HARD]", "Resource limits of processes", convert=values.ulimit),
)  # fmt: skip

_FILES: tuple[Flag, ...] = (
    many("mount", "", "mount", "Mount: type=bind|volume|tmpfs|image,source=...,target=...[,readonly]",
         convert=mounts.mount),
    many("tmpfs", "", "PATH[:OPTIONS]", "Mount a tmpfs", convert=mounts.tmpfs),
    many("volume", "v", "[SOURCE:]PATH[:OPTIONS]", "Mount a volume or a directory of the host", convert=values.volume,
         completes="file"),
    option("volume-driver", "", "string", "Driver of volumes that are made for it"),
    many("volumes-from", "", "instance", "Mount the volumes of another instance", completes="instance"),
)  # fmt: skip

_NETWORK: tuple[Flag, ...] = (
    many("add-host", "", "HOST:IP", "Add a line to its /etc/hosts"),
    many("dns", "", "address", "Name servers"),
    many("dns-opt", "", "option", "Options of resolv.conf"),
    many("dns-option", "", "option", "Options of resolv.conf"),
    many("dns-search", "", "domain", "Search domains"),
    many("expose", "", "PORT[/PROTO]", "Expose a port or a range of ports", convert=ports.expose),
    option("ip", "", "address", "IPv4 address"),
    option("ip6", "", "address", "IPv6 address"),
    many("link", "", "NAME[:ALIAS]", "Add a link to another instance", completes="instance"),
    many("link-local-ip", "", "address", "Link-local addresses"),
    option("mac-address", "", "address", "MAC address"),
    many("net", "", "network", "Same as --network", convert=values.network, completes="network"),
    many("net-alias", "", "string", "Same as --network-alias"),
    many("network", "", "network", "Network: bridge, none, host, container:NAME, or a network's name",
         convert=values.network, completes="network"),
    many("network-alias", "", "string", "Further name on the network"),
    many("publish", "p", "[[IP:]PORT:]PORT[/PROTO]", "Publish a port, or a range, on the host", convert=ports.publish),
    switch("publish-all", "P", "Publish all exposed ports on free ports of the host"),
)  # fmt: skip

_HEALTH: tuple[Flag, ...] = (
    option("health-cmd", "", "string", "Command that checks its health"),
    option("health-interval", "", "duration", "Time between checks", convert=duration_ns),
    option("health-retries", "", "int", "Failures in a row that make it unhealthy", convert=values.whole),
    option("health-start-interval", "", "duration", "Time between checks while it starts", convert=duration_ns),
    option("health-start-period", "", "duration", "Time it has to start", convert=duration_ns),
    option("health-timeout", "", "duration", "How long a check may take", convert=duration_ns),
    switch("no-healthcheck", "", "Without the image's health check"),
)

CREATE_SECTIONS: tuple[tuple[str, tuple[Flag, ...]], ...] = (
    ("The process", _PROCESS),
    ("The instance", _IDENTITY),
    ("The wall", _WALL),
    ("Resources", _RESOURCES),
    ("Files", _FILES),
    ("Network", _NETWORK),
    ("Health", _HEALTH),
)
"""The same flags by subject, for help."""

CREATE_FLAGS: tuple[Flag, ...] = tuple(flag for _, section in CREATE_SECTIONS for flag in section)

_RUN_ONLY: tuple[Flag, ...] = (
    switch("detach", "d", "Run it in the background and print its id"),
    option("detach-keys", "", "keys", "Keys that detach from it (ctrl-p,ctrl-q)"),
    switch("sig-proxy", "", "Pass signals on to it", default=True),
)

RUN_FLAGS: tuple[Flag, ...] = (*_RUN_ONLY, *CREATE_FLAGS)

RUN_SECTIONS = (("Options", _RUN_ONLY), *CREATE_SECTIONS)

"""What dockerd refuses in a create body before it looks at the host, in its words."""

from __future__ import annotations

import ipaddress
import re

from enisle.api.docker import request_types as body
from enisle.errors import Invalid
from enisle.model.ids import NAME

_MILLISECOND_NS = 1_000_000
_HOSTNAME_MAX = 63
_WORD_MAX = 255
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-])[0-9a-fA-F]{2}(\1[0-9a-fA-F]{2}){4}")
_SECURITY_KEYS = frozenset({"label", "apparmor", "seccomp", "no-new-privileges", "writable-cgroups", "systempaths"})
_CAPABILITY = re.compile(r"(CAP_)?[A-Z_0-9]+")
CAPABILITIES = frozenset(
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH "
    "FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN "
    "NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN "
    "SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG WAKE_ALARM".split()
)


def check(wanted: body.CreateBody) -> None:
    """Raise Invalid for what cannot be honoured on any host."""
    _check_process(wanted)
    _check_healthcheck(wanted.healthcheck)
    _check_modes(wanted)
    _check_network(wanted)
    _check_names(wanted)
    _check_security(wanted.host_config)
    _check_numbers(wanted.host_config)


def _check_process(wanted: body.CreateBody) -> None:
    if wanted.working_dir and not wanted.working_dir.startswith("/"):
        raise Invalid(f"the working directory '{wanted.working_dir}' is invalid, it needs to be an absolute path")
    for entry in wanted.env:
        if not entry or entry.startswith("=") or "\0" in entry:
            raise Invalid(f"invalid environment variable: {entry[:100]}")
    words = [wanted.cmd or [], wanted.entrypoint or []]
    if any("\0" in word for words_ in words for word in ([words_] if isinstance(words_, str) else words_)):
        raise Invalid("invalid command: it holds a NUL character")
    if wanted.host_config.auto_remove and wanted.host_config.restart_policy.name not in ("", "no"):
        raise Invalid("can't create 'AutoRemove' container with restart policy")


def _check_healthcheck(check: body.Healthcheck | None) -> None:
    if check is None:
        return
    for name, value in (("Interval", check.interval), ("Timeout", check.timeout), ("StartPeriod", check.start_period)):
        if value != 0 and value < _MILLISECOND_NS:
            raise Invalid(f"{name} in Healthcheck cannot be less than 1ms")
    if check.start_interval != 0 and check.start_interval < _MILLISECOND_NS:
        raise Invalid("StartInterval in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise Invalid("Retries in Healthcheck cannot be negative")
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL", ""):
        raise Invalid(f'Unknown healthcheck type "{check.test[0][:40]}" (expected "CMD", "CMD-SHELL" or "NONE")')


def _check_modes(wanted: body.CreateBody) -> None:
    host = wanted.host_config
    modes = (
        ("PID", host.pid_mode, ("", "host", "private"), True),
        ("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host"), True),
        ("UTS", host.uts_mode, ("", "host"), False),
        ("cgroup namespace", host.cgroupns_mode, ("", "private", "host"), False),
        ("user namespace", host.userns_mode, ("", "host", "private"), False),
    )
    for name, mode, words, may_join in modes:
        joined = mode.removeprefix("container:") if may_join and mode.startswith("container:") else ""
        if mode not in words and not joined:
            raise Invalid(f"invalid {name} mode: {mode[:100]}")
    if host.uts_mode == "host" and (wanted.hostname or wanted.domainname):
        raise Invalid("conflicting options: hostname and the UTS mode")
    if host.isolation not in ("", "default"):
        raise Invalid(f'invalid isolation "{host.isolation[:40]}": Linux only supports the default')


def _check_network(wanted: body.CreateBody) -> None:
    host = wanted.host_config
    mode = host.network_mode
    if mode.startswith("container:"):
        _check_container_network(wanted)
    elif mode == "host" and host.links:
        raise Invalid(
            "conflicting options: host type networking can't be used with links. "
            "This would result in undefined behavior"
        )
    if wanted.mac_address and not _MAC.fullmatch(wanted.mac_address):
        raise Invalid(f"invalid MAC address: {wanted.mac_address[:40]}")
    for settings in wanted.networking_config.endpoints_config.values():
        check_endpoint(settings)
    for server in host.dns:
        _check_address(server, "invalid DNS server")
    for text in (*host.dns_search, *host.dns_options):  # lines of resolv.conf
        if not all(map(_is_word, text.split(" "))):
            raise Invalid(f'invalid DNS search domain or option: "{text[:100]}"')
    for entry in host.extra_hosts:
        name, separator, address = _split_extra_host(entry)
        if not separator or not _is_word(name):
            raise Invalid(f'bad format for add-host: "{entry[:100]}"')
        if address != "host-gateway":
            _check_address(address.strip("[]"), "invalid IP address in add-host")


def _split_extra_host(entry: str) -> tuple[str, str, str]:
    """Docker accepts name:address and, since 25, name=address."""
    separator = "=" if "=" in entry.partition(":")[0] else ":"
    return entry.partition(separator)


def _check_container_network(wanted: body.CreateBody) -> None:
    host = wanted.host_config
    if not host.network_mode.removeprefix("container:"):
        raise Invalid("invalid container format container:<name|id>")
    undefined = "This would result in undefined behavior"
    conflicts = (
        (wanted.hostname, "hostname and the network mode"),
        (host.links, f"container type network can't be used with links. {undefined}"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (wanted.mac_address, "mac-address and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (wanted.exposed_ports, "port exposing and the container type network mode"),
    )
    for given, words in conflicts:
        if given:
            raise Invalid(f"conflicting options: {words}")


def check_endpoint(settings: body.EndpointSettings | None) -> None:
    """Addresses of one endpoint. Raises Invalid."""
    if settings is None:
        return
    if settings.mac_address and not _MAC.fullmatch(settings.mac_address):
        raise Invalid(f"invalid MAC address: {settings.mac_address[:40]}")
    ipam = settings.ipam_config
    if ipam is None:
        return
    for address, version in ((ipam.ipv4_address, 4), (ipam.ipv6_address, 6)):
        if address and _check_address(address, f"invalid IPv{version} address") != version:
            raise Invalid(f"invalid IPv{version} address: {address[:60]}")
    for address in ipam.link_local_ips:
        _check_address(address, "invalid link-local IP address")


def _check_address(text: str, problem: str) -> int:
    try:
        if not _is_word(text):  # what stands for the zone of an IPv6 address may be anything
            raise ValueError
        return ipaddress.ip_address(text).version
    except ValueError:
        raise Invalid(f'{problem}: "{text[:100]}"') from None


def _is_word(text: str) -> bool:
    """Whether it stays one word of one line in a file that is generated from it."""
    return text.isprintable() and not any(map(str.isspace, text)) and 0 < len(text) <= _WORD_MAX


def _check_names(wanted: body.CreateBody) -> None:
    if len(wanted.hostname) > _HOSTNAME_MAX or re.search(r"[\s/\0]", wanted.hostname):
        raise Invalid(f"invalid hostname: {wanted.hostname[:100]}")
    for name in wanted.host_config.volumes_from:
        source, _, mode = name.partition(":")
        if not source:
            raise Invalid(f"malformed volumes-from specification: {name[:100]}")
        if mode and not set(mode.split(",")) <= {"ro", "rw", "z", "Z", "nocopy"}:
            raise Invalid(f"invalid mode: {mode[:40]}")
    for link in wanted.host_config.links:
        if link.count(":") > 1 or not link.partition(":")[0].lstrip("/"):
            raise Invalid(f"bad format for links: {link[:100]}")


def _check_security(host: body.HostConfig) -> None:
    for field, given in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        for name in [given] if isinstance(given, str) else given:
            upper = name.upper()
            if upper not in ("ALL", "CAP_ALL") and (
                not _CAPABILITY.fullmatch(upper) or upper.removeprefix("CAP_") not in CAPABILITIES
            ):
                raise Invalid(f'invalid {field}: unknown capability: "{name[:60]}"')
    for option in host.security_opt:
        key = re.split("[=:]", option, maxsplit=1)[0]
        if key == option and key != "no-new-privileges":
            raise Invalid(f'invalid --security-opt 1: "{option[:100]}"')
        if key not in _SECURITY_KEYS:
            raise Invalid(f'invalid --security-opt 2: "{option[:100]}"')
    for group in host.group_add:
        if not NAME.fullmatch(group) and not group.isalnum():
            raise Invalid(f"invalid group: {group[:60]}")


def _check_numbers(host: body.HostConfig) -> None:
    if host.shm_size < 0:
        raise Invalid("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise Invalid(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if any(not 0 <= size < 65536 for size in host.console_size):
        raise Invalid("invalid console size")

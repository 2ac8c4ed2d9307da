"""An instance: what was asked for (spec), and what became of it (state)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from enisle.model.ids import ImageId, InstanceId
from enisle.model.resources import Devices, Resources, Ulimit

DEFAULT_SHM_BYTES = 64 << 20
"""Of /dev/shm, as with Docker."""


class Isolation(StrEnum):
    """The wall an instance runs behind."""

    CONTAINER = "container"
    VM = "vm"


class Status(StrEnum):
    """The states of an instance; Docker's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


ALIVE = frozenset({Status.RUNNING, Status.PAUSED, Status.RESTARTING})


class MountKind(StrEnum):
    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"
    IMAGE = "image"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mount:
    """A mount the user (or the image's VOLUME) asked for.

    ``source``: host path (bind), volume name ("" makes an anonymous volume), image reference; unused for tmpfs.
    ``options``: words as of mount(8) that apply besides ``read_only`` and ``propagation``.
    ``origin`` says which flag it came from: "bind" (-v), "mount" (--mount), "tmpfs" (--tmpfs), "image" (VOLUME),
    "from" (--volumes-from); Docker reports them apart.
    """

    kind: MountKind
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = ""
    no_copy: bool = False
    create_source: bool = False
    recursive: bool = True
    read_only_top: bool = False  # read-only, but what is mounted below the source stays writable
    read_only_forced: bool = False
    subpath: str = ""
    tmpfs_size_bytes: int = 0
    tmpfs_mode: int | None = None
    options: tuple[str, ...] = ()
    volume_driver: str = ""
    volume_options: dict[str, str] = field(default_factory=dict)
    volume_labels: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    origin: str = "bind"
    mode_text: str = ""


class RestartKind(StrEnum):
    NO = "no"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"
    ON_FAILURE = "on-failure"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, kw_only=True, slots=True)
class RestartPolicy:
    kind: RestartKind = RestartKind.NO
    maximum_retries: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Healthcheck:
    """``test``: () inherits, ("NONE",), ("CMD", ...) or ("CMD-SHELL", line). Times in nanoseconds, 0: default."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedPort:
    """``host_port`` 0: a random free port; ``host_port_end`` > host_port: any port of the range."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class EndpointRequest:
    """What the user asked for on one network."""

    network: str
    aliases: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    driver_options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """``driver`` "" is the engine's default."""

    driver: str = ""
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceSpec:
    """What the user asked for, completed from the image. Changing it makes a new spec (``dataclasses.replace``).

    ``entrypoint``/``command`` None: not given (the image's were taken over where it has some).
    ``network_mode``: "default", "bridge", "none", "host", "container:<id>" or a network's name.
    ``pid_mode``, ``ipc_mode``, ``uts_mode``, ``cgroupns_mode``, ``userns_mode``: "", "host", "private", "shareable",
    "container:<id>" as each allows. ``stop_timeout_s`` None: the default of 10.
    """

    isolation: Isolation = Isolation.CONTAINER
    runtime: str = ""  # as asked for: "", "enisle", "runc", "vm", ...
    image: str  # the reference as asked for
    image_id: ImageId
    platform: str = ""
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    args_escaped: bool = False
    working_dir: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()  # targets of anonymous volumes asked for in Config.Volumes
    network_disabled: bool = False

    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    network_mode: str = "default"
    endpoints: tuple[EndpointRequest, ...] = ()
    mac_address: str = ""
    ports: tuple[PublishedPort, ...] = ()
    publish_all: bool = False
    links: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()

    resources: Resources = field(default_factory=Resources)
    devices: Devices = field(default_factory=Devices)
    ulimits: tuple[Ulimit, ...] = ()
    shm_size_bytes: int = DEFAULT_SHM_BYTES
    sysctls: dict[str, str] = field(default_factory=dict)
    storage_options: dict[str, str] = field(default_factory=dict)

    restart: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    init: bool | None = None
    privileged: bool = False
    read_only_root: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_options: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] | None = None  # None: the default list
    read_only_paths: tuple[str, ...] | None = None
    group_add: tuple[str, ...] = ()
    oom_score_adj: int = 0
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    cgroupns_mode: str = ""
    userns_mode: str = ""
    cgroup_parent: str = ""
    cgroup: str = ""
    log: LogConfig = field(default_factory=LogConfig)
    volume_driver: str = ""
    container_id_file: str = ""
    annotations: dict[str, str] = field(default_factory=dict)
    console_size: tuple[int, int] = (0, 0)  # rows, columns


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """An instance's place on one network, as long as it is connected to it.

    It is on ``bridge``, or a macvlan (or ipvlan) of that ``mode`` on ``parent``. ``on_link``: all others are reached by
    the link itself, without a gateway. ``dns``: the nameservers its instance asked for.
    """

    network: str  # name
    network_id: str
    endpoint_id: str = ""
    name: str = ""  # eth0
    host_ifname: str = ""
    bridge: str = ""
    parent: str = ""
    mode: str = ""
    mac: str = ""
    ipv4: str = ""  # CIDR
    ipv6: str = ""
    gateway4: str = ""
    gateway6: str = ""
    on_link: bool = False
    mtu: int = 1500
    isolated: bool = False  # does not reach its neighbours on the network, nor they it
    aliases: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    request: EndpointRequest | None = None


def way_out(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint that the default route goes by: the first on a network that is not internal."""
    return next((endpoint for endpoint in endpoints if endpoint.gateway4 or endpoint.gateway6), None)


def publisher(endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """The endpoint that published ports go by: the first on a bridge that is not internal."""
    return way_out(endpoint for endpoint in endpoints if endpoint.bridge)


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundPort:
    """A published port as it was bound."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedMount:
    """A mount as the running (or created) instance has it. ``source`` is the host path, or the image's id."""

    kind: MountKind
    target: str
    source: str = ""
    name: str = ""  # of the volume
    driver: str = ""
    read_only: bool = False
    propagation: str = ""
    mode_text: str = ""
    anonymous: bool = False


class HealthStatus(StrEnum):
    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthResult:
    started_at: int
    ended_at: int
    exit_code: int
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceState:
    """What became of an instance. Times are nanoseconds since the epoch, 0: never."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    manually_stopped: bool = False
    health: Health | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """The record of one instance, as the state store keeps it."""

    id: InstanceId
    name: str
    created_at: int
    spec: InstanceSpec
    state: InstanceState = field(default_factory=InstanceState)
    endpoints: tuple[Endpoint, ...] = ()
    bound_ports: tuple[BoundPort, ...] = ()
    mounts: tuple[ResolvedMount, ...] = ()

    @property
    def args(self) -> tuple[str, ...]:
        """The command line: entrypoint, then command."""
        return (self.spec.entrypoint or ()) + (self.spec.command or ())

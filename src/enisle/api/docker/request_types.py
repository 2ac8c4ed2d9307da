"""The bodies of requests as Docker's reference has them; names are Docker's."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Strings = list[str]
StringMap = dict[str, str | None]
OneOrMany = str | list[str]
TerminalSide = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class DockerStruct(msgspec.Struct, rename="pascal", kw_only=True):
    """Members are called as in Docker's JSON: memory_swap is MemorySwap."""


class Healthcheck(DockerStruct):
    test: Strings = []
    interval: Int64 = 0
    timeout: Int64 = 0
    start_period: Int64 = 0
    start_interval: Int64 = 0
    retries: Int64 = 0


class WeightDevice(DockerStruct):
    path: str = ""
    weight: Int64 = 0


class ThrottleDevice(DockerStruct):
    path: str = ""
    rate: Int64 = 0


class DeviceMapping(DockerStruct):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(DockerStruct):
    driver: str = ""
    count: Int64 = 0
    device_ids: Strings = msgspec.field(name="DeviceIDs", default_factory=list)
    capabilities: list[Strings] = []
    options: StringMap = {}


class Ulimit(DockerStruct):
    name: str = ""
    soft: Int64 = 0
    hard: Int64 = 0


class RestartPolicy(DockerStruct):
    name: str = ""
    maximum_retry_count: Int64 = 0


class LogConfig(DockerStruct):
    type: str = ""
    config: StringMap = {}


class PortBinding(DockerStruct):
    host_ip: str = ""
    host_port: str | int = ""


class BindOptions(DockerStruct):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(DockerStruct):
    name: str = ""
    options: StringMap = {}


class VolumeOptions(DockerStruct):
    no_copy: bool = False
    labels: StringMap = {}
    driver_config: DriverConfig | None = None
    subpath: str = ""


class ImageOptions(DockerStruct):
    subpath: str = ""


class TmpfsOptions(DockerStruct):
    size_bytes: Int64 = 0
    mode: Int64 = 0
    options: list[Strings] = []


class Mount(DockerStruct):
    target: str = ""
    source: str = ""
    type: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class EndpointIpam(DockerStruct):
    ipv4_address: str = msgspec.field(name="IPv4Address", default="")
    ipv6_address: str = msgspec.field(name="IPv6Address", default="")
    link_local_ips: Strings = msgspec.field(name="LinkLocalIPs", default_factory=list)


class EndpointSettings(DockerStruct):
    ipam_config: EndpointIpam | None = msgspec.field(name="IPAMConfig", default=None)
    links: Strings = []
    aliases: Strings = []
    mac_address: str = ""
    driver_opts: StringMap = {}


class NetworkingConfig(DockerStruct):
    endpoints_config: dict[str, EndpointSettings | None] = {}


class Limits(DockerStruct):
    """The members that create's HostConfig and update share (``container.Resources``)."""

    memory: Int64 = 0
    memory_swap: Int64 = 0
    memory_reservation: Int64 = 0
    memory_swappiness: Int64 | None = None
    kernel_memory_tcp: Int64 = msgspec.field(name="KernelMemoryTCP", default=0)
    oom_kill_disable: bool = False
    nano_cpus: Int64 = 0
    cpu_shares: Int64 = 0
    cpu_quota: Int64 = 0
    cpu_period: Int64 = 0
    cpu_realtime_period: Int64 = 0
    cpu_realtime_runtime: Int64 = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: Int64 | None = None
    blkio_weight: Int64 = 0
    blkio_weight_device: list[WeightDevice] = []
    blkio_device_read_bps: list[ThrottleDevice] = []
    blkio_device_write_bps: list[ThrottleDevice] = []
    blkio_device_read_iops: list[ThrottleDevice] = msgspec.field(name="BlkioDeviceReadIOps", default_factory=list)
    blkio_device_write_iops: list[ThrottleDevice] = msgspec.field(name="BlkioDeviceWriteIOps", default_factory=list)
    cgroup_parent: str = ""
    devices: list[DeviceMapping] = []
    device_cgroup_rules: Strings = []
    device_requests: list[DeviceRequest] = []
    ulimits: list[Ulimit] = []


class HostConfig(Limits):
    binds: Strings = []
    container_id_file: str = msgspec.field(name="ContainerIDFile", default="")
    log_config: LogConfig = msgspec.field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding] | None] = {}
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: Strings = []
    mounts: list[Mount] = []
    console_size: list[Int64] = []
    annotations: StringMap = {}
    cap_add: OneOrMany = []
    cap_drop: OneOrMany = []
    cgroupns_mode: str = ""
    dns: Strings = []
    dns_options: Strings = []
    dns_search: Strings = []
    extra_hosts: Strings = []
    group_add: Strings = []
    ipc_mode: str = ""
    cgroup: str = ""
    links: Strings = []
    oom_score_adj: Int64 = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: Strings = []
    storage_opt: StringMap = {}
    tmpfs: StringMap = {}
    uts_mode: str = msgspec.field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: Int64 = 0
    sysctls: StringMap = {}
    runtime: str = ""
    isolation: str = ""
    masked_paths: Strings | None = None
    readonly_paths: Strings | None = None
    init: bool | None = None


class Config(DockerStruct):
    """The members of ``ContainerConfig``, which create has at its top level and commit as its body."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: Strings = []
    cmd: OneOrMany | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, Any] = {}
    working_dir: str = ""
    entrypoint: OneOrMany | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: Strings = []
    labels: StringMap = {}
    stop_signal: str = ""
    stop_timeout: Int64 | None = None
    shell: Strings = []


class CreateBody(Config):
    host_config: HostConfig = msgspec.field(default_factory=HostConfig)
    networking_config: NetworkingConfig = msgspec.field(default_factory=NetworkingConfig)


class UpdateBody(Limits):
    restart_policy: RestartPolicy = msgspec.field(default_factory=RestartPolicy)


class ExecCreateBody(DockerStruct):
    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: list[TerminalSide] = []
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: Strings = []
    working_dir: str = ""
    cmd: OneOrMany = []


class ExecStartBody(DockerStruct):
    detach: bool = False
    tty: bool = False
    console_size: list[TerminalSide] = []


class IpamPool(DockerStruct):
    subnet: str = ""
    ip_range: str = msgspec.field(name="IPRange", default="")
    gateway: str = ""
    auxiliary_addresses: StringMap = msgspec.field(name="AuxiliaryAddresses", default_factory=dict)
    aux_address: StringMap = {}


class Ipam(DockerStruct):
    driver: str = ""
    config: list[IpamPool] = []
    options: StringMap = {}


class NetworkCreateBody(DockerStruct):
    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: dict[str, str] = {}
    ipam: Ipam = msgspec.field(name="IPAM", default_factory=Ipam)
    enable_ipv4: bool | None = msgspec.field(name="EnableIPv4", default=None)
    enable_ipv6: bool = msgspec.field(name="EnableIPv6", default=False)
    options: StringMap = {}
    labels: StringMap = {}


class NetworkConnectBody(DockerStruct):
    container: str = ""
    endpoint_config: EndpointSettings | None = None


class NetworkDisconnectBody(DockerStruct):
    container: str = ""
    force: bool = False


class VolumeCreateBody(DockerStruct):
    name: str = ""
    driver: str = ""
    driver_opts: StringMap = {}
    labels: StringMap = {}
    cluster_volume_spec: dict[str, Any] | None = None


class AuthBody(msgspec.Struct, kw_only=True):
    username: str = ""
    password: str = ""
    email: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""

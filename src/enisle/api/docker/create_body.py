"""The body of container create -> InstanceSpec."""

from __future__ import annotations

from enisle.api.docker import limits_body, mount_body, port_body
from enisle.api.docker import request_types as body
from enisle.api.docker.create_checks import check
from enisle.errors import Invalid
from enisle.model.ids import ImageId
from enisle.model.image import ImageConfig
from enisle.model.instance import DEFAULT_SHM_BYTES, EndpointRequest, Healthcheck, InstanceSpec, LogConfig


def instance_spec(wanted: body.CreateBody, *, cpus: int, platform: str = "", warnings: list[str]) -> InstanceSpec:
    """What the user asked for. Raises Invalid in dockerd's words; ``warnings`` grows by what is odd, but accepted."""
    host = wanted.host_config
    if not wanted.image:
        raise Invalid("config cannot be empty in order to create a container: Image is missing")
    check(wanted)
    rows, columns = ([*host.console_size, 0, 0])[:2]
    return InstanceSpec(
        runtime=host.runtime,
        image=wanted.image,
        image_id=ImageId(""),
        platform=platform,
        hostname=wanted.hostname,
        domainname=wanted.domainname,
        user=wanted.user,
        attach_stdin=wanted.attach_stdin,
        attach_stdout=wanted.attach_stdout,
        attach_stderr=wanted.attach_stderr,
        tty=wanted.tty,
        open_stdin=wanted.open_stdin,
        stdin_once=wanted.stdin_once,
        env=tuple(wanted.env),
        entrypoint=() if wanted.entrypoint == [] else _words(wanted.entrypoint),
        command=_words(wanted.cmd),
        args_escaped=wanted.args_escaped,
        working_dir=wanted.working_dir,
        labels=_map(wanted.labels),
        stop_signal=wanted.stop_signal,
        stop_timeout_s=wanted.stop_timeout,
        shell=tuple(wanted.shell),
        on_build=tuple(wanted.on_build),
        healthcheck=healthcheck(wanted.healthcheck),
        exposed_ports=port_body.exposed([*wanted.exposed_ports, *host.port_bindings]),
        volumes=tuple(wanted.volumes),
        network_disabled=wanted.network_disabled,
        mounts=mount_body.mounts_of(host, tuple(wanted.volumes)),
        volumes_from=tuple(host.volumes_from),
        network_mode=host.network_mode or "default",
        endpoints=_endpoints(wanted),
        mac_address=wanted.mac_address,
        ports=port_body.published(host.port_bindings),
        publish_all=host.publish_all_ports,
        links=tuple(host.links),
        dns=tuple(host.dns),
        dns_options=tuple(host.dns_options),
        dns_search=tuple(host.dns_search),
        extra_hosts=tuple(host.extra_hosts),
        resources=limits_body.resources(host, cpus=cpus, warnings=warnings),
        devices=limits_body.devices(host),
        ulimits=limits_body.ulimits(host),
        shm_size_bytes=host.shm_size or DEFAULT_SHM_BYTES,
        sysctls=_map(host.sysctls),
        storage_options=_map(host.storage_opt),
        restart=limits_body.restart_policy(host.restart_policy),
        auto_remove=host.auto_remove,
        init=host.init,
        privileged=host.privileged,
        read_only_root=host.readonly_rootfs,
        cap_add=_words(host.cap_add) or (),
        cap_drop=_words(host.cap_drop) or (),
        security_options=tuple(host.security_opt),
        masked_paths=_paths(host.masked_paths),
        read_only_paths=_paths(host.readonly_paths),
        group_add=tuple(host.group_add),
        oom_score_adj=host.oom_score_adj,
        pid_mode=host.pid_mode,
        ipc_mode=host.ipc_mode,
        uts_mode=host.uts_mode,
        cgroupns_mode=host.cgroupns_mode,
        userns_mode=host.userns_mode,
        cgroup_parent=host.cgroup_parent,
        cgroup=host.cgroup,
        log=LogConfig(driver=host.log_config.type, options=_map(host.log_config.config)),
        volume_driver=host.volume_driver,
        container_id_file=host.container_id_file,
        annotations=_map(host.annotations),
        console_size=(rows, columns),
    )


def image_config(wanted: body.Config) -> ImageConfig:
    """The body of commit -> the config of the image to be made."""
    return ImageConfig(
        user=wanted.user,
        exposed_ports=port_body.exposed(wanted.exposed_ports),
        env=tuple(wanted.env),
        entrypoint=_words(wanted.entrypoint),
        command=_words(wanted.cmd),
        volumes=tuple(wanted.volumes),
        working_dir=wanted.working_dir,
        labels=_map(wanted.labels),
        stop_signal=wanted.stop_signal,
        healthcheck=healthcheck(wanted.healthcheck),
        on_build=tuple(wanted.on_build),
        shell=tuple(wanted.shell),
    )


def healthcheck(wanted: body.Healthcheck | None) -> Healthcheck | None:
    """None when nothing was said about it."""
    if wanted is None:
        return None
    return Healthcheck(
        test=tuple(wanted.test),
        interval_ns=wanted.interval,
        timeout_ns=wanted.timeout,
        start_period_ns=wanted.start_period,
        start_interval_ns=wanted.start_interval,
        retries=wanted.retries,
    )


def endpoint_request(network: str, settings: body.EndpointSettings | None) -> EndpointRequest:
    """EndpointSettings -> what is asked of one network."""
    settings = settings or body.EndpointSettings()
    ipam = settings.ipam_config or body.EndpointIpam()
    return EndpointRequest(
        network=network,
        aliases=tuple(settings.aliases),
        links=tuple(settings.links),
        ipv4_address=ipam.ipv4_address,
        ipv6_address=ipam.ipv6_address,
        link_local_ips=tuple(ipam.link_local_ips),
        mac_address=settings.mac_address,
        driver_options=_map(settings.driver_opts),
    )


def _endpoints(wanted: body.CreateBody) -> tuple[EndpointRequest, ...]:
    settings = wanted.networking_config.endpoints_config
    return tuple(endpoint_request(name, value) for name, value in settings.items())


def _words(value: str | list[str] | None) -> tuple[str, ...] | None:
    """Go's strslice: one string is a list of one; an empty list says nothing. Docker clears an image's entrypoint
    with [""]."""
    if value is None or value == []:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def _paths(value: list[str] | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)


def _map(value: dict[str, str | None]) -> dict[str, str]:
    return {key: item or "" for key, item in value.items()}
